//! The process shell: wires between services, snapshots, clock, health, drain, telemetry.
//!
//! A service crate has one way to start, `start(&Node)`, and reaches everything outside itself through the [`Node`].

pub mod admin_http;
pub mod admin_socket;
mod calls;
mod clock;
mod drain;
pub mod fault;
pub mod folder;
mod health;
mod inotify;
mod log_json;
mod log_lines;
pub mod panics;
pub mod process;
mod snapshots;
mod state;
pub mod systemd;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod watch;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use clock::Clock;
pub use drain::{Drain, DrainGuard};
pub use health::{Health, Part};
pub use snapshots::Snapshots;
pub use state::{StateDir, StateError, default_dir, known_dirs, sendmail_state_dirs};
pub use wire::{Peer, Wire};

/// What a service may use of its process. Cloning is cheap.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    wires: wire::Wires,
    snapshots: Snapshots,
    clock: Clock,
    health: Health,
    drain: Drain,
    state_dir: PathBuf,
}

impl Node {
    /// A node over its snapshots and its state folder.
    pub fn new(snapshots: Snapshots, state_dir: PathBuf, clock: Clock) -> Self {
        let inner = Inner {
            wires: wire::Wires::new(clock.clone()),
            snapshots,
            clock,
            health: Health::default(),
            drain: Drain::default(),
            state_dir,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The way to a service. The caller cannot tell whether it ends in this process. Calls before the service is there
    /// answer UNAVAILABLE.
    pub fn wire(&self, peer: Peer) -> Wire {
        self.inner.wires.to(peer)
    }

    /// Puts the generated server of a service behind its wire. The first one stays.
    pub fn provide<S>(&self, peer: Peer, server: S)
    where
        S: wire::Server,
    {
        self.inner.wires.provide(peer, server);
    }

    /// The last good snapshot and its successors.
    pub fn snapshots(&self) -> &Snapshots {
        &self.inner.snapshots
    }

    /// Wall and monotonic time.
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// What works and what does not, for `/readyz`.
    pub fn health(&self) -> &Health {
        &self.inner.health
    }

    /// Whether the process is about to end.
    pub fn drain(&self) -> &Drain {
        &self.inner.drain
    }

    /// Where this process keeps what must outlive it.
    pub fn state_dir(&self) -> &Path {
        &self.inner.state_dir
    }
}
