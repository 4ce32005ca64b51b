//! Kills at random instants, under load.

use std::time::Duration;

use crate::clients::{Clients, Load};
use crate::ledger::Verdict;
use crate::random::Random;
use crate::stage::Stage;

/// The longest life of a process that is going to be killed.
const LIFE_MAX_MS: u64 = 700;
/// How many times in a hundred a process is killed without regard to whether it is ready.
const EARLY: u64 = 15;

/// What a storm came to.
#[derive(Debug, Clone, Default)]
pub struct Storm {
    /// What the ledger says.
    pub verdict: Verdict,
    /// Processes that were killed.
    pub kills: u64,
    /// Power cuts.
    pub power_cuts: u64,
}

impl Storm {
    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        self.verdict.add(&other.verdict);
        self.kills += other.kills;
        self.power_cuts += other.power_cuts;
    }
}

/// Kills the platform so many times while clients send, then lets it come to rest and compares. `refusals`: some
/// recipients are refused, and their senders are owed exactly one report each.
pub fn kills(seed: u64, kills: u64, clients: usize, refusals: bool) -> Storm {
    let mut stage = Stage::default();
    let mut random = Random::new(seed);
    let mut recipients = stage.recipients();
    if refusals {
        recipients.extend((0..10).map(|n| format!("x{n}{}", crate::ledger::REFUSED_DOMAIN)));
    }
    let load = Load { pause: Duration::from_millis(2), ..Load::mixed(clients, recipients, random.draw()) };
    let mut running: Option<Clients> = None;
    for _ in 0..kills {
        let mut posthouse = stage.spawn("");
        let mut life = random.below(LIFE_MAX_MS);
        if random.percent(EARLY) {
            life /= 5;
        } else {
            posthouse.wait_ready();
        }
        let (ledger, address) = (&stage.ledger, stage.mx());
        running.get_or_insert_with(|| Clients::start(ledger, address, &load));
        std::thread::sleep(Duration::from_millis(life));
        stage.kill(&mut posthouse);
    }
    let posthouse = stage.start();
    if let Some(running) = running {
        running.stop();
    }
    let verdict = stage.settle();
    drop(posthouse);
    Storm { verdict, kills, power_cuts: 0 }
}
