//! Bodies that are too large for the store's rows.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};

/// Octets that are gathered before they are written.
const WRITE_BYTES: usize = 1 << 20;
/// Where uploads live until they are whole.
const UPLOADS: &str = "tmp";

/// A home of large bodies: a folder here, an object store elsewhere.
pub trait BodyStore: Send + Sync + 'static {
    /// An upload under way. Dropped without `finish`, it leaves nothing (or something that a sweep finds).
    type Upload: BodyUpload;

    /// Begins an upload.
    fn begin(&self) -> impl Future<Output = io::Result<Self::Upload>> + Send;
    /// Up to `length` octets from `offset`; empty at the end.
    fn read(&self, name: &str, offset: u64, length: usize) -> impl Future<Output = io::Result<Bytes>> + Send;
    /// Deletes; what is not there is deleted already.
    fn delete(&self, names: Vec<String>) -> impl Future<Output = ()> + Send;
    /// Names of whole bodies that were last written before `until`. Unfinished uploads from before it are deleted.
    fn list(&self, until: SystemTime) -> impl Future<Output = io::Result<Vec<String>>> + Send;
    /// Writes something durable and deletes it: tells whether trouble is over.
    fn probe(&self) -> impl Future<Output = io::Result<()>> + Send;
    /// Copies bodies into a folder with the layout of this one. Returns the octets.
    fn copy(&self, names: Vec<String>, folder: &Path) -> impl Future<Output = io::Result<u64>> + Send;
}

/// One body on its way in.
pub trait BodyUpload: Send {
    /// Takes the next octets. They may wait in memory, up to a bound.
    fn write(&mut self, chunk: Bytes) -> impl Future<Output = io::Result<()>> + Send;
    /// Makes the body durable under a name that nothing has had before.
    fn finish(self, name: &str) -> impl Future<Output = io::Result<()>> + Send;
}

/// Bodies as files: `xx/<name>`, where xx are the last two characters of the message id.
#[derive(Clone)]
pub struct FolderBodies {
    root: Arc<Path>,
    folders: Arc<Folders>,
}

/// The folders below the root, and which of them are known to outlive a power cut.
struct Folders {
    root: Arc<Path>,
    durable: Mutex<HashSet<PathBuf>>,
}

impl Folders {
    fn new(root: &Path) -> Self {
        Self { root: root.into(), durable: Mutex::default() }
    }

    /// Makes the folder that a file will be in, durably. That it is there already says nothing: whoever made it may not
    /// have synced the root yet.
    fn make_for(&self, path: &Path) -> io::Result<()> {
        let Some(folder) = path.parent() else { return Ok(()) };
        if self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(folder) {
            return Ok(());
        }
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => sync_folder(&self.root)?,
        }
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned());
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

impl FolderBodies {
    /// Opens or makes the folder.
    pub fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root.join(UPLOADS))?;
        sync_folder(root)?;
        if let Some(parent) = root.parent() {
            sync_folder(parent)?;
        }
        Ok(Self { root: root.into(), folders: Arc::new(Folders::new(root)) })
    }

    fn path(&self, name: &str) -> PathBuf {
        path_in(&self.root, name)
    }
}

