//! Honest and hostile traffic for a long time: memory stays flat, nothing leaks, nothing is lost.

use std::time::{Duration, Instant};

use testkit::posthouse::Posthouse;

use crate::clients::{Clients, Load, Opening};
use crate::hostile::Attackers;
use crate::ledger::Verdict;
use crate::sink::Manners;
use crate::stage::{PASSWORD, Stage, USER};

/// How long the rate is measured.
const MEASURED: Duration = Duration::from_secs(8);
/// Memory of the last third may exceed that of the third before by a twentieth, or by this.
const RSS_GROWTH_KIB: f64 = 4096.0;
/// Tasks and file descriptors that may be more than before: what a scrape itself needs.
const SLACK: u64 = 6;
/// How long what rests may take to go: kept connections, time-outs of half-open sessions.
const QUIET_MAX: Duration = Duration::from_secs(120);
/// Sessions in the clear, with STARTTLS, and logged in.
const CLIENTS: [usize; 3] = [8, 4, 4];

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Length of the load.
    pub time: Duration,
    /// Between two samples.
    pub every: Duration,
    /// Messages per second; measured, and halved, where it is not given.
    pub rate: Option<f64>,
    /// The numbers are made from this.
    pub seed: u64,
}

/// The process at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Seconds since the load began.
    pub at_s: f64,
    /// Resident memory.
    pub rss_kib: u64,
    /// Open file descriptors.
    pub fds: u64,
    /// Threads of the system.
    pub threads: u64,
    /// Tasks of the runtime that are alive.
    pub tasks: u64,
}

/// What the soak found.
#[derive(Debug)]
pub struct Soak {
    /// Messages per second that were sent.
    pub rate: f64,
    /// Attacks that were made.
    pub attacks: u64,
    /// Before the load.
    pub before: Sample,
    /// While it lasted.
    pub samples: Vec<Sample>,
    /// Once all was quiet again.
    pub after: Sample,
    /// Of the ledger.
    pub verdict: Verdict,
}

impl Soak {
    /// Mean memory of the second third and of the last one, in KiB.
    pub fn thirds(&self) -> (f64, f64) {
        let third = self.samples.len() / 3;
        let mean = |part: &[Sample]| part.iter().map(|s| s.rss_kib as f64).sum::<f64>() / part.len().max(1) as f64;
        (mean(&self.samples[third..third * 2]), mean(&self.samples[third * 2..]))
    }

    /// What is wrong; empty is good.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let (middle, last) = self.thirds();
        if last > middle + RSS_GROWTH_KIB.max(middle / 20.0) {
            faults.push(format!("memory grew from {middle:.0} to {last:.0} KiB"));
        }
        let leaked = |name: &str, before: u64, after: u64| {
            (after > before + SLACK).then(|| format!("{name}: {before} before the load, {after} after it"))
        };
        faults.extend(leaked("tasks", self.before.tasks, self.after.tasks));
        faults.extend(leaked("file descriptors", self.before.fds, self.after.fds));
        if !self.verdict.is_clean() {
            faults.push(format!("the ledger: {}", self.verdict));
        }
        faults
    }

    /// The figures, by name.
    pub fn to_json(&self) -> serde_json::Value {
        let sample = |s: &Sample| {
            serde_json::json!({
                "at_s": s.at_s, "rss_kib": s.rss_kib, "fds": s.fds, "threads": s.threads, "tasks": s.tasks,
            })
        };
        let (middle, last) = self.thirds();
        let mut json = self.verdict.to_json();
        json["rate"] = self.rate.into();
        json["attacks"] = self.attacks.into();
        json["rss_second_third_kib"] = middle.into();
        json["rss_last_third_kib"] = last.into();
        json["before"] = sample(&self.before);
        json["after"] = sample(&self.after);
        json["samples"] = self.samples.iter().map(sample).collect();
        json
    }
}

