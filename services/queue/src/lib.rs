//! The queue: keeps messages from the moment they are accepted until every recipient is settled.
//!
//! [`start`] puts the service behind its wire; [`open_offline`] opens the queue of a platform that does not run. The
//! contract is `posthouse/queue/v1/queue.proto`.

mod bodies;
mod context;
mod dispatch;
mod events;
mod keeper;
mod lock;
mod model;
mod service;
mod settle;
mod store;
mod wire;
mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use node::{Clock, Drain, Health, Node, Peer};
use posthouse_proto::queue::v1::queue_server::QueueServer;

use crate::bodies::{BodyStore, FolderBodies};
use crate::context::{Cleaner, Condition, Settings, Space};
use crate::dispatch::Dispatch;
use crate::keeper::Keeper;
use crate::lock::FolderLock;
use crate::service::{Inner, Service};
use crate::store::sqlite::SqliteStore;
use crate::store::{Store, StoreError};
use crate::writer::Task;

/// The queue's folder inside the state folder.
pub const FOLDER: &str = "queue";
/// The folder of large bodies inside the queue's.
pub(crate) const BODIES: &str = "bodies";

/// Why the queue does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder cannot be made or opened.
    #[error("the queue's folder {path} cannot be used: {cause}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Another process has it.
    #[error(
        "the queue in {0} is in use by another process: stop it, choose another state folder with --state, or leave \
         --state out to talk to the running platform"
    )]
    InUse(PathBuf),
    /// The database cannot be opened.
    #[error("the queue in {path} cannot be opened: {reason}")]
    Store {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The service behind its generated server, for a wire without a node.
pub type Server = QueueServer<Service<SqliteStore, FolderBodies>>;

/// Opens the queue in the node's state folder and provides it: ready when it returns.
pub async fn start(node: &Node) -> Result<(), StartError> {
    let place = Place {
        state_dir: node.state_dir(),
        clock: node.clock().clone(),
        settings: Settings::Running(node.snapshots().clone()),
        health: Some(node.health().clone()),
        drain: Some(node.drain().clone()),
    };
    let service = open(place).await?;
    node.provide(Peer::Queue, server(service));
    Ok(())
}

/// Opens the queue of a platform that does not run: everything but leases. Fails where it does run.
pub async fn open_offline(state_dir: &Path, clock: Clock) -> Result<Server, StartError> {
    let path = state_dir.join(FOLDER);
    if !path.join(store::sqlite::FILE).is_file() {
        let cause = io::Error::new(io::ErrorKind::NotFound, "there is no queue in it");
        return Err(StartError::Folder { path, cause });
    }
    let place = Place { state_dir, clock, settings: Settings::Offline, health: None, drain: None };
    open(place).await.map(server)
}

/// Makes a queue where there is none, without a platform: the target of an import.
pub async fn create_offline(state_dir: &Path, clock: Clock) -> Result<Server, StartError> {
    let place = Place { state_dir, clock, settings: Settings::Offline, health: None, drain: None };
    open(place).await.map(server)
}

fn server<S: Store, B: BodyStore>(service: Service<S, B>) -> QueueServer<Service<S, B>> {
    // The contract has its own limits, by name.
    QueueServer::new(service).max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX)
}

/// Where and as what a queue is opened.
struct Place<'a> {
    state_dir: &'a Path,
    clock: Clock,
    settings: Settings,
    health: Option<Health>,
    drain: Option<Drain>,
}

async fn open(place: Place<'_>) -> Result<Service<SqliteStore, FolderBodies>, StartError> {
    let folder = place.state_dir.join(FOLDER);
    let unusable = |cause| StartError::Folder { path: folder.clone(), cause };
    make_private(&folder).map_err(unusable)?;
    let lock = FolderLock::take(&folder).map_err(unusable)?;
    let lock = lock.ok_or_else(|| StartError::InUse(folder.clone()))?;
    let bodies = FolderBodies::open(&folder.join(BODIES)).map_err(unusable)?;
    let broken = |error: StoreError| StartError::Store { path: folder.clone(), reason: error.to_string() };
    let store = SqliteStore::open(&folder).await.map_err(broken)?;
    assemble(place, folder.clone(), lock, store, bodies).await.map_err(broken)
}

/// Mail is nobody's business but ours.
fn make_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // The name of a new folder must outlive a power cut as its files do.
    folder.parent().map_or(Ok(()), |parent| std::fs::File::open(parent)?.sync_all())
}

/// Puts the parts together over any store.
async fn assemble<S: Store, B: BodyStore>(
    place: Place<'_>,
    folder: PathBuf,
    lock: FolderLock,
    store: S,
    bodies: B,
) -> Result<Service<S, B>, StoreError> {
    let Place { clock, settings, health, drain, .. } = place;
    let started = clock.now();
    let (store, bodies) = (Arc::new(store), Arc::new(bodies));
    let dispatch = Arc::new(Dispatch::new(clock.clone()));
    let loaded = store.load().await?;
    let routes = store.routes().await?;
    dispatch.lock().load(&loaded, routes, clock.now().unix_ms());
    let condition = Condition::new(health);
    let cleaner = Arc::new(Cleaner::new(Arc::clone(&bodies)));
    let task = Task {
        store: Arc::clone(&store),
        dispatch: Arc::clone(&dispatch),
        settings: settings.clone(),
        condition: condition.clone(),
        cleaner: Arc::clone(&cleaner),
        clock: clock.clone(),
    };
    let writer = writer::start(task, drain.as_ref())
        .map_err(|error| StoreError::Trouble(format!("the writer has no thread: {error}")))?;
    let space = Space::new(&folder, clock.clone(), settings.clone(), condition.clone());
    let keeper = Keeper {
        store: Arc::clone(&store),
        bodies: Arc::clone(&bodies),
        dispatch: Arc::clone(&dispatch),
        writer: writer.clone(),
        settings: settings.clone(),
        condition: condition.clone(),
        clock: clock.clone(),
    };
    let running = drain.clone();
    let inner = Arc::new(Inner {
        store: Arc::clone(&store),
        bodies: Arc::clone(&bodies),
        dispatch: Arc::clone(&dispatch),
        writer: writer.clone(),
        cleaner,
        settings,
        condition: condition.clone(),
        space,
        clock,
        drain,
        folder,
        _lock: lock,
    });
    if let Some(drain) = running {
        let essential = drain.clone();
        essential.essential("queue dispatch", dispatch::run(dispatch, Arc::clone(&store), writer, condition, drain));
        tokio::spawn(keeper::run(keeper, Arc::downgrade(&inner)));
        // What is there now and unknown to the store is from runs before: uploads of this one begin later.
        tokio::spawn(keeper::sweep_at_start(store, bodies, started));
    }
    Ok(Service { inner })
}
