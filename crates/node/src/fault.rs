//! Named points where the tests break the process on purpose. A release build has none of them.
//!
//! `POSTHOUSE_FAULT` lists what happens where: `point=action` or `point=action@n` (at the n-th passage only), joined by
//! semicolons. Actions: `kill` (SIGKILL to the own process: nothing more is written or said), `panic`, `sleep:MS`.

/// Every point, in the order in which a message passes them.
pub const POINTS: &[&str] = &[
    "ingress.session",
    "ingress.before-accept",
    "ingress.before-reply",
    "body.before-write",
    "body.after-write",
    "body.after-sync",
    "body.after-rename",
    "body.after-folder-sync",
    "body.before-delete",
    "body.after-delete",
    "queue.before-write",
    "queue.before-commit",
    "queue.after-commit",
    "queue.before-answer",
    "queue.before-checkpoint",
    "queue.after-checkpoint",
    "queue.sweep",
    "queue.sweep-removed",
    "queue.migrate",
    "queue.migrating",
    "queue.migrated",
    "delivery.after-lease",
    "delivery.attempt",
    "delivery.before-dot",
    "delivery.before-settle",
    "delivery.after-settle",
    "delivery.before-report",
    "delivery.after-report",
];

/// Does what `POSTHOUSE_FAULT` asks for at this point; nothing in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn point(_name: &'static str) {}

#[cfg(debug_assertions)]
pub use built_for_tests::point;

#[cfg(debug_assertions)]
mod built_for_tests {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::POINTS;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) enum Action {
        Kill,
        Panic,
        Sleep(Duration),
    }

    pub(super) struct Fault {
        pub(super) point: &'static str,
        pub(super) action: Action,
        /// At which passage; `None`: at every one.
        pub(super) at: Option<u64>,
        passed: AtomicU64,
    }

    /// Does what `POSTHOUSE_FAULT` asks for at this point.
    #[allow(clippy::panic, reason = "that is what the test asked for")]
    pub fn point(name: &'static str) {
        static FAULTS: OnceLock<Vec<Fault>> = OnceLock::new();
        #[allow(clippy::disallowed_methods, reason = "the node crate reads the environment")]
        let faults = FAULTS.get_or_init(|| match parse(&std::env::var("POSTHOUSE_FAULT").unwrap_or_default()) {
            Ok(faults) => faults,
            Err(error) => panic!("POSTHOUSE_FAULT: {error}"),
        });
        for fault in faults.iter().filter(|fault| fault.point == name) {
            let passage = fault.passed.fetch_add(1, Ordering::Relaxed) + 1;
            if fault.at.is_some_and(|at| at != passage) {
                continue;
            }
            match fault.action {
                Action::Kill => {
                    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
                    // The signal ends every thread before this one runs on; a stopped clock would be worse than a loop.
                    loop {
                        std::thread::park();
                    }
                }
                Action::Panic => panic!("asked for at {name}"),
                Action::Sleep(time) => std::thread::sleep(time),
            }
        }
    }

    pub(super) fn parse(text: &str) -> Result<Vec<Fault>, String> {
        text.split(';').filter(|part| !part.is_empty()).map(parse_one).collect()
    }

    fn parse_one(part: &str) -> Result<Fault, String> {
        let (point, rest) = part.split_once('=').ok_or_else(|| format!("{part}: no ="))?;
        let known = POINTS.iter().find(|known| **known == point);
        let point = known.ok_or_else(|| format!("{point}: no such point; there are {}", POINTS.join(", ")))?;
        let (action, at) = match rest.split_once('@') {
            Some((action, at)) => (action, Some(at.parse().map_err(|_| format!("{part}: @ wants a number"))?)),
            None => (rest, None),
        };
        let action = match action.split_once(':') {
            None if action == "kill" => Action::Kill,
            None if action == "panic" => Action::Panic,
            Some(("sleep", ms)) => {
                Action::Sleep(Duration::from_millis(ms.parse().map_err(|_| format!("{part}: no milliseconds"))?))
            }
            _ => return Err(format!("{action}: no such action; there are kill, panic, sleep:MS")),
        };
        Ok(Fault { point, action, at, passed: AtomicU64::new(0) })
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::built_for_tests::{Action, parse};

    #[test]
    fn a_list_of_faults_is_read_and_what_is_unknown_is_refused() {
        let faults = parse("queue.before-commit=kill@3;ingress.session=panic;body.after-sync=sleep:20").unwrap();
        let read: Vec<_> = faults.iter().map(|fault| (fault.point, fault.action, fault.at)).collect();
        assert_eq!(
            read,
            [
                ("queue.before-commit", Action::Kill, Some(3)),
                ("ingress.session", Action::Panic, None),
                ("body.after-sync", Action::Sleep(std::time::Duration::from_millis(20)), None),
            ]
        );
        for wrong in ["queue.nowhere=kill", "queue.sweep", "queue.sweep=explode", "queue.sweep=kill@x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