/// Runs it; `told` hears of each sample.
///
/// # Panics
/// When the platform does not start, or does not empty its queue.
#[allow(clippy::disallowed_methods, reason = "it measures time")]
pub fn run(plan: &Plan, mut told: impl FnMut(&Sample)) -> Soak {
    let mut stage = Stage::new(Manners::default());
    let posthouse = stage.start();
    let began = Instant::now();
    let before = sample(&posthouse, began);
    let rate = plan.rate.unwrap_or_else(|| measure(&stage, plan.seed) / 2.0);
    let clients = start_clients(&stage, plan, rate);
    let attackers = Attackers::start(stage.mx(), "r0@d0.test", plan.seed);
    let (began, mut samples) = (Instant::now(), Vec::new());
    while began.elapsed() < plan.time {
        std::thread::sleep(plan.every);
        let sample = sample(&posthouse, began);
        told(&sample);
        samples.push(sample);
    }
    let attacks = attackers.stop();
    clients.into_iter().for_each(Clients::stop);
    let verdict = stage.settle();
    let quiet = Instant::now();
    let after = loop {
        let after = sample(&posthouse, began);
        let calm = after.tasks <= before.tasks + SLACK && after.fds <= before.fds + SLACK;
        if calm || quiet.elapsed() > QUIET_MAX {
            break after;
        }
        std::thread::sleep(Duration::from_millis(500));
    };
    Soak { rate, attacks, before, samples, after, verdict }
}

/// Messages per second that the platform takes from the same clients when nothing holds them back.
#[allow(clippy::disallowed_methods, reason = "it measures time")]
fn measure(stage: &Stage, seed: u64) -> f64 {
    let load = Load { several_recipients: 0, ..Load::mixed(CLIENTS.iter().sum(), stage.recipients(), seed) };
    let before = stage.ledger.accepted();
    let (clients, began) = (Clients::start(&stage.ledger, stage.mx(), &load), Instant::now());
    std::thread::sleep(MEASURED);
    let taken = stage.ledger.accepted() - before;
    let rate = taken as f64 / began.elapsed().as_secs_f64();
    clients.stop();
    stage.settle();
    rate
}

fn start_clients(stage: &Stage, plan: &Plan, rate: f64) -> Vec<Clients> {
    let pause = Duration::from_secs_f64(CLIENTS.iter().sum::<usize>() as f64 / rate.max(1.0));
    let login = Opening::Login { user: USER.to_owned(), password: PASSWORD.to_owned() };
    let kinds = [(Opening::Plain, stage.mx()), (Opening::StartTls, stage.mx()), (login, stage.submission())];
    let kinds = kinds.into_iter().zip(CLIENTS).zip(plan.seed..);
    kinds
        .map(|(((opening, address), clients), seed)| {
            let load = Load { opening, pause, ..Load::mixed(clients, stage.recipients(), seed) };
            Clients::start(&stage.ledger, address, &load)
        })
        .collect()
}

fn sample(posthouse: &Posthouse, began: Instant) -> Sample {
    let tasks = posthouse.metric("posthouse_tasks", &[]) as u64;
    let status = std::fs::read_to_string(format!("/proc/{}/status", posthouse.pid())).expect("the platform runs");
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field of /proc");
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("a number")
    };
    let fds = std::fs::read_dir(format!("/proc/{}/fd", posthouse.pid())).expect("the platform runs").count() as u64;
    Sample { at_s: began.elapsed().as_secs_f64(), rss_kib: number("VmRSS"), fds, threads: number("Threads"), tasks }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soak(rss: &[u64], after: (u64, u64)) -> Soak {
        let sample = |rss_kib, fds, tasks| Sample { at_s: 0.0, rss_kib, fds, threads: 4, tasks };
        Soak {
            rate: 1.0,
            attacks: 0,
            before: sample(0, 30, 20),
            samples: rss.iter().map(|rss| sample(*rss, 50, 50)).collect(),
            after: sample(0, after.0, after.1),
            verdict: Verdict::default(),
        }
    }

    #[test]
    fn growth_and_leaks_are_found_and_the_warming_up_is_not() {
        assert!(soak(&[10_000, 30_000, 50_000, 50_100, 50_000, 50_200], (30, 20)).faults().is_empty());
        assert_eq!(soak(&[50_000, 50_000, 50_000, 50_000, 60_000, 60_000], (30, 20)).faults().len(), 1);
        assert_eq!(soak(&[50_000; 6], (30 + SLACK + 1, 20)).faults().len(), 1);
        assert_eq!(soak(&[50_000; 6], (30, 20 + SLACK + 1)).faults().len(), 1);
        let lost = Soak { verdict: Verdict { lost: 1, ..Verdict::default() }, ..soak(&[50_000; 6], (30, 20)) };
        assert_eq!(lost.faults().len(), 1);
    }
}
