//! What the tests start and talk to: the real binary, real peers, scripted peers. Blocking, so that a test reads top down.
//!
//! Everything binds to loopback, with port 0 or an address of its own, and ends with the test.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "part of tests: what goes wrong here fails the test, with its reason"
)]

pub mod dns;
pub mod dovecot;
pub mod imap;
pub mod peer;
pub mod posthouse;
pub mod smtp;

use std::time::{Duration, Instant};

/// How long a condition may take before the test gives up: generous, since it only passes by when something is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` says something.
///
/// # Panics
/// When nothing came within [`PATIENCE`].
#[track_caller]
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "gave up waiting for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[allow(clippy::disallowed_methods, reason = "a test waits in real time")]
fn now() -> Instant {
    Instant::now()
}

/// A loopback address that no other test of this machine has: its ports are all free.
pub fn own_loopback_address() -> std::net::Ipv4Addr {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // 127.64.0.0/10 holds 2^22 addresses: 16 bits of the process id, 6 bits within the process.
    let n = NEXT.fetch_add(1, Ordering::Relaxed) % 64;
    let bits = (std::process::id() & 0xffff) << 6 | n;
    std::net::Ipv4Addr::from(0x7f40_0000 | bits)
}
