//! The locks of an mbox.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use node::Clock;
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;
use types::Timestamp;

/// A dot lock that is older was left by a crash: readers that need it longer touch it.
const DOT_LOCK_STALE_AFTER: Duration = Duration::from_secs(300);
/// Between two looks at a lock that somebody else holds: nobody tells when it is free.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Held until dropped; the fcntl lock ends with the file.
pub(super) struct Locks {
    // Dropped in this order.
    _dot: Option<DotLock>,
    _process: ProcessLock,
}

impl Locks {
    /// Takes the locks that are not part of the file itself.
    pub(super) fn around(path: &Path, clock: &Clock, until: Instant) -> io::Result<Self> {
        let process = ProcessLock::take(path, clock, until)?;
        Ok(Self { _dot: DotLock::take(path, clock, until)?, _process: process })
    }

    /// Takes the fcntl lock.
    pub(super) fn lock_file(&mut self, file: &File, clock: &Clock, until: Instant) -> io::Result<()> {
        loop {
            match fcntl_lock(file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(()),
                Err(Errno::AGAIN | Errno::ACCESS) => wait(clock, until)?,
                // Network file systems without a lock service: the dot lock has to do.
                Err(Errno::NOLCK | Errno::NOSYS | Errno::NOTSUP) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn wait(clock: &Clock, until: Instant) -> io::Result<()> {
    if clock.instant() >= until {
        return Err(io::ErrorKind::TimedOut.into());
    }
    std::thread::sleep(POLL_INTERVAL);
    Ok(())
}

static HELD: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
static FREED: Condvar = Condvar::new();

/// fcntl locks belong to a process: its threads do not keep each other out, and closing one file frees all.
struct ProcessLock {
    path: PathBuf,
}

impl ProcessLock {
    fn take(path: &Path, clock: &Clock, until: Instant) -> io::Result<Self> {
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        while held.contains(path) {
            let left = until.saturating_duration_since(clock.instant());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            held = FREED.wait_timeout(held, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        held.insert(path.to_owned());
        Ok(Self { path: path.to_owned() })
    }
}

impl Drop for ProcessLock {
    fn drop(&mut self) {
        HELD.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.path);
        FREED.notify_all();
    }
}

/// The file `<mailbox>.lock`.
struct DotLock {
    path: PathBuf,
}

impl DotLock {
    /// `None` where the folder is not ours to write to: fcntl alone has to do, as it does for other mail systems there.
    fn take(mailbox: &Path, clock: &Clock, until: Instant) -> io::Result<Option<Self>> {
        let mut path = mailbox.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        loop {
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(mut file) => {
                    let lock = Self { path };
                    // For people who look who holds it.
                    file.write_all(std::process::id().to_string().as_bytes())?;
                    return Ok(Some(lock));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if !remove_stale(&path, clock.now()) {
                        wait(clock, until)?;
                    }
                }
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for DotLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether the lock is worth another try at once.
fn remove_stale(path: &Path, now: Timestamp) -> bool {
    let Ok(seen) = fs::symlink_metadata(path) else { return true };
    let Ok(modified) = seen.modified() else { return false };
    if now.since(Timestamp::from(modified)) < DOT_LOCK_STALE_AFTER {
        return false;
    }
    // Two may find it stale at the same time: what is moved away is looked at again, so that the second one does not
    // remove the new lock of the first.
    let aside = path.with_extension(format!("lock.{}", std::process::id()));
    if fs::rename(path, &aside).is_err() {
        return false;
    }
    let moved = fs::symlink_metadata(&aside);
    let same = moved.is_ok_and(|moved| (moved.ino(), moved.mtime_nsec()) == (seen.ino(), seen.mtime_nsec()));
    if !same {
        let _ = fs::hard_link(&aside, path);
    }
    let _ = fs::remove_file(&aside);
    same
}
