//! SIGKILL at random instants.

use posthouse_tests::random::Random;
use posthouse_tests::storm;

fn seed() -> u64 {
    let seed = Random::any_seed();
    println!("seed {seed}");
    seed
}

#[test]
fn nothing_is_lost_and_no_duplicate_is_unexplained_when_the_process_is_killed_again_and_again_under_load() {
    let storm = storm::kills(seed(), 22, 12, false);
    println!("{}", storm.verdict);
    storm.verdict.assert_clean();
    assert!(storm.verdict.accepted > 200, "that was no load: {}", storm.verdict);
    assert_eq!(storm.verdict.delivered, storm.verdict.accepted, "the queue is empty");
}

#[test]
fn each_refused_recipient_is_reported_exactly_once_however_often_the_process_is_killed() {
    let storm = storm::kills(seed(), 10, 6, true);
    println!("{}", storm.verdict);
    storm.verdict.assert_clean();
    assert!(storm.verdict.bounced > 20, "that was no load: {}", storm.verdict);
}
