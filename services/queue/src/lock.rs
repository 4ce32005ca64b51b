//! One process per queue folder.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// Name of the file inside the queue's folder; the state folder has one of its own.
const FILE: &str = "lock";

/// Held until it is dropped; the kernel drops it with the process.
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// `Ok(None)`: another process holds it.
    pub fn take(folder: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(folder.join(FILE))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
