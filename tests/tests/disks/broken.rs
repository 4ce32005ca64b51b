//! Disks that fail for a while: clients are put off, whoever looks is told, and afterwards everything is there.

use std::collections::BTreeSet;
use std::time::Duration;

use faultfs::{Dice, Fault, FaultFs, Scope};
use posthouse_tests::clients::{Clients, Load};
use posthouse_tests::ledger::Answer;
use posthouse_tests::random::Random;
use posthouse_tests::sink::Manners;
use posthouse_tests::stage::Stage;
use testkit::eventually;
use testkit::posthouse::Posthouse;

use crate::hand_in;

/// A platform whose state lies on a disk that can be broken, under load.
struct Place {
    stage: Stage,
    layer: FaultFs,
    posthouse: Posthouse,
    clients: Option<Clients>,
}

impl Place {
    fn new(manners: Manners) -> Self {
        let stage = Stage::new(manners);
        let state = stage.site.path().join("disk");
        std::fs::create_dir(&state).unwrap();
        let layer = FaultFs::mount(&state).expect("FUSE: /dev/fuse, and root or fusermount3");
        let mut stage = stage.with_state(state);
        let posthouse = stage.start();
        let load = Load::mixed(3, stage.recipients(), Random::any_seed());
        let clients = Clients::start(&stage.ledger, stage.mx(), &load);
        let place = Self { stage, layer, posthouse, clients: Some(clients) };
        place.wait_for_accepted(30);
        place
    }

    fn wait_for_accepted(&self, more: usize) {
        let before = self.stage.ledger.accepted();
        eventually("mail to be taken", || (self.stage.ledger.accepted() >= before + more).then_some(()));
    }

    /// Waits until whoever looks is told: the metric of this kind, and the reason in `/readyz`, which is 503 exactly where
    /// the store is in trouble. Returns whether it is.
    fn wait_for_trouble(&self, kind: &str) -> bool {
        eventually(&format!("trouble of kind {kind}"), || {
            let (status, text) = self.posthouse.get("/readyz");
            let is = |kind: &str| {
                let labels = [&*format!("kind=\"{kind}\"")];
                self.posthouse.metric("posthouse_queue_trouble", &labels) >= 1.0
            };
            let store = is("store");
            let agree = status == if store { 503 } else { 200 };
            (text.contains("\"reason\"") && is(kind) && agree).then_some(store)
        })
    }

    /// Mends the disk and waits until the platform works again, by itself.
    fn heal(&self) {
        self.layer.heal();
        eventually("the platform to recover", || {
            let (status, text) = self.posthouse.get("/readyz");
            let well = status == 200 && !text.contains("\"reason\"");
            (well && self.posthouse.metric("posthouse_queue_trouble", &[]) == 0.0).then_some(())
        });
        self.wait_for_accepted(20);
    }

    /// Stops the load and compares. Then the power goes: what was settled stays settled.
    fn finish(mut self) {
        if let Some(clients) = self.clients.take() {
            clients.stop();
        }
        self.stage.settle().assert_clean();
        self.layer.cut(Dice::new(1).draw());
        self.stage.kill(&mut self.posthouse);
        self.layer.revive().unwrap();
        self.posthouse = self.stage.start();
        self.stage.settle().assert_clean();
    }

    /// Every answer to an end of data that was not 250.
    fn answers(&self) -> BTreeSet<u16> {
        let records = self.stage.ledger.records();
        let codes = records.sendings.iter().filter_map(|sending| match sending.answer {
            Answer::Refused(code) | Answer::Deferred(code) => Some(code),
            Answer::Accepted(_) | Answer::Unknown => None,
        });
        codes.collect()
    }
}

/// Breaks the disk under load and expects: this reply to a message of so many octets, this kind of trouble, the status of
/// `/readyz` that belongs to it, and afterwards everything that was accepted.
#[track_caller]
fn check(fault: Fault, scope: Scope, bytes: usize, reply: &str, kind: &str) {
    let place = Place::new(Manners::default());
    place.layer.inject(fault, scope);
    eventually(&format!("{reply} for {fault:?}"), || {
        let answer = hand_in(&place.stage, bytes);
        assert!(["250", "451", "452"].contains(&&answer[..3]), "{answer}");
        answer.starts_with(reply).then_some(())
    });
    let store = place.wait_for_trouble(kind);
    // A commit may meet a full disk before whoever watches the free space does; a broken folder of bodies is no trouble
    // of the store.
    assert!(store || kind != "store", "{fault:?}");
    assert!(!store || kind != "bodies", "{fault:?}");
    // Long enough for the platform to try by itself.
    std::thread::sleep(Duration::from_millis(1500));
    assert!(place.layer.struck() > 0);
    place.heal();
    let codes = place.answers();
    assert!(codes.iter().all(|code| [451, 452].contains(code)), "{fault:?}: {codes:?}");
    place.finish();
}

const SMALL: usize = 1000;
const LARGE: usize = 600_000;

#[test]
fn a_full_disk_is_452_and_mail_is_taken_again_when_there_is_room() {
    check(Fault::Full, Scope::everywhere(), SMALL, "452 4.3.1", "space");
}

#[test]
fn a_read_only_disk_is_451_until_it_can_be_written_again() {
    check(Fault::ReadOnly, Scope::everywhere(), SMALL, "451 4.3.0", "store");
}

#[test]
fn errors_on_write_are_451_and_nothing_accepted_is_lost() {
    check(Fault::Write, Scope::of("queue.sqlite"), SMALL, "451 4.3.0", "store");
}

#[test]
fn errors_on_sync_are_451_even_where_the_kernel_forgets_what_it_could_not_write() {
    check(Fault::SyncLoses, Scope::of("queue.sqlite"), SMALL, "451 4.3.0", "store");
}

#[test]
fn a_body_folder_that_cannot_be_written_puts_off_large_mail_only() {
    check(Fault::Write, Scope::of("bodies"), LARGE, "451 4.3.0", "bodies");
}

#[test]
fn a_body_folder_that_cannot_be_synced_puts_off_large_mail_only() {
    check(Fault::SyncLoses, Scope::of("bodies"), LARGE, "451 4.3.0", "bodies");
}

#[test]
fn queued_mail_that_cannot_be_read_waits_and_bounces_nowhere() {
    // Everything is put off once, so that it is read back.
    let place = Place::new(Manners { greylist: 100, ..Manners::default() });
    // Not the index of the WAL: it is mapped into memory, where a failed read is no error but the end of the process.
    place.layer.inject(Fault::Read, Scope::of("queue.sqlite-wal"));
    place.layer.inject(Fault::Read, Scope::of("queue/bodies"));
    // The caches of the kernel hide a broken disk: they are emptied again and again.
    eventually("reads to fail", || {
        place.layer.drop_pages();
        (place.layer.struck() > 20 && place.posthouse.metric("posthouse_queue_trouble", &[]) > 0.0).then_some(())
    });
    for _ in 0..20 {
        place.layer.drop_pages();
        std::thread::sleep(Duration::from_millis(50));
    }
    place.heal();
    place.stage.sink.set_manners(Manners::default());
    place.finish();
}
