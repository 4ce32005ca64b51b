//! SQLite in WAL mode with `synchronous=FULL`.
//!
//! One connection writes; one reads for leases and one for people, so that a long list holds up neither commits nor
//! deliveries. Every statement travels to a connection's thread and back: a group of writes is one text of several
//! statements, its rows arrive as JSON arrays and one run of octets, and so costs one journey however large it is.

mod admin;
mod backup;
mod read;
mod write;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};
use tokio::sync::{Mutex, MutexGuard};

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
/// Pages of each connection's cache: 8 MiB at 4 KiB.
const CACHE_KIB: &str = "-8192";

/// Embedded: `services/queue/migrations`.
static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// The store of a single process.
pub struct SqliteStore {
    path: PathBuf,
    writer: Mutex<Option<SqliteConnection>>,
    leases: Mutex<Option<SqliteConnection>>,
    people: Mutex<Option<SqliteConnection>>,
    /// The writer shall copy the WAL back itself.
    checkpoint_due: AtomicBool,
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
        if matches!(error, StoreError::Trouble(_)) {
            self.give_up();
        }
        error
    }
}

impl SqliteStore {
    /// Opens or makes the database inside `folder` (which exists), brings its tables up to date and verifies that it
    /// will keep what is written.
    pub async fn open(folder: &Path) -> Result<Self, StoreError> {
        let store = Self {
            path: folder.join(FILE),
            writer: Mutex::new(None),
            leases: Mutex::new(None),
            people: Mutex::new(None),
            checkpoint_due: AtomicBool::new(false),
        };
        let mut writer = store.writer().await?;
        let connection = writer.connection()?;
        MIGRATIONS.run(connection).await.map_err(|error| StoreError::Trouble(format!("migrations: {error}")))?;
        drop(writer);
        Ok(store)
    }

    async fn writer(&self) -> Result<Held<'_>, StoreError> {
        let mut held = self.writer.lock().await;
        if held.is_none() {
            *held = Some(self.open_writer().await?);
        }
        Ok(Held(held))
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
            .pragma("cache_size", CACHE_KIB)
            .pragma("temp_store", "memory")
            .thread_name(|n| format!("queue-sqlite-{n}"))
            .disable_statement_logging()
    }

    async fn open_writer(&self) -> Result<SqliteConnection, StoreError> {
        let options = self
            .options()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // Copying the WAL back syncs twice: not in the middle of a commit, see `tidy`.
            .pragma("wal_autocheckpoint", "0")
            .pragma("journal_size_limit", "67108864");
        let mut connection = options.connect().await.map_err(|error| classify(&error))?;
        let failed = |error: sqlx::Error| classify(&error);
        // What was asked for may be refused silently, for example by a file system without shared memory.
        let mode: String =
            sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut connection).await.map_err(failed)?;
        let synchronous: i64 =
            sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut connection).await.map_err(failed)?;
        if mode != "wal" || synchronous != 2 {
            return Err(StoreError::Trouble(format!(
                "the database runs with journal_mode={mode} synchronous={synchronous} instead of wal and 2 (FULL): \
                 its folder must be on a local file system"
            )));
        }
        sqlx::query("CREATE TEMP TABLE finished (seq INTEGER PRIMARY KEY)")
            .execute(&mut connection)
            .await
            .map_err(failed)?;
        Ok(connection)
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
        let row = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(&mut connection).await;
        let row = row.map_err(|error| classify(&error))?;
        let (log, done): (i64, i64) = (row.get(1), row.get(2));
        if done < log && self.wal_bytes() >= CHECKPOINT_FORCE_BYTES {
            self.checkpoint_due.store(true, Ordering::Relaxed);
        }
        connection.close().await.map_err(|error| classify(&error))
    }
}

/// Which errors are the store's trouble, and which the request's own fault. What is unknown is trouble.
pub(super) fn classify(error: &sqlx::Error) -> StoreError {
    const TOO_BIG: i32 = 18;
    const CONSTRAINT: i32 = 19;
    const MISMATCH: i32 = 20;
    const RANGE: i32 = 25;
    let code = error.as_database_error().and_then(|e| e.code()).and_then(|code| code.parse::<i32>().ok());
    match code.map(|code| code & 0xff) {
        Some(TOO_BIG | CONSTRAINT | MISMATCH | RANGE) => StoreError::Refused(error.to_string()),
        _ => StoreError::Trouble(error.to_string()),
    }
}
