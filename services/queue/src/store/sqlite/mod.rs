//! SQLite in WAL mode with `synchronous=FULL`.
//!
//! One connection writes, in the thread of the queue's writer, and is spoken to without a hand-over between threads: a
//! group costs its rows and one sync. One more reads for leases and one for people, so that a long list holds up neither
//! commits nor deliveries; those are asynchronous.

mod admin;
mod backup;
mod read;
mod write;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};
use tokio::sync::{Mutex, MutexGuard};

use self::writer::WriteSide;
use super::StoreError;

/// Name of the file inside the queue's folder.
pub const FILE: &str = "queue.sqlite";
/// Statements that a connection keeps prepared.
const STATEMENTS_MAX: usize = 64;
/// How long a statement waits for another connection's lock: checkpoints and backups hold it for moments only.
const BUSY_MAX: Duration = Duration::from_secs(5);
/// A WAL of this size is copied back into the database, beside the traffic.
const CHECKPOINT_BYTES: u64 = 8 << 20;
/// A WAL of this size is copied back by the writer itself between two groups: readers and traffic kept the other way
/// from reaching its end, and only then does it start again at its beginning.
const CHECKPOINT_FORCE_BYTES: u64 = 48 << 20;
/// Cache of the connection that writes.
const CACHE_KIB: &str = "-8192";
/// Cache of each connection that reads.
const READ_CACHE_KIB: &str = "-2048";
/// Octets of a page of a new database: a body of 10 KiB takes a page and a quarter, and each costs two calls to write.
const PAGE_BYTES: u32 = 8192;

/// Embedded: `services/queue/migrations`.
static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// The store of a single process.
pub struct SqliteStore {
    path: PathBuf,
    writes: Arc<WriteSide>,
    leases: Mutex<Option<SqliteConnection>>,
    people: Mutex<Option<SqliteConnection>>,
}

/// A connection that is held until it is dropped; `None` inside only between trouble and the next opening.
pub(super) struct Held<'a>(MutexGuard<'a, Option<SqliteConnection>>);

impl Held<'_> {
    fn connection(&mut self) -> Result<&mut SqliteConnection, StoreError> {
        self.0.as_mut().ok_or_else(|| StoreError::Trouble("the database is not open".to_owned()))
    }

    /// Closes the connection after trouble: the next user opens it again, and sees what is really there.
    fn give_up(&mut self) {
        *self.0 = None;
    }

    /// Turns an error into ours; after trouble the connection is opened again by its next user.
    fn failed(&mut self, error: &sqlx::Error) -> StoreError {
        let error = classify(error);
        if error.is_trouble() {
            self.give_up();
        }
        error
    }
}

impl SqliteStore {
    /// Opens or makes the database inside `folder` (which exists), brings its tables up to date and verifies that it
    /// will keep what is written.
    pub async fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE);
        let store = Self {
            writes: Arc::new(WriteSide::new(path.clone())),
            path,
            leases: Mutex::new(None),
            people: Mutex::new(None),
        };
        let options = store.options().create_if_missing(true).page_size(PAGE_BYTES);
        let options = options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
        let mut connection = options.connect().await.map_err(|error| classify(&error))?;
        node::fault::point("queue.migrate");
        #[cfg(debug_assertions)]
        connection.lock_handle().await.map_err(|error| classify(&error))?.set_commit_hook(|| {
            node::fault::point("queue.migrating");
            true
        });
        let migrated = MIGRATIONS.run(&mut connection).await;
        migrated.map_err(|error| StoreError::Trouble(format!("migrations: {error}")))?;
        node::fault::point("queue.migrated");
        // The one that writes opens before this one closes: the last to close would copy the WAL back and delete it.
        store.writes.aside(|_| Ok(())).await?;
        connection.close().await.map_err(|error| classify(&error))?;
        Ok(store)
    }

    async fn reader<'a>(&'a self, slot: &'a Mutex<Option<SqliteConnection>>) -> Result<Held<'a>, StoreError> {
        let mut held = slot.lock().await;
        if held.is_none() {
            let options = self.options().read_only(true);
            *held = Some(options.connect().await.map_err(|error| classify(&error))?);
        }
        Ok(Held(held))
    }

    async fn for_leases(&self) -> Result<Held<'_>, StoreError> {
        self.reader(&self.leases).await
    }

    async fn for_people(&self) -> Result<Held<'_>, StoreError> {
        self.reader(&self.people).await
    }

    fn options(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(&self.path)
            .busy_timeout(BUSY_MAX)
            .statement_cache_capacity(STATEMENTS_MAX)
            // All relations are kept by the statements of `write`; checking them again would cost every insert.
            .foreign_keys(false)
            .pragma("cache_size", READ_CACHE_KIB)
            .pragma("temp_store", "memory")
            .thread_name(|n| format!("queue-sqlite-{n}"))
            .disable_statement_logging()
    }

    fn wal_bytes(&self) -> u64 {
        let mut name = self.path.clone().into_os_string();
        name.push("-wal");
        std::fs::metadata(name).map_or(0, |meta| meta.len())
    }

    /// Copies the WAL back: beside the traffic where that is enough.
    async fn checkpoint(&self) -> Result<(), StoreError> {
        if self.wal_bytes() < CHECKPOINT_BYTES {
            return Ok(());
        }
        // A connection of its own: a checkpoint shuts out neither readers nor the writer.
        let mut connection =
            self.options().synchronous(SqliteSynchronous::Full).connect().await.map_err(|error| classify(&error))?;
        node::fault::point("queue.before-checkpoint");
        let row = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(&mut connection).await;
        node::fault::point("queue.after-checkpoint");
        let row = row.map_err(|error| classify(&error))?;
        let (log, done): (i64, i64) = (row.get(1), row.get(2));
        if done < log && self.wal_bytes() >= CHECKPOINT_FORCE_BYTES {
            self.writes.checkpoint_due.store(true, Ordering::Relaxed);
        }
        connection.close().await.map_err(|error| classify(&error))
    }
}

/// Which errors are the store's trouble, and which the request's own fault. What is unknown is trouble.
pub(super) fn classify(error: &sqlx::Error) -> StoreError {
    let code = error.as_database_error().and_then(|e| e.code()).and_then(|code| code.parse().ok());
    by_code(code, error.to_string())
}

fn by_code(code: Option<i32>, text: String) -> StoreError {
    const FULL: i32 = 13;
    const TOO_BIG: i32 = 18;
    const CONSTRAINT: i32 = 19;
    const MISMATCH: i32 = 20;
    const RANGE: i32 = 25;
    match code.map(|code| code & 0xff) {
        Some(TOO_BIG | CONSTRAINT | MISMATCH | RANGE) => StoreError::Refused(text),
        Some(FULL) => StoreError::Full(text),
        _ => StoreError::Trouble(text),
    }
}
