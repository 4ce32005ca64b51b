//! The real peers that the tests need, from Debian packages.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::call;

/// A file that is there once the package is, the package, and what it is for.
const NEEDED: &[(&str, &str, &str)] = &[
    ("/usr/lib/dovecot/lmtp", "dovecot-lmtpd", "the mail store that takes LMTP in the tests"),
    ("/usr/lib/dovecot/imap", "dovecot-imapd", "reading mail back"),
    ("/usr/lib/dovecot/modules/auth/libdriver_sqlite.so", "dovecot-sqlite", "users from one SQLite file"),
    ("/usr/bin/curl", "curl", "the README's submission"),
    ("/usr/bin/openssl", "openssl", "a second TLS client and password hashes"),
    ("/usr/bin/python3", "python3", "a second parser of reports"),
    ("/usr/bin/sqlite3", "sqlite3", "writing the users' database"),
];

/// Installs what is missing and says so.
pub fn install_missing() -> Result<()> {
    let missing: Vec<_> = NEEDED.iter().filter(|(file, ..)| !is_there(file)).collect();
    if missing.is_empty() {
        println!("==> all {} Debian packages that the tests need are installed", NEEDED.len());
        return Ok(());
    }
    for (_, package, purpose) in &missing {
        println!("==> missing: Debian package {package} ({purpose})");
    }
    let names = missing.iter().map(|(_, package, _)| *package);
    let root = Command::new("id").arg("-u").output().context("cannot run id")?.stdout == b"0\n";
    let apt = || {
        let mut command = Command::new(if root { "apt-get" } else { "sudo" });
        if !root {
            command.arg("apt-get");
        }
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    call(apt().args(["update", "-qq"]))?;
    call(apt().args(["install", "-y", "-qq", "--no-install-recommends"]).args(names))?;
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
        let name = path.strip_prefix("/usr/bin").ok()?;
        let paths = std::env::var_os("PATH")?;
        std::env::split_paths(&paths).map(|folder| folder.join(name)).find(|program| program.is_file())
    };
    path.exists() || on_path().is_some()
}
