//! A file system for tests that loses what was not synced.
//!
//! It lives in the memory of the test and is mounted by FUSE on a folder, so that the real binary, the real SQLite and
//! the real kernel work on it. Of every file it keeps what fsync has covered apart from the writes since; of every folder
//! likewise the entries. [`FaultFs::cut`] takes the power away: of what was not synced some survives, in units of 512
//! bytes, or nothing, or everything; what was synced is never touched. Syncing a new file does not make its name durable:
//! that takes the sync of its folder.
//!
//! Besides it breaks as disks do: [`FaultFs::inject`].
#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::expect_used,
    reason = "part of tests: what goes wrong here fails the test, with its reason"
)]

mod dice;
mod disk;
mod fuse;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fuser::{BackgroundSession, Config, INodeNo, MountOption, SessionACL};

pub use crate::dice::Dice;
use crate::disk::Disk;
use crate::fuse::Layer;

/// Threads that serve the kernel.
const THREADS: usize = 2;
/// How long a folder may be busy after its user was killed.
const BUSY_MAX: Duration = Duration::from_secs(10);

/// What may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// EIO on reading contents.
    Read,
    /// EIO on everything that changes something, syncs apart.
    Write,
    /// EIO on fsync; what was written may still be synced by the next one.
    Sync,
    /// EIO on fsync, and what was written is marked clean: processes go on seeing it, no later fsync writes it. This is
    /// what Linux does after a failed write-back.
    SyncLoses,
    /// fsync says yes and does nothing.
    SyncLies,
    /// ENOSPC on everything that grows, and no free space is reported.
    Full,
    /// EROFS on everything that changes something.
    ReadOnly,
}

/// Where a fault strikes, and how often.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    path: String,
    times: Option<u64>,
}

impl Scope {
    /// Everywhere, until it is healed.
    pub fn everywhere() -> Self {
        Self::default()
    }

    /// On paths (from the mounted folder) that contain this text.
    pub fn of(path: &str) -> Self {
        Self { path: path.to_owned(), times: None }
    }

    /// Only so many times.
    #[must_use]
    pub fn times(mut self, n: u64) -> Self {
        self.times = Some(n);
        self
    }
}

/// What a power cut did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Files with writes that were not synced.
    pub files_changed: u64,
    /// Writes of 512 bytes that survived though nothing promised it.
    pub units_kept: u64,
    /// Writes of 512 bytes that were lost.
    pub units_lost: u64,
    /// Changes of folders that survived though nothing promised it.
    pub entries_kept: u64,
    /// Changes of folders that were lost.
    pub entries_lost: u64,
}

/// A mounted folder; unmounted when dropped.
pub struct FaultFs {
    folder: PathBuf,
    disk: Arc<Mutex<Disk>>,
    session: Option<BackgroundSession>,
}

impl FaultFs {
    /// Mounts an empty disk on a folder that exists.
    ///
    /// # Errors
    /// Without `/dev/fuse`, or where mounting is allowed neither directly (root) nor by `fusermount3`.
    pub fn mount(folder: &Path) -> io::Result<Self> {
        let meta = std::fs::metadata(folder)?;
        let disk = Disk::new((meta.mode() & 0o7777) as u16, meta.uid(), meta.gid());
        let mut layer = Self { folder: folder.canonicalize()?, disk: Arc::new(Mutex::new(disk)), session: None };
        layer.attach()?;
        Ok(layer)
    }

    fn attach(&mut self) -> io::Result<()> {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("faultfs".to_owned()), MountOption::DefaultPermissions];
        // Mailboxes are written under the uids of their owners, where the test may change uids at all.
        config.acl = if rustix::process::getuid().is_root() { SessionACL::All } else { SessionACL::Owner };
        config.n_threads = Some(THREADS);
        self.session = Some(fuser::spawn_mount(Layer(Arc::clone(&self.disk)), &self.folder, &config)?);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it is mounted.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Breaks something, beside what is broken already.
    pub fn inject(&self, fault: Fault, scope: Scope) {
        self.lock().inject(fault, scope);
        if fault == Fault::Read {
            self.drop_pages();
        }
    }

    /// Mends everything that [`Self::inject`] broke.
    pub fn heal(&self) {
        self.lock().heal();
    }

    /// How often a fault has struck.
    pub fn struck(&self) -> u64 {
        self.lock().struck
    }

    /// How many syncs there were.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Lets the kernel forget the contents that it keeps, so that the next read comes here.
    pub fn drop_pages(&self) {
        let Some(session) = &self.session else { return };
        let files = self.lock().readable();
        let notifier = session.notifier();
        for number in files {
            // A file that the kernel does not know has no pages there.
            let _ = notifier.inval_inode(INodeNo(number), 0, 0);
        }
    }

    /// Takes the power away. Until [`Self::revive`] every operation is EIO; whoever works on the folder is to be killed.
    pub fn cut(&self, seed: u64) -> Cut {
        self.lock().cut(seed)
    }

    /// Gives the power back: unmounts and mounts again, with what survived and no page cache of before.
    ///
    /// # Errors
    /// When somebody still holds the folder, or it cannot be mounted.
    pub fn revive(&mut self) -> io::Result<()> {
        self.lock().off = true;
        self.detach()?;
        self.lock().off = false;
        self.attach()
    }

    /// Unmounts; nothing of the old mount is served afterwards.
    fn detach(&mut self) -> io::Result<()> {
        use rustix::mount::{UnmountFlags, unmount};
        let Some(session) = self.session.take() else { return Ok(()) };
        let start = Instant::now();
        loop {
            match unmount(&self.folder, UnmountFlags::empty()) {
                // A killed process lets go of its files when the last of its threads has ended.
                Err(rustix::io::Errno::BUSY) if start.elapsed() < BUSY_MAX => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(rustix::io::Errno::BUSY) => {
                    // It is out of sight at least; the session ends with its last user.
                    let _ = unmount(&self.folder, UnmountFlags::DETACH);
                    drop(session);
                    return Err(io::Error::other(format!("{} is busy", self.folder.display())));
                }
                // Not allowed: `fusermount3 -u` is.
                Err(rustix::io::Errno::PERM) => return session.umount_and_join(),
                Err(rustix::io::Errno::INVAL) | Ok(()) => return session.join(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for FaultFs {
    fn drop(&mut self) {
        self.lock().off = true;
        // In a failing test somebody may still hold the folder: it is detached then, and gone with its last user.
        let _ = self.detach();
    }
}
