//! The processes of one server or tool: what they used together, exited ones included.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

/// Linux tells CPU time in these for every program, whatever the kernel's own tick.
const TICKS_PER_SECOND: f64 = 100.0;
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// A cgroup v2 where one can be made; else the tree below one process.
pub struct Group {
    cgroup: Option<PathBuf>,
    root: AtomicU32,
}

/// Memory of all processes of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Pages shared by several processes count in parts.
    pub pss_kib: u64,
    /// Pages shared by several processes count for each.
    pub rss_kib: u64,
}

impl Group {
    /// An empty group; `name` only serves a reader of /sys/fs/cgroup.
    pub fn new(name: &str) -> Self {
        let folder = cgroup_mount().map(|mount| mount.join(format!("posthouse-bench-{}-{name}", std::process::id())));
        let cgroup = folder.filter(|folder| folder.is_dir() || fs::create_dir(folder).is_ok());
        // Where the folder can be made but nothing can be put into it, the tree serves.
        let cgroup = cgroup.filter(|folder| folder.join("cpu.stat").exists());
        Self { cgroup, root: AtomicU32::new(0) }
    }

    /// How the CPU time is learned.
    pub fn kind(&self) -> &'static str {
        if self.cgroup.is_some() { "cgroup v2" } else { "/proc, process tree" }
    }

    /// Starts a program inside the group; it ends when this process does.
    pub fn spawn(&self, program: &[&str], adjust: impl FnOnce(&mut Command)) -> Result<Child> {
        let mut command = match &self.cgroup {
            // The shell joins the group before it becomes the program: nothing runs outside.
            Some(folder) => {
                let mut command = Command::new("sh");
                command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(folder.join("cgroup.procs"));
                command.arg("setpriv");
                command
            }
            None => Command::new("setpriv"),
        };
        command.args(["--pdeathsig", "TERM", "--"]).args(program);
        adjust(&mut command);
        let child = command.spawn().with_context(|| format!("cannot start {}", program.join(" ")))?;
        self.root.store(child.id(), Ordering::Relaxed);
        Ok(child)
    }

    /// CPU milliseconds, user and system, since the group began.
    pub fn cpu_ms(&self) -> Result<f64> {
        if let Some(folder) = &self.cgroup {
            let text = fs::read_to_string(folder.join("cpu.stat")).context("cannot read cpu.stat")?;
            let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).context("usage_usec")?;
            return Ok(usage.trim().parse::<f64>().context("usage_usec is a number")? / 1000.0);
        }
        Ok(self.processes().iter().filter_map(|pid| Stat::read(*pid)).map(|stat| stat.cpu_ms()).sum())
    }

    /// All living processes.
    pub fn processes(&self) -> Vec<u32> {
        match &self.cgroup {
            Some(folder) => {
                let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
                text.lines().filter_map(|line| line.parse().ok()).collect()
            }
            None => tree(self.root.load(Ordering::Relaxed), &parents()),
        }
    }

    /// Memory of all living processes now.
    pub fn memory(&self) -> Memory {
        let mut sum = Memory::default();
        for pid in self.processes() {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            sum.pss_kib += field_kib(&text, "Pss:");
            sum.rss_kib += field_kib(&text, "Rss:");
        }
        sum
    }

    /// Sends a signal to one process; one that has ended already is fine.
    pub fn signal(pid: u32, signal: &str) {
        // Nothing depends on the outcome: whoever waits for the end finds out.
        let _ = Command::new("kill").args([signal, &pid.to_string()]).output();
    }

    /// Asks what is left to end, then ends it.
    pub fn end(&self) {
        for signal in ["-TERM", "-KILL"] {
            let left = self.processes();
            left.iter().for_each(|pid| Self::signal(*pid, signal));
            if super::wait_until(END_TIMEOUT, || self.processes().is_empty()) {
                break;
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
        if let Some(folder) = &self.cgroup {
            // An empty cgroup that stays harms nobody.
            let _ = fs::remove_dir(folder);
        }
    }
}

fn cgroup_mount() -> Option<PathBuf> {
    mount_of_cgroup2(&fs::read_to_string("/proc/self/mountinfo").ok()?)
}

/// `41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw`
fn mount_of_cgroup2(mountinfo: &str) -> Option<PathBuf> {
    let line = mountinfo.lines().find(|line| line.contains(" - cgroup2 "))?;
    line.split(' ').nth(4).map(PathBuf::from)
}

/// What `/proc/PID/stat` says.
#[derive(Debug, PartialEq, Eq)]
pub struct Stat {
    pub parent: u32,
    /// Ended, not yet waited for.
    ended: bool,
    /// utime, stime, cutime, cstime.
    ticks: [u64; 4],
}

impl Stat {
    pub fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The name in parentheses may hold spaces and parentheses of its own.
    fn parse(text: &str) -> Option<Self> {
        let (_, fields) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
        let ticks = [number(11)?, number(12)?, number(13)?, number(14)?];
        Some(Self { parent: number(1)?.try_into().ok()?, ended: fields.first() == Some(&"Z"), ticks })
    }

    /// With the children that were waited for.
    pub fn cpu_ms(&self) -> f64 {
        self.ticks.iter().sum::<u64>() as f64 * 1000.0 / TICKS_PER_SECOND
    }

    /// Without them.
    pub fn own_cpu_ms(&self) -> f64 {
        (self.ticks[0] + self.ticks[1]) as f64 * 1000.0 / TICKS_PER_SECOND
    }
}

/// Parent of every living process.
pub fn parents() -> HashMap<u32, u32> {
    let entries = fs::read_dir(Path::new("/proc")).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let stats = pids.filter_map(|pid| Some((pid, Stat::read(pid)?)));
    stats.filter(|(_, stat)| !stat.ended).map(|(pid, stat)| (pid, stat.parent)).collect()
}

fn tree(root: u32, parents: &HashMap<u32, u32>) -> Vec<u32> {
    let mut found: Vec<u32> = parents.contains_key(&root).then_some(root).into_iter().collect();
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, of)| **of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

fn field_kib(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_parentheses_does_not_shift_the_fields() {
        let text = "77 (a) b (c) S 12 77 77 0 -1 4194560 100 200 0 0 30 4 5 6 20 0 1 0 100 0 0";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(stat, Stat { parent: 12, ended: false, ticks: [30, 4, 5, 6] });
        assert!((stat.cpu_ms() - 450.0).abs() < 1e-9);
        assert_eq!(Stat::parse("77 (a) S 12"), None);
    }

    #[test]
    fn a_tree_holds_grandchildren_and_nobody_else() {
        let parents = HashMap::from([(10, 1), (11, 10), (12, 11), (20, 1), (21, 20)]);
        let mut found = tree(10, &parents);
        found.sort_unstable();
        assert_eq!(found, [10, 11, 12]);
        assert_eq!(tree(99, &parents), Vec::<u32>::new());
    }

    #[test]
    fn what_a_group_starts_is_seen_and_ended_with_its_children() {
        let tree = Group { cgroup: None, root: AtomicU32::new(0) };
        // The second is a cgroup where one can be made, and a tree elsewhere.
        for group in [tree, Group::new("test")] {
            let mut child = group.spawn(&["sh", "-c", "sleep 60 & wait"], |_| ()).unwrap();
            assert!(super::super::wait_until(END_TIMEOUT, || group.processes().len() == 2), "{}", group.kind());
            assert!(group.memory().rss_kib > 0 && group.cpu_ms().is_ok());
            group.end();
            assert_eq!(group.processes(), Vec::<u32>::new(), "{}", group.kind());
            child.wait().unwrap();
        }
    }

    #[test]
    fn the_second_version_is_found_among_the_cgroup_mounts() {
        let text = "30 20 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_of_cgroup2(text), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mount_of_cgroup2("1 2 0:1 / / rw - ext4 /dev/sda rw\n"), None);
    }

    #[test]
    fn memory_is_read_from_the_rollup() {
        let text = "55d0-7ffc ---p 00000000 00:00 0 [rollup]\nRss:                9000 kB\nPss:     4321 kB\n";
        assert_eq!((field_kib(text, "Pss:"), field_kib(text, "Rss:"), field_kib(text, "Swap:")), (4321, 9000, 0));
    }
}
