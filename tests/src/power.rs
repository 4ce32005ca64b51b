//! Power cuts: the state lies on a disk that loses what was not synced.

use std::time::Duration;

use faultfs::{Cut, Fault, FaultFs, Scope};
use testkit::posthouse::Posthouse;

use crate::clients::{Clients, Load};
use crate::ledger::Verdict;
use crate::random::Random;
use crate::sink::Manners;
use crate::stage::Stage;

/// Sessions at a time.
const CLIENTS: usize = 6;
/// Load before a cut, in milliseconds: mostly short, so that recovery from recovery is met; sometimes long enough for
/// the log of the database to be copied back.
const LOAD_MS: std::ops::Range<u64> = 20..300;
const LOAD_LONG_MS: std::ops::Range<u64> = 1000..2500;

/// What a storm of power cuts found.
#[derive(Debug, Default)]
pub struct PowerReport {
    /// How often the power went.
    pub cuts: u64,
    /// The ledger's comparison at the end.
    pub verdict: Verdict,
    /// What the cuts did.
    pub damage: Cut,
    /// Why the platform did not start after a cut.
    pub broken: Option<String>,
}

impl PowerReport {
    /// Whether something that was answered 250 is not there, or nothing is.
    pub fn lost_something(&self) -> bool {
        self.verdict.lost + self.verdict.damaged > 0 || self.broken.is_some()
    }

    fn add(&mut self, cut: Cut) {
        self.cuts += 1;
        self.damage.files_changed += cut.files_changed;
        self.damage.units_kept += cut.units_kept;
        self.damage.units_lost += cut.units_lost;
        self.damage.entries_kept += cut.entries_kept;
        self.damage.entries_lost += cut.entries_lost;
    }
}

impl std::fmt::Display for PowerReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cuts, verdict, damage, broken } = self;
        write!(
            f,
            "power cuts {cuts}: {} files were being written, {} of {} unsynced units of 512 bytes and {} of {} unsynced \
             folder entries were lost; {verdict}",
            damage.files_changed,
            damage.units_lost,
            damage.units_lost + damage.units_kept,
            damage.entries_lost,
            damage.entries_lost + damage.entries_kept,
        )?;
        broken.as_ref().map_or(Ok(()), |broken| write!(f, "\n  the platform does not start: {broken}"))
    }
}

/// A stage whose state lies on a disk of its own.
struct Place {
    stage: Stage,
    layer: FaultFs,
}

impl Place {
    /// The sink puts off so many in a hundred when it first hears of them: these lie in the queue when the power goes.
    fn new(greylist: u64) -> Self {
        let stage = Stage::new(Manners { greylist, ..Manners::default() });
        let state = stage.site.path().join("disk");
        std::fs::create_dir(&state).expect("a folder to mount on");
        let layer = FaultFs::mount(&state).expect("FUSE: /dev/fuse, and root or fusermount3");
        Self { stage: stage.with_state(state), layer }
    }

    /// The power goes and comes back.
    fn cut(&mut self, posthouse: &mut Posthouse, seed: u64) -> Cut {
        // Nothing is recorded after this instant, however long the process takes to go.
        let (epoch, now) = (self.stage.epoch(), self.stage.ledger.now_ms());
        let cut = self.layer.cut(seed);
        self.stage.kill(posthouse);
        self.stage.ledger.records().ends.insert(epoch, now);
        self.layer.revive().expect("nobody holds the disk");
        cut
    }

    fn load(&self, seed: u64) -> Clients {
        let load = Load::mixed(CLIENTS, self.stage.recipients(), seed);
        Clients::start(&self.stage.ledger, self.stage.mx(), &load)
    }
}

/// Takes the power away so many times, always over the same state, and compares at the end: everything that was answered
/// 250 must have arrived.
///
/// # Panics
/// When the platform does not come back, or does not empty its queue.
pub fn power_cuts(cuts: u64, seed: u64) -> PowerReport {
    let mut place = Place::new(40);
    let mut random = Random::new(seed);
    let mut report = PowerReport::default();
    let clients = place.load(random.draw());
    for _ in 0..cuts {
        let mut posthouse = place.stage.start();
        let range = if random.percent(10) { LOAD_LONG_MS } else { LOAD_MS };
        std::thread::sleep(Duration::from_millis(random.between(range.start, range.end)));
        report.add(place.cut(&mut posthouse, random.draw()));
    }
    let mut posthouse = place.stage.start();
    clients.stop();
    report.verdict = place.stage.settle();
    posthouse.stop();
    report.broken = damage_of_database(&place.stage);
    report
}

/// The counter-test: the same disk, but its syncs lie. Goes on until something is lost, at most so many cuts.
///
/// # Panics
/// When the platform hangs.
pub fn power_cuts_without_sync(cuts_max: u64, seed: u64) -> PowerReport {
    let mut place = Place::new(100);
    let mut random = Random::new(seed);
    let mut report = PowerReport::default();
    let mut posthouse = place.stage.start();
    place.layer.inject(Fault::SyncLies, Scope::everywhere());
    while report.cuts < cuts_max && !report.lost_something() {
        let clients = place.load(random.draw());
        std::thread::sleep(Duration::from_millis(random.between(300, 600)));
        report.add(place.cut(&mut posthouse, random.draw()));
        clients.stop();
        posthouse = place.stage.spawn("");
        match posthouse.ready_or_end() {
            // What was delivered in time is no loss, and what is still queued is none either.
            None => report.verdict = place.stage.compare_with_queue(),
            Some(status) => report.broken = Some(format!("{status}: {}", last_line(&posthouse.log()))),
        }
    }
    report
}

/// What SQLite's own check says against the database.
fn damage_of_database(stage: &Stage) -> Option<String> {
    let database = stage.site.state().join("queue/queue.sqlite");
    let output = std::process::Command::new("sqlite3").arg(database).arg("PRAGMA integrity_check").output();
    let output = output.expect("sqlite3 is installed");
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (text != "ok").then(|| format!("integrity_check: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

fn last_line(log: &str) -> String {
    log.lines().next_back().unwrap_or_default().to_owned()
}
