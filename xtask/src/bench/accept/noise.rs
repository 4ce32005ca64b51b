//! What others did on the machine meanwhile: figures taken beside them mean less.

use std::fs;

use anyhow::{Context, Result};

use super::group::{Group, Stat};

/// Over this share of all CPUs a round is marked.
pub const OTHERS_SHARE_MAX: f64 = 0.12;
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time of the whole machine and of ours at one moment.
pub struct Mark {
    busy_ms: f64,
    total_ms: f64,
    ours_ms: f64,
}

impl Mark {
    /// `ours`: the groups that belong to the measurement; this process and the kernel's threads are added.
    pub fn now(ours: &[&Group]) -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let (busy_ms, total_ms) = machine(&text).context("/proc/stat begins with the sum of all CPUs")?;
        let mut ours_ms = Stat::read(std::process::id()).map_or(0.0, |stat| stat.own_cpu_ms()) + kernel_ms();
        for group in ours {
            ours_ms += group.cpu_ms()?;
        }
        Ok(Self { busy_ms, total_ms, ours_ms })
    }

    /// The share of all CPUs that others used since `before`.
    pub fn others_since(&self, before: &Self) -> f64 {
        let total = self.total_ms - before.total_ms;
        if total <= 0.0 {
            return 0.0;
        }
        // Ours is counted exactly, the machine by ticks: a small difference may fall below zero.
        ((self.busy_ms - before.busy_ms) - (self.ours_ms - before.ours_ms)).max(0.0) / total
    }
}

/// Busy and total milliseconds: user, nice, system and what the hypervisor kept; interrupts are nobody's and left out.
fn machine(stat: &str) -> Option<(f64, f64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<f64> = line.split_ascii_whitespace().filter_map(|field| field.parse().ok()).collect();
    let [user, nice, system, idle, iowait, irq, softirq, steal] = *ticks.first_chunk::<8>()?;
    let busy = user + nice + system + steal;
    let total = busy + idle + iowait + irq + softirq;
    Some((busy * 1000.0 / TICKS_PER_SECOND, total * 1000.0 / TICKS_PER_SECOND))
}

/// Writing back, the journal, and whatever else the kernel does for us: children of kthreadd.
fn kernel_ms() -> f64 {
    const KTHREADD: u32 = 2;
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(Stat::read).filter(|stat| stat.parent == KTHREADD).map(|stat| stat.own_cpu_ms()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_time_is_read_from_the_first_line() {
        let text = "cpu  100 10 50 800 20 5 15 40 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        let (busy, total) = machine(text).unwrap();
        assert!((busy - 2000.0).abs() < 1e-9 && (total - 10_400.0).abs() < 1e-9, "{busy} {total}");
        assert_eq!(machine("intr 1 2 3"), None);
    }

    #[test]
    fn what_is_not_ours_is_others() {
        let before = Mark { busy_ms: 0.0, total_ms: 0.0, ours_ms: 0.0 };
        let after = Mark { busy_ms: 600.0, total_ms: 1000.0, ours_ms: 400.0 };
        assert!((after.others_since(&before) - 0.2).abs() < 1e-9);
        let rounding = Mark { busy_ms: 390.0, total_ms: 1000.0, ours_ms: 400.0 };
        assert!(rounding.others_since(&before).abs() < 1e-9);
    }
}
