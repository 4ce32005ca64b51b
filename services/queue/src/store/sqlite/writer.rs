//! The connection that writes.
//!
//! Its calls block: the queue's writer has a thread of its own, whoever else comes uses [`WriteSide::aside`].

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::{BUSY_MAX, CACHE_KIB, STATEMENTS_MAX};
use crate::store::StoreError;

/// How long a checkpoint waits for those who read.
const RESTART_WAIT_MAX: Duration = Duration::from_millis(20);

/// The one connection that writes, opened where it is not.
pub(super) struct WriteSide {
    path: PathBuf,
    connection: Mutex<Option<Connection>>,
    /// Between two groups the WAL shall be copied back.
    pub(super) checkpoint_due: AtomicBool,
}

impl WriteSide {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, connection: Mutex::new(None), checkpoint_due: AtomicBool::new(false) }
    }

    /// Does some work. What failed leaves no transaction open; after trouble the connection is opened again by its next
    /// user, and sees what is really there.
    pub(super) fn run<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, StoreError> {
        let mut slot = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = match &mut *slot {
            Some(connection) => connection,
            none => none.insert(self.open()?),
        };
        let error = match work(connection) {
            Ok(done) => return Ok(done),
            Err(error) => classify(&error),
        };
        let undone = connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok();
        if error.is_trouble() || !undone {
            *slot = None;
        }
        Err(error)
    }

    /// The same for callers that share their thread with others.
    pub(super) async fn aside<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let side = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || side.run(work)).await;
        done.unwrap_or_else(|error| Err(StoreError::Trouble(error.to_string())))
    }

    fn open(&self) -> Result<Connection, StoreError> {
        let failed = |error: rusqlite::Error| classify(&error);
        // One thread at a time comes in: the mutex above is all that is needed.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags).map_err(failed)?;
        connection.busy_timeout(BUSY_MAX).map_err(failed)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        // Relations are kept by the statements of `write`; checking them again would cost every insert.
        // Copying the WAL back syncs twice: not in the middle of a commit, see `tidy`.
        let settings = format!(
            "PRAGMA foreign_keys = OFF; PRAGMA cache_size = {CACHE_KIB}; PRAGMA temp_store = memory;
             PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = 67108864;"
        );
        connection.execute_batch(&settings).map_err(failed)?;
        // What was asked for may be refused silently, for example by a file system without shared memory.
        let mode: String = connection.query_row("PRAGMA journal_mode", (), |row| row.get(0)).map_err(failed)?;
        let synchronous: i64 = connection.query_row("PRAGMA synchronous", (), |row| row.get(0)).map_err(failed)?;
        if mode != "wal" || synchronous != 2 {
            return Err(StoreError::Trouble(format!(
                "the database runs with journal_mode={mode} synchronous={synchronous} instead of wal and 2 (FULL): \
                 its folder must be on a local file system"
            )));
        }
        Ok(connection)
    }

    /// Copies the WAL back if that is due: between two groups, when nothing is on its way.
    pub(super) fn checkpoint_if_due(&self) {
        if !self.checkpoint_due.swap(false, Ordering::Relaxed) {
            return;
        }
        // What was committed is durable: a failure here is noticed by the next group.
        let _ = self.run(|connection| {
            // The WAL begins anew only when nobody reads its end: whoever reads for leases is done in a moment, and for
            // a long list nobody waits.
            connection.busy_timeout(RESTART_WAIT_MAX)?;
            let done = connection.query_row("PRAGMA wal_checkpoint(RESTART)", (), |_| Ok(()));
            connection.busy_timeout(BUSY_MAX)?;
            done
        });
    }
}

/// Which errors are the store's trouble, and which the request's own fault. What is unknown is trouble.
fn classify(error: &rusqlite::Error) -> StoreError {
    let code = match error {
        rusqlite::Error::SqliteFailure(failure, _) => Some(failure.extended_code),
        rusqlite::Error::ToSqlConversionFailure(_) => return StoreError::Refused(error.to_string()),
        _ => None,
    };
    super::by_code(code, error.to_string())
}
