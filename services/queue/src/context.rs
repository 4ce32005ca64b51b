//! What every part of the service shares: configuration, health, the clean-up of bodies.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use node::{Clock, Health, Part, Snapshots};
use schedule::Schedule;

use crate::bodies::BodyStore;

/// The name of our part of the process's health.
const PART: &str = "queue";
/// How old an answer about free space may be.
const SPACE_CHECK: Duration = Duration::from_secs(1);

/// The parts of the configuration that the queue reads.
#[derive(Clone)]
pub enum Settings {
    /// The last good snapshot of a running platform.
    Running(Snapshots),
    /// A stopped platform: defaults.
    Offline,
}

impl Settings {
    pub fn body_inline_max_bytes(&self) -> u64 {
        match self {
            Self::Running(snapshots) => snapshots.current().platform.body_inline_max_bytes,
            Self::Offline => 256 << 10,
        }
    }

    pub fn free_space_min_bytes(&self) -> u64 {
        match self {
            Self::Running(snapshots) => snapshots.current().platform.free_space_min_bytes,
            Self::Offline => 0,
        }
    }

    pub fn event_retention(&self) -> Duration {
        match self {
            Self::Running(snapshots) => snapshots.current().platform.event_retention,
            Self::Offline => Duration::MAX,
        }
    }

    /// A transport that is gone defers by the platform's default; it never bounces early.
    pub fn schedule(&self, transport: &str) -> Schedule {
        match self {
            Self::Running(snapshots) => {
                snapshots.current().transports.get(transport).map(|transport| transport.schedule).unwrap_or_default()
            }
            Self::Offline => Schedule::default(),
        }
    }
}

/// Whether the store works, and whether there is room.
#[derive(Clone)]
pub struct Condition {
    inner: Arc<Inner>,
}

struct Inner {
    health: Option<Health>,
    state: Mutex<State>,
}

/// What may be wrong; the label of `posthouse_queue_trouble`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Nothing can be written into the database.
    Store,
    /// Free space is below the watermark.
    Space,
    /// The folder of large bodies cannot be written.
    Bodies,
    /// Queued mail cannot be read.
    Reading,
}

impl Trouble {
    const ALL: [Self; 4] = [Self::Store, Self::Space, Self::Bodies, Self::Reading];

    fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Space => "space",
            Self::Bodies => "bodies",
            Self::Reading => "reading",
        }
    }

    /// What follows from it, for the log.
    fn consequence(self) -> &'static str {
        match self {
            Self::Store | Self::Space => "no mail is taken",
            Self::Bodies => "no large mail is taken",
            Self::Reading => "queued mail waits",
        }
    }
}

#[derive(Default)]
struct State {
    troubles: BTreeMap<Trouble, String>,
}

impl Condition {
    pub fn new(health: Option<Health>) -> Self {
        let condition = Self { inner: Arc::new(Inner { health, state: Mutex::default() }) };
        condition.publish(&condition.lock());
        condition
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, state: &State) {
        for trouble in Trouble::ALL {
            let there = f64::from(u8::from(state.troubles.contains_key(&trouble)));
            metrics::gauge!("posthouse_queue_trouble", "kind" => trouble.name()).set(there);
        }
        let Some(health) = &self.inner.health else { return };
        let all: Vec<&str> = state.troubles.values().map(String::as_str).collect();
        let part = match state.troubles.get(&Trouble::Store) {
            Some(_) => Part::NotReady(all.join("; ")),
            None if all.is_empty() => Part::Ready,
            None => Part::Degraded(all.join("; ")),
        };
        health.set(PART, part);
    }

    /// Something is wrong, or no more (`None`). Logged when it begins and when it ends.
    pub fn set(&self, trouble: Trouble, reason: Option<String>) {
        let mut state = self.lock();
        let before = state.troubles.contains_key(&trouble);
        match reason {
            Some(reason) => {
                if !before {
                    let (kind, consequence) = (trouble.name(), trouble.consequence());
                    tracing::error!(kind, reason, consequence, "trouble with storage");
                }
                state.troubles.insert(trouble, reason);
            }
            None if before => {
                tracing::info!(kind = trouble.name(), "storage works again");
                state.troubles.remove(&trouble);
            }
            None => return,
        }
        self.publish(&state);
    }

