//! Sessions that rest between two messages for the same host: a transaction over one saves connection, greeting and TLS.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use node::Clock;
use resources::snapshot::Transport;
use tokio::sync::Notify;

use crate::connection::Connection;

/// How long a session rests: long enough for the next message of a busy route, short enough to be no burden to the peer.
const REST_MAX: Duration = Duration::from_secs(5);
/// Resting sessions in all.
const RESTING_MAX: usize = 200;
/// Messages of one session: peers bound it, too.
const MESSAGES_MAX: usize = 500;
/// How often sessions are looked at that have rested too long.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// A host as a transport reaches it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) transport: String,
    /// `host:port`, or the path of a socket.
    pub(crate) host: String,
}

/// The resting sessions.
pub(crate) struct Pool {
    clock: Clock,
    resting: Mutex<Resting>,
    some: Notify,
}

#[derive(Default)]
struct Resting {
    by_host: HashMap<Key, Vec<Rest>>,
    count: usize,
    closed: bool,
}

struct Rest {
    connection: Connection,
    /// A session that was opened by another version of the transport is not used again.
    transport: Arc<Transport>,
    until: Instant,
}

impl Pool {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, resting: Mutex::default(), some: Notify::new() }
    }

    /// The session that was used last, while its peer is still there.
    pub(crate) fn take(&self, key: &Key, transport: &Arc<Transport>) -> Option<Connection> {
        let now = self.clock.instant();
        let mut resting = self.lock();
        loop {
            let rests = resting.by_host.get_mut(key)?;
            let rest = rests.pop();
            if rests.is_empty() {
                resting.by_host.remove(key);
            }
            let rest = rest?;
            resting.count -= 1;
            if rest.until > now && Arc::ptr_eq(&rest.transport, transport) && rest.connection.is_quiet() {
                return Some(rest.connection);
            }
            drop_politely(rest.connection);
        }
    }

    /// Lets a session rest, or ends it where it cannot be used again.
    pub(crate) fn put(&self, key: Key, transport: &Arc<Transport>, mut connection: Connection) {
        if !connection.session.is_reusable() {
            return;
        }
        let until = self.clock.instant() + REST_MAX;
        let mut resting = self.lock();
        if resting.closed || resting.count >= RESTING_MAX || connection.messages >= MESSAGES_MAX {
            drop(resting);
            drop_politely(connection);
            return;
        }
        connection.rest();
        resting.count += 1;
        let rest = Rest { connection, transport: Arc::clone(transport), until };
        resting.by_host.entry(key).or_default().push(rest);
        drop(resting);
        self.some.notify_one();
    }

    /// Ends sessions that have rested too long; runs as long as the process.
    pub(crate) async fn sweep(&self) {
        loop {
            if self.lock().count == 0 {
                self.some.notified().await;
            }
            tokio::time::sleep(SWEEP_INTERVAL).await;
            let now = self.clock.instant();
            for connection in self.remove(|rest| rest.until <= now) {
                drop_politely(connection);
            }
        }
    }

    /// Ends every session, and takes none from now on.
    pub(crate) async fn close(&self) {
        self.lock().closed = true;
        futures_util::future::join_all(self.remove(|_| true).into_iter().map(Connection::quit)).await;
    }

    fn remove(&self, is_over: impl Fn(&Rest) -> bool) -> Vec<Connection> {
        let mut resting = self.lock();
        let mut removed = Vec::new();
        resting.by_host.retain(|_, rests| {
            // The oldest stand in front.
            let over = rests.iter().take_while(|rest| is_over(rest)).count();
            removed.extend(rests.drain(..over).map(|rest| rest.connection));
            !rests.is_empty()
        });
        resting.count -= removed.len();
        removed
    }

    fn lock(&self) -> MutexGuard<'_, Resting> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn drop_politely(connection: Connection) {
    tokio::spawn(connection.quit());
}
