//! `posthouse backup`: a state folder that a platform could run with.

use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use posthouse_proto::queue::v1::BackupRequest;

use crate::exit::{Code, Failure, Outcome};
use crate::output::{count, size};
use crate::reach::{self, Which};

/// What a platform keeps beside its mail: certificates that it made for itself.
const KEYS: &str = "tls";

/// `backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// Folder that is made, or is empty
    target: PathBuf,
}

/// Copies the mail and the keys of a platform, running or not.
pub async fn backup(which: &Which, args: &BackupArgs, out: &mut dyn Write) -> Outcome {
    let mut reached = reach::queue(which).await?;
    let target = prepare(&args.target, &reached.state_dir)?;
    let directory = target.to_str().ok_or_else(|| Failure::new(Code::Usage, "the name of the folder is not UTF-8"))?;
    let answer = reached.queue.backup(BackupRequest { directory: directory.to_owned() }).await?.into_inner();
    copy_folder(&reached.state_dir.join(KEYS), &target.join(KEYS)).context("the certificates cannot be copied")?;
    writeln!(out, "{}, {} to {}", count(answer.messages, "message"), size(answer.bytes), target.display())?;
    writeln!(out, "mailboxes that lie below the state folder are not part of it: copy them as files")?;
    writeln!(out, "it runs with: posthouse run SITE --state {}", target.display())?;
    Ok(())
}

/// Makes the target as the platform's user sees it: the platform itself writes the mail into it.
fn prepare(target: &Path, state_dir: &Path) -> Result<PathBuf, Failure> {
    let failed = |error: io::Error| Failure::new(Code::CannotCreate, format!("{}: {error}", target.display()));
    if let Ok(mut entries) = std::fs::read_dir(target)
        && entries.next().is_some()
    {
        return Err(Failure::new(Code::CannotCreate, format!("{} is not empty: name a new folder", target.display())));
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(target).map_err(failed)?;
    let target = target.canonicalize().map_err(failed)?;
    let owner = std::fs::metadata(state_dir).map_err(failed)?;
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&target, Some(owner.uid()), Some(owner.gid())).map_err(failed)?;
    }
    Ok(target)
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (source, copy) = (entry.path(), to.join(entry.file_name()));
        let metadata = std::fs::metadata(&source)?;
        if metadata.is_dir() {
            copy_folder(&source, &copy)?;
        } else if metadata.is_file() {
            std::fs::copy(&source, &copy)?;
            std::fs::set_permissions(&copy, metadata.permissions())?;
        }
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&copy, Some(metadata.uid()), Some(metadata.gid()))?;
        }
    }
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_permissions() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("tls"), dir.path().join("copy"));
        std::fs::create_dir(&from).unwrap();
        std::fs::write(from.join("key.pem"), "k").unwrap();
        std::fs::set_permissions(from.join("key.pem"), std::fs::Permissions::from_mode(0o600)).unwrap();
        copy_folder(&from, &to).unwrap();
        let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(to.clone()), mode(to.join("key.pem"))), (0o700, 0o600));
        copy_folder(&dir.path().join("absent"), &dir.path().join("other")).unwrap();
    }

    #[test]
    fn a_target_that_holds_something_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("new");
        prepare(&target, dir.path()).unwrap();
        std::fs::write(target.join("x"), "").unwrap();
        assert_eq!(prepare(&target, dir.path()).unwrap_err().code, Code::CannotCreate);
    }
}