fn path_in(root: &Path, name: &str) -> PathBuf {
    let id = name.split('-').next().unwrap_or(name);
    // The front of an id is shard and time: only its end spreads.
    let folder = id.get(id.len().saturating_sub(2)..).unwrap_or("00");
    root.join(folder).join(name)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A file in `tmp` that is deleted unless it is renamed.
pub struct FileUpload {
    folders: Arc<Folders>,
    path: PathBuf,
    file: Option<Arc<File>>,
    waiting: BytesMut,
    written: u64,
    renamed: bool,
}

impl Drop for FileUpload {
    fn drop(&mut self) {
        if !self.renamed {
            // One unlink; what fails here is swept later.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl FileUpload {
    async fn flush(&mut self) -> io::Result<()> {
        let Some(file) = self.file.clone() else { return Err(io::Error::other("the upload is closed")) };
        let chunk = self.waiting.split().freeze();
        let at = self.written;
        self.written += chunk.len() as u64;
        blocking(move || {
            node::fault::point("body.before-write");
            file.write_all_at(&chunk, at)?;
            node::fault::point("body.after-write");
            Ok(())
        })
        .await
    }
}

impl BodyUpload for FileUpload {
    async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        self.waiting.extend_from_slice(&chunk);
        if self.waiting.len() >= WRITE_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    async fn finish(mut self, name: &str) -> io::Result<()> {
        self.flush().await?;
        let Some(file) = self.file.take() else { return Err(io::Error::other("the upload is closed")) };
        let (folders, from, to) = (Arc::clone(&self.folders), self.path.clone(), path_in(&self.folders.root, name));
        // The order is the promise: contents, then name, then the folder that holds the name.
        blocking(move || {
            file.sync_data()?;
            node::fault::point("body.after-sync");
            folders.make_for(&to)?;
            fs::rename(&from, &to)?;
            node::fault::point("body.after-rename");
            to.parent().map_or(Ok(()), sync_folder)?;
            node::fault::point("body.after-folder-sync");
            Ok(())
        })
        .await?;
        self.renamed = true;
        Ok(())
    }
}

impl BodyStore for FolderBodies {
    type Upload = FileUpload;

    async fn begin(&self) -> io::Result<FileUpload> {
        let path = self.root.join(UPLOADS).join(format!("{:016x}", rand::random::<u64>()));
        let target = path.clone();
        let file = blocking(move || OpenOptions::new().write(true).create_new(true).mode(0o600).open(target)).await?;
        Ok(FileUpload {
            folders: Arc::clone(&self.folders),
            path,
            file: Some(Arc::new(file)),
            waiting: BytesMut::new(),
            written: 0,
            renamed: false,
        })
    }

    async fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Bytes> {
        let path = self.path(name);
        blocking(move || {
            let file = File::open(path)?;
            let left = file.metadata()?.len().saturating_sub(offset);
            let mut buffer = vec![0; length.min(usize::try_from(left).unwrap_or(length))];
            file.read_exact_at(&mut buffer, offset)?;
            Ok(Bytes::from(buffer))
        })
        .await
    }

    async fn delete(&self, names: Vec<String>) {
        let paths: Vec<PathBuf> = names.iter().map(|name| self.path(name)).collect();
        let done = blocking(move || {
            for path in paths {
                node::fault::point("body.before-delete");
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                node::fault::point("body.after-delete");
            }
            Ok(())
        });
        if let Err(error) = done.await {
            tracing::warn!(%error, "body file not deleted, a sweep will");
        }
    }

    async fn list(&self, until: SystemTime) -> io::Result<Vec<String>> {
        let root = Arc::clone(&self.root);
        blocking(move || {
            let mut names = Vec::new();
            for folder in fs::read_dir(&root)? {
                let folder = folder?;
                if !folder.file_type()?.is_dir() {
                    continue;
                }
                let uploads = folder.file_name() == UPLOADS;
                for entry in fs::read_dir(folder.path())? {
                    let entry = entry?;
                    // A file that goes while we look is nobody's leftover.
                    let Ok(modified) = entry.metadata().and_then(|meta| meta.modified()) else { continue };
                    if modified >= until {
                        continue;
                    }
                    if uploads {
                        let _ = fs::remove_file(entry.path());
                    } else if let Ok(name) = entry.file_name().into_string() {
                        names.push(name);
                    }
                }
            }
            Ok(names)
        })
        .await
    }

    async fn probe(&self) -> io::Result<()> {
        let folder = self.root.join(UPLOADS);
        blocking(move || {
            let path = folder.join("probe");
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            file.write_all_at(b"probe", 0)?;
            file.sync_data()?;
            fs::remove_file(&path)?;
            sync_folder(&folder)
        })
        .await
    }

    async fn copy(&self, names: Vec<String>, folder: &Path) -> io::Result<u64> {
        let source = self.clone();
        let target = folder.to_owned();
        blocking(move || {
            fs::create_dir_all(target.join(UPLOADS))?;
            let folders = Folders::new(&target);
            let mut bytes = 0;
            for name in names {
                let to = path_in(&target, &name);
                folders.make_for(&to)?;
                bytes += fs::copy(source.path(&name), &to)?;
                File::open(&to)?.sync_all()?;
                to.parent().map_or(Ok(()), sync_folder)?;
            }
            sync_folder(&target)?;
            Ok(bytes)
        })
        .await
    }
}
