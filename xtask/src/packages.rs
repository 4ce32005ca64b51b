//! The real peers that tests and benches need, from Debian packages.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::call;

/// A file that is there once the package is, the package, and what it is for.
type Package = (&'static str, &'static str, &'static str);

/// What the tests need.
const NEEDED: &[Package] = &[
    ("/usr/lib/dovecot/lmtp", "dovecot-lmtpd", "the mail store that takes LMTP in the tests"),
    ("/usr/lib/dovecot/imap", "dovecot-imapd", "reading mail back"),
    ("/usr/lib/dovecot/modules/auth/libdriver_sqlite.so", "dovecot-sqlite", "users from one SQLite file"),
    ("/usr/bin/curl", "curl", "the README's submission"),
    ("/usr/bin/openssl", "openssl", "a second TLS client and password hashes"),
    ("/usr/bin/python3", "python3", "a second parser of reports"),
    ("/usr/bin/fusermount3", "fuse3", "the disk that loses what was not synced, where the tests do not run as root"),
    ("/usr/sbin/mkfs.ext4", "e2fsprogs", "a disk that can be filled"),
    ("/usr/bin/sqlite3", "sqlite3", "writing the users' database"),
];

/// What the benches need.
const BENCHES: &[Package] = &[
    ("/usr/sbin/smtp-source", "postfix", "the peer that is measured, the load tool and the sink"),
    ("/usr/bin/strace", "strace", "counting sync calls"),
    ("/usr/bin/openssl", "openssl", "the peer of the TLS handshakes"),
];

/// Asked before a package's service is started; 101 forbids it. Debian policy, section 9.3.3.
const SERVICE_POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs what the tests need and is missing, and says so.
pub fn install_missing() -> Result<()> {
    install("tests", NEEDED)
}

/// Installs what the benches need and is missing. A server that comes with it is not started: its own port stays free.
pub fn install_for_benches() -> Result<()> {
    install("benches", BENCHES)
}

fn install(whose: &str, needed: &[Package]) -> Result<()> {
    let missing: Vec<_> = needed.iter().filter(|(file, ..)| !is_there(file)).collect();
    if missing.is_empty() {
        println!("==> all {} Debian packages that the {whose} need are installed", needed.len());
        return Ok(());
    }
    for (_, package, purpose) in &missing {
        println!("==> missing: Debian package {package} ({purpose})");
    }
    let names = missing.iter().map(|(_, package, _)| *package);
    let root = Command::new("id").arg("-u").output().context("cannot run id")?.stdout == b"0\n";
    let as_root = |program: &str| {
        let mut command = Command::new(if root { program } else { "sudo" });
        if !root {
            command.arg(program);
        }
        command
    };
    // No question is asked. `env`, as sudo drops variables.
    let apt = || {
        let mut command = as_root("env");
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        command
    };
    call(apt().args(["update", "-qq"]))?;
    let forbid = !Path::new(SERVICE_POLICY).exists();
    if forbid {
        let script = format!("printf '#!/bin/sh\\nexit 101\\n' >{SERVICE_POLICY} && chmod 755 {SERVICE_POLICY}");
        call(as_root("sh").args(["-c", &script]))?;
    }
    let installed = call(apt().args(["install", "-y", "-qq", "--no-install-recommends"]).args(names));
    if forbid {
        call(as_root("rm").args(["-f", SERVICE_POLICY]))?;
    }
    installed?;
    let absent: Vec<_> = missing.iter().filter(|(file, ..)| !is_there(file)).collect();
    if !absent.is_empty() {
        bail!("still missing after the installation: {absent:?}");
    }
    Ok(())
}

/// A program counts wherever the PATH finds it; other files by their place.
fn is_there(file: &str) -> bool {
    let path = Path::new(file);
    let on_path = || {
        let name = path.strip_prefix("/usr/bin").or_else(|_| path.strip_prefix("/usr/sbin")).ok()?;
        let paths = std::env::var_os("PATH")?;
        std::env::split_paths(&paths).map(|folder| folder.join(name)).find(|program| program.is_file())
    };
    path.exists() || on_path().is_some()
}
