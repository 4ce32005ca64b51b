//! What the kernel tells of folders: the changes that make a reader look again, and no others.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

/// Octets of one read: some hundred changes.
const READ_BYTES: usize = 16 << 10;

/// A file counts as changed when its writer closes it: a log or a database beside the site, written all day, wakes nobody.
const CHANGES: WatchFlags = WatchFlags::ATTRIB
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::MOVE_SELF);

/// Folders that the kernel watches.
pub(crate) struct Folders {
    kernel: OwnedFd,
    /// By the number that the kernel gave; two paths may lead to one folder.
    paths: HashMap<i32, Vec<PathBuf>>,
}

/// Told of changes until it is dropped.
pub(crate) struct Watcher {
    task: JoinHandle<()>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Folders {
    /// Watches nothing yet.
    pub(crate) fn new() -> io::Result<Self> {
        let kernel = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self { kernel, paths: HashMap::new() })
    }

    /// Watches one more.
    pub(crate) fn add(&mut self, folder: &Path) -> io::Result<()> {
        let number = inotify::add_watch(&self.kernel, folder, CHANGES)?;
        self.paths.entry(number).or_default().push(folder.to_owned());
        Ok(())
    }

    /// Calls `tell` after every bunch of changes of which `concerns` says that one matters: of a name in a folder.
    pub(crate) fn follow(
        self,
        concerns: impl Fn(&Path, &OsStr) -> bool + Send + 'static,
        tell: impl Fn() + Send + 'static,
    ) -> io::Result<Watcher> {
        let Self { kernel, paths } = self;
        #[allow(deprecated, reason = "the descriptor is owned: it cannot be closed before")]
        let kernel = AsyncFd::new(kernel)?;
        let task = tokio::spawn(async move {
            while let Ok(mut ready) = kernel.readable().await {
                if any_change(kernel.get_ref(), &paths, &concerns) {
                    tell();
                }
                ready.clear_ready();
            }
        });
        Ok(Watcher { task })
    }
}

/// Reads what there is; whether something of it matters.
fn any_change(
    kernel: impl AsFd,
    paths: &HashMap<i32, Vec<PathBuf>>,
    concerns: &impl Fn(&Path, &OsStr) -> bool,
) -> bool {
    let mut buffer = [MaybeUninit::uninit(); READ_BYTES];
    let mut reader = inotify::Reader::new(kernel, &mut buffer);
    let mut any = false;
    loop {
        match reader.next() {
            Ok(event) => {
                any |= match (event.file_name(), paths.get(&event.wd())) {
                    (Some(name), Some(folders)) => {
                        let name = OsStr::from_bytes(name.to_bytes());
                        folders.iter().any(|folder| concerns(folder, name))
                    }
                    // The end of a watch follows what ended it.
                    _ if event.events() == ReadFlags::IGNORED => false,
                    // A folder itself, or events that were lost: whatever it was, look.
                    _ => true,
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return any,
            // Nobody knows what was missed.
            Err(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_closed_file_of_the_site_is_a_change_and_reading_or_a_growing_log_beside_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let site = dir.path().join("site.yaml");
        fs::write(&site, "1").unwrap();
        let mut log = fs::File::create(dir.path().join("log")).unwrap();
        let mut folders = Folders::new().unwrap();
        folders.add(dir.path()).unwrap();
        let looked = std::cell::Cell::new(0);
        let changed = || {
            let concerns = |folder: &Path, name: &OsStr| {
                looked.set(looked.get() + 1);
                folder == dir.path() && name == "site.yaml"
            };
            any_change(&folders.kernel, &folders.paths, &concerns)
        };
        log.write_all(b"line\n").unwrap();
        fs::read(&site).unwrap();
        assert!(!changed());
        assert_eq!(looked.get(), 0, "the kernel was not asked about it");
        fs::write(&site, "2").unwrap();
        assert!(changed());
        drop(log);
        assert!(!changed(), "another name");
        assert!(looked.get() > 1);
        let renamed = dir.path().join("new");
        fs::write(&renamed, "3").unwrap();
        assert!(!changed());
        fs::rename(&renamed, &site).unwrap();
        assert!(changed());
        fs::remove_file(&site).unwrap();
        assert!(changed());
        fs::remove_dir_all(dir.path()).unwrap();
        assert!(changed(), "the folder itself is gone");
    }
}
