//! Kills at every named point of `node::fault::POINTS`.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant, SystemTime};

use crate::clients::{Clients, Load};
use crate::ledger::REFUSED_DOMAIN;
use crate::stage::Stage;
use crate::storm::Storm;

/// How long the process may take to come to its point.
const REACHED_MAX: Duration = Duration::from_secs(45);

/// How a point is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// By mail of all sizes, at this passage.
    Mail(u64),
    /// By mail that is refused by the sink, at this passage: somebody is owed a report.
    Refusal(u64),
    /// By the first start in an empty folder, at this passage.
    FirstStart(u64),
    /// By a start that finds files that runs before it left.
    Leftovers,
    /// By so much mail that the log of the database is copied back.
    Checkpoint,
}

use Reached::{Checkpoint, FirstStart, Leftovers, Mail, Refusal};

/// Every named point, and how it is reached; some in more than one way.
pub const CASES: &[(&str, Reached)] = &[
    ("ingress.session", Mail(20)),
    ("ingress.before-accept", Mail(20)),
    ("ingress.before-reply", Mail(1)),
    ("ingress.before-reply", Mail(20)),
    ("body.before-write", Mail(3)),
    ("body.after-write", Mail(3)),
    ("body.after-sync", Mail(3)),
    ("body.after-rename", Mail(3)),
    ("body.after-folder-sync", Mail(3)),
    ("body.before-delete", Mail(2)),
    ("body.after-delete", Mail(2)),
    ("queue.before-write", Mail(10)),
    ("queue.before-commit", Mail(10)),
    ("queue.after-commit", Mail(10)),
    ("queue.before-answer", Mail(10)),
    ("queue.before-checkpoint", Checkpoint),
    ("queue.after-checkpoint", Checkpoint),
    ("queue.sweep", Leftovers),
    ("queue.sweep-removed", Leftovers),
    ("queue.migrate", FirstStart(1)),
    ("queue.migrating", FirstStart(1)),
    ("queue.migrating", FirstStart(2)),
    ("queue.migrated", FirstStart(1)),
    ("delivery.after-lease", Mail(10)),
    ("delivery.attempt", Mail(10)),
    ("delivery.before-dot", Mail(10)),
    ("delivery.before-settle", Mail(10)),
    ("delivery.after-settle", Mail(5)),
    ("delivery.before-report", Refusal(3)),
    ("delivery.after-report", Refusal(3)),
];

/// Points that no case reaches.
pub fn uncovered() -> Vec<&'static str> {
    let covered = |point: &str| CASES.iter().any(|(name, _)| *name == point);
    node::fault::POINTS.iter().copied().filter(|point| !covered(point)).collect()
}

/// Kills the process at this point, starts it again without the fault, and compares.
///
/// # Panics
/// When the point was not reached: then the case shows nothing.
#[allow(clippy::disallowed_methods, reason = "it waits in real time")]
pub fn kill_at(point: &str, reached: Reached, seed: u64) -> Storm {
    let mut stage = Stage::default();
    let mut recipients = stage.recipients();
    let (passage, clients) = match reached {
        Mail(passage) | FirstStart(passage) => (passage, 4),
        Refusal(passage) => {
            recipients = (0..10).map(|n| format!("x{n}{REFUSED_DOMAIN}")).collect();
            (passage, 4)
        }
        Leftovers => (1, 4),
        Checkpoint => (1, 8),
    };
    let mut load = Load::mixed(clients, recipients, seed);
    match reached {
        // Bodies of the folder are rare in the mix, and points of the folder want some.
        _ if point.starts_with("body.") => load.sizes = vec![(50, 20..4000), (100, (256 << 10) + 1..400_000)],
        Checkpoint => load.sizes = vec![(100, 100_000..200_000)],
        _ => {}
    }
    if reached == Leftovers {
        leave_files(&mut stage);
    }
    let mut posthouse = stage.spawn(&format!("{point}=kill@{passage}"));
    let running = Clients::start(&stage.ledger, stage.mx(), &load);
    let deadline = Instant::now() + REACHED_MAX;
    let status = loop {
        if let Some(status) = posthouse.ended() {
            break status;
        }
        assert!(Instant::now() < deadline, "{point} was not reached {reached:?}:\n{}", posthouse.log());
        std::thread::sleep(Duration::from_millis(2));
    };
    stage.ended();
    assert_eq!(status.signal(), Some(9), "{point} {reached:?}: {status}\n{}", posthouse.log());
    let posthouse = stage.start();
    // Some mail after the kill, too.
    let before = stage.ledger.accepted();
    testkit::eventually("mail after the kill", || (stage.ledger.accepted() > before + 10).then_some(()));
    running.stop();
    let verdict = stage.settle();
    drop(posthouse);
    assert!(!reached_bodies_are_left(&stage), "{point} {reached:?}: body files are left over");
    Storm { verdict, kills: 1, power_cuts: 0 }
}

/// Files as a killed process leaves them, from a minute ago.
#[allow(clippy::disallowed_methods, reason = "files get a time")]
fn leave_files(stage: &mut Stage) {
    let mut posthouse = stage.start();
    stage.kill(&mut posthouse);
    let bodies = stage.site.state().join("queue/bodies");
    fs::create_dir_all(bodies.join("1v")).expect("a folder of bodies");
    let old = SystemTime::now() - Duration::from_secs(60);
    for name in
        ["tmp/0123456789abcdef", "1v/00000000000000000000000a1v-12345678", "1v/00000000000000000000000b1v-12345678"]
    {
        let file = fs::File::create(bodies.join(name)).expect("a leftover");
        file.set_modified(old).expect("its time is set");
    }
}

/// Whether files lie in the body folder although the queue is empty; what the kill left may be young, and wait for a
/// sweep, so one start is allowed to look.
fn reached_bodies_are_left(stage: &Stage) -> bool {
    let bodies = stage.site.state().join("queue/bodies");
    ["1v"].iter().any(|folder| {
        fs::read_dir(bodies.join(folder)).is_ok_and(|mut entries| {
            entries.any(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().ends_with("-12345678")))
        })
    })
}
