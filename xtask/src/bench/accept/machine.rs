//! Where and of what the figures are.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use super::peers;
use crate::test::output;

/// Date, machine, versions.
#[derive(Debug, Default)]
pub struct Machine {
    pub date: String,
    pub cores: usize,
    pub cpu: String,
    pub memory_gib: u64,
    pub kernel: String,
    pub system: String,
    pub filesystem: String,
    pub posthouse: String,
    pub postfix: String,
    pub commit: String,
    pub cpu_time_from: String,
}

impl Machine {
    /// `folder`: where both servers keep their state.
    pub fn learn(binary: &Path, folder: &Path, cpu_time_from: &str) -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let meminfo = fs::read_to_string("/proc/meminfo")?;
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let value = |text: &str, name: &str, separator: char| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(separator))
                .map_or(String::new(), |(_, v)| v.trim().trim_matches('"').to_owned())
        };
        let kib: u64 = value(&meminfo, "MemTotal", ':').trim_end_matches(" kB").parse().unwrap_or(0);
        let line = |command: &mut Command| output(command).map(|text| text.trim().to_owned());
        let commit = line(Command::new("git").args(["rev-parse", "--short=12", "HEAD"]))?;
        let changed = line(Command::new("git").args(["status", "--porcelain", "--untracked-files=no"]))?;
        Ok(Self {
            date: line(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))?,
            cores: std::thread::available_parallelism()?.get(),
            cpu: value(&cpuinfo, "model name", ':'),
            memory_gib: (kib + (1 << 19)) >> 20,
            kernel: line(Command::new("uname").args(["-sr"]))?,
            system: value(&release, "PRETTY_NAME", '='),
            filesystem: line(Command::new("df").arg("--output=fstype").arg(folder))?.replace("Type\n", ""),
            posthouse: line(Command::new(binary).arg("--version"))?,
            postfix: format!("Postfix {}", peers::setting(Path::new("/etc/postfix"), "mail_version")?),
            commit: if changed.is_empty() { commit } else { format!("{commit} with changes") },
            cpu_time_from: cpu_time_from.to_owned(),
        })
    }

    pub fn text(&self) -> String {
        format!(
            "{}; {} cores, {}, {} GiB; {}, {}, state on {}; {} ({}), {}; CPU time from {}",
            self.date,
            self.cores,
            self.cpu,
            self.memory_gib,
            self.system,
            self.kernel,
            self.filesystem,
            self.posthouse,
            self.commit,
            self.postfix,
            self.cpu_time_from
        )
    }

    pub fn json(&self) -> Value {
        json!({
            "date": self.date, "cores": self.cores, "cpu": self.cpu, "memory_gib": self.memory_gib,
            "kernel": self.kernel, "system": self.system, "filesystem": self.filesystem,
            "posthouse": self.posthouse, "postfix": self.postfix, "commit": self.commit,
            "cpu_time_from": self.cpu_time_from,
        })
    }
}
