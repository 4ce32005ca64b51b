//! SIGKILL at every named point.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use posthouse_tests::points::{self, CASES};
use posthouse_tests::storm::Storm;

/// Platforms at a time: each waits for disk and timers most of its life.
const PARALLEL: usize = 4;

#[test]
fn a_kill_at_any_named_point_loses_nothing() {
    assert!(points::uncovered().is_empty(), "points without a case: {:?}", points::uncovered());
    let next = AtomicUsize::new(0);
    let whole = Mutex::new(Storm::default());
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                while let Some((point, reached)) = CASES.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let storm = points::kill_at(point, *reached, 1);
                    assert!(storm.verdict.is_clean(), "{point} {reached:?}: {}", storm.verdict);
                    whole.lock().unwrap().add(&storm);
                }
            });
        }
    });
    let whole = whole.into_inner().unwrap();
    println!("{} kills: {}", whole.kills, whole.verdict);
    assert_eq!(whole.kills, CASES.len() as u64);
}
