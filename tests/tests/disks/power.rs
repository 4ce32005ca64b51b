//! Power cuts under load. The long form is `cargo xtask chaos`.

use posthouse_tests::power::{power_cuts, power_cuts_without_sync};
use posthouse_tests::random::Random;

#[test]
fn what_was_answered_250_survives_power_cuts_under_load() {
    let seed = Random::any_seed();
    let report = power_cuts(10, seed);
    println!("seed {seed}: {report}");
    report.verdict.assert_clean();
    assert_eq!(report.broken, None);
    assert!(report.verdict.accepted > 50, "there was hardly any load: {report}");
    assert!(report.damage.units_lost > 0, "the cuts lost nothing at all: {report}");
}

#[test]
fn the_harness_finds_loss_where_the_disk_lies_about_syncing() {
    let seed = Random::any_seed();
    let report = power_cuts_without_sync(20, seed);
    println!("seed {seed}: {report}");
    assert!(report.lost_something(), "seed {seed}: a disk that never syncs lost nothing: {report}");
}
