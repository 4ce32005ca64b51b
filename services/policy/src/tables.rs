//! Tables in SQLite files, which Dovecot may read and others may write at the same time.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use node::Clock;
use rules::{Query, QueryError, Row, SqliteTable};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{AssertSqlSafe, Column as _, ConnectOptions as _, Row as _, ValueRef as _};

/// How long an answer is used again, hit or miss: a changed row is seen after so long.
const CACHE_AGE_MAX: Duration = Duration::from_secs(10);
/// Answers that are kept, in each of two generations.
const CACHE_ENTRIES_MAX: usize = 5_000;
/// Rows of an answer that is kept; longer ones are asked for again.
const CACHE_ROWS_MAX: usize = 100;
/// Connections to one file.
const CONNECTIONS_MAX: u32 = 4;
/// A whole lookup.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Wait for a writer that holds the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// SQLite operations between looks at the clock, so that a runaway statement ends: below a millisecond.
const PROGRESS_OPERATIONS: i32 = 10_000;

/// A lookup failed: transient.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    #[error("cannot open {}: {source}", .path.display())]
    Open { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Sqlite(#[from] sqlx::Error),
    #[error("no answer within {} s", LOOKUP_TIMEOUT.as_secs())]
    Timeout,
}

/// Open files and answers that are still fresh.
pub(crate) struct Tables {
    clock: Clock,
    files: Mutex<HashMap<PathBuf, File>>,
    queries: Mutex<HashMap<String, Arc<Prepared>>>,
    cache: Mutex<Cache>,
}

struct File {
    /// Device and inode: a file that was put in its place is opened anew.
    identity: (u64, u64),
    pool: SqlitePool,
}

struct Prepared {
    sql: Arc<str>,
    parameters: usize,
}

impl Tables {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, files: Mutex::default(), queries: Mutex::default(), cache: Mutex::default() }
    }

    /// The rows that a table holds for a key, `rows_max` of them at most. A miss is an empty answer, a failure never is.
    pub(crate) async fn look_up(
        &self,
        table: &SqliteTable,
        key: &str,
        rows_max: usize,
    ) -> Result<Arc<[Row]>, TableError> {
        let now = self.clock.instant();
        let id = CacheKey { path: table.path.clone(), query: table.query.clone(), key: key.to_owned() };
        if let Some(rows) = lock(&self.cache).get(&id, now) {
            return Ok(rows);
        }
        let asked = tokio::time::timeout(LOOKUP_TIMEOUT, self.ask(table, key, rows_max, now + LOOKUP_TIMEOUT)).await;
        let rows = asked.map_err(|_| TableError::Timeout)??;
        if rows.len() <= CACHE_ROWS_MAX {
            lock(&self.cache).put(id, now, Arc::clone(&rows));
        }
        Ok(rows)
    }

    async fn ask(
        &self,
        table: &SqliteTable,
        key: &str,
        rows_max: usize,
        deadline: Instant,
    ) -> Result<Arc<[Row]>, TableError> {
        let prepared = self.prepared(&table.query)?;
        let pool = self.pool(&table.path).await?;
        let mut connection = pool.acquire().await?;
        let clock = self.clock.clone();
        connection.lock_handle().await?.set_progress_handler(PROGRESS_OPERATIONS, move || clock.instant() < deadline);
        // The text is the administrator's; the key is bound.
        let mut query = sqlx::query(AssertSqlSafe(Arc::clone(&prepared.sql)));
        for value in Query::bind(key).into_iter().take(prepared.parameters) {
            query = query.bind(value);
        }
        let mut found = Vec::new();
        let mut rows = query.fetch(&mut *connection);
        while let Some(row) = rows.try_next().await? {
            found.push(read(&row)?);
            if found.len() >= rows_max {
                break;
            }
        }
        Ok(found.into())
    }

    fn prepared(&self, query: &str) -> Result<Arc<Prepared>, QueryError> {
        if let Some(prepared) = lock(&self.queries).get(query) {
            return Ok(Arc::clone(prepared));
        }
        let parsed = Query::parse(query)?;
        let prepared = Arc::new(Prepared { sql: parsed.sql.into(), parameters: parsed.parameters });
        let mut queries = lock(&self.queries);
        // As many as the snapshots of this process have had; old ones go when it is time to count again.
        if queries.len() >= CACHE_ENTRIES_MAX {
            queries.clear();
        }
        queries.insert(query.to_owned(), Arc::clone(&prepared));
        Ok(prepared)
    }

    async fn pool(&self, path: &Path) -> Result<SqlitePool, TableError> {
        let meta = tokio::fs::metadata(path).await;
        let meta = meta.map_err(|source| TableError::Open { path: path.to_owned(), source })?;
        let identity = (meta.dev(), meta.ino());
        let mut files = lock(&self.files);
        if let Some(file) = files.get(path).filter(|file| file.identity == identity) {
            return Ok(file.pool.clone());
        }
        // Not `immutable`: others write, in WAL mode too. Never created: a file that is missing is a failure.
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .create_if_missing(false)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(LOOKUP_TIMEOUT)
            .connect_lazy_with(options);
        files.insert(path.to_owned(), File { identity, pool: pool.clone() });
        Ok(pool)
    }
}

fn read(row: &SqliteRow) -> Result<Row, sqlx::Error> {
    let mut columns = Vec::with_capacity(row.len());
    for column in row.columns() {
        let value = row.try_get_raw(column.ordinal())?;
        if !value.is_null() {
            // Unchecked: SQLite turns numbers into their text.
            let text: String = row.try_get_unchecked(column.ordinal())?;
            columns.push((column.name().to_owned(), text));
        }
    }
    Ok(Row { columns })
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct CacheKey {
    path: PathBuf,
    query: String,
    key: String,
}

type Answers = HashMap<CacheKey, (Instant, Arc<[Row]>)>;

/// Two generations: when the young one is full it becomes the old one, and the old one goes.
#[derive(Default)]
struct Cache {
    young: Answers,
    old: Answers,
}

impl Cache {
    fn get(&self, key: &CacheKey, now: Instant) -> Option<Arc<[Row]>> {
        let (at, rows) = self.young.get(key).or_else(|| self.old.get(key))?;
        (now.saturating_duration_since(*at) < CACHE_AGE_MAX).then(|| Arc::clone(rows))
    }

    fn put(&mut self, key: CacheKey, now: Instant, rows: Arc<[Row]>) {
        if self.young.len() >= CACHE_ENTRIES_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, (now, rows));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