    /// The store failed.
    pub fn trouble(&self, reason: String) {
        self.set(Trouble::Store, Some(reason));
    }

    /// The store works again.
    pub fn well(&self) {
        self.set(Trouble::Store, None);
    }

    pub fn low_space(&self, reason: Option<String>) {
        self.set(Trouble::Space, reason);
    }

    /// Why nothing can be written.
    pub fn troubled(&self) -> Option<String> {
        self.lock().troubles.get(&Trouble::Store).cloned()
    }

    /// Whether this was found wrong.
    pub fn has(&self, trouble: Trouble) -> bool {
        self.lock().troubles.contains_key(&trouble)
    }

    /// Why no mail is taken.
    pub fn refuses(&self) -> Option<String> {
        let state = self.lock();
        [Trouble::Store, Trouble::Space].iter().find_map(|trouble| state.troubles.get(trouble)).cloned()
    }
}

/// The free-space watermark of the state folder.
pub struct Space {
    folder: PathBuf,
    clock: Clock,
    settings: Settings,
    condition: Condition,
    checked: Mutex<Option<(Instant, bool)>>,
    /// Octets that tests pretend to have; `u64::MAX`: ask the system.
    pretended: AtomicU64,
}

impl Space {
    pub fn new(folder: &Path, clock: Clock, settings: Settings, condition: Condition) -> Self {
        let pretended = AtomicU64::new(u64::MAX);
        Self { folder: folder.to_owned(), clock, settings, condition, checked: Mutex::new(None), pretended }
    }

    /// Whether mail may be taken.
    pub fn is_enough(&self) -> bool {
        let now = self.clock.instant();
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, enough)) = *checked
            && now.saturating_duration_since(at) < SPACE_CHECK
        {
            return enough;
        }
        let least = self.settings.free_space_min_bytes();
        let enough = match self.free() {
            Some(free) if free < least => {
                self.condition.low_space(Some(format!("{free} bytes are free, {least} are the least")));
                false
            }
            // A system that does not tell is no reason to refuse mail: the store will say when it is full.
            _ => {
                self.condition.low_space(None);
                true
            }
        };
        *checked = Some((now, enough));
        enough
    }

    fn free(&self) -> Option<u64> {
        match self.pretended.load(Ordering::Relaxed) {
            u64::MAX => {
                let stat = rustix::fs::statvfs(&self.folder).ok()?;
                Some(stat.f_bavail.saturating_mul(stat.f_frsize))
            }
            pretended => Some(pretended),
        }
    }

    #[cfg(test)]
    pub(crate) fn pretend(&self, bytes: u64) {
        self.pretended.store(bytes, Ordering::Relaxed);
    }
}

/// Deletes the files of bodies that no row needs any more; a backup makes it wait.
pub struct Cleaner<B> {
    bodies: Arc<B>,
    state: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    pauses: usize,
    names: Vec<String>,
}

impl<B: BodyStore> Cleaner<B> {
    pub fn new(bodies: Arc<B>) -> Self {
        Self { bodies, state: Mutex::default() }
    }

    /// Deletes soon; what is lost on the way is swept later.
    pub fn delete(&self, names: Vec<String>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.names.extend(names);
        if state.pauses == 0 && !state.names.is_empty() {
            let names = std::mem::take(&mut state.names);
            let bodies = Arc::clone(&self.bodies);
            tokio::spawn(async move { bodies.delete(names).await });
        }
    }

    /// Nothing is deleted until the guard is dropped.
    pub fn pause(&self) -> CleanerPause<'_, B> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).pauses += 1;
        CleanerPause { cleaner: self }
    }
}

/// See [`Cleaner::pause`].
pub struct CleanerPause<'a, B: BodyStore> {
    cleaner: &'a Cleaner<B>,
}

impl<B: BodyStore> Drop for CleanerPause<'_, B> {
    fn drop(&mut self) {
        self.cleaner.state.lock().unwrap_or_else(PoisonError::into_inner).pauses -= 1;
        self.cleaner.delete(Vec::new());
    }
}
