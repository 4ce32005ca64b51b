use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Bits of an IPv6 address that are one source: what a provider hands to one customer.
const SOURCE_IPV6_PREFIX: u32 = 64;

/// The running sessions of one listener, in all and by source. Outlives reloads.
#[derive(Default)]
pub(crate) struct Census {
    sessions: AtomicUsize,
    sources: Mutex<HashMap<IpAddr, usize>>,
}

impl Census {
    /// Counts one more session, unless there are `max` of them.
    pub(crate) fn admit(self: &Arc<Self>, max: usize) -> Option<Seat> {
        let before = self.sessions.fetch_add(1, Ordering::Relaxed);
        let seat = Seat { census: Arc::clone(self) };
        (before < max).then_some(seat)
    }

    /// Counts one more session of a source, unless there are `max` of them.
    pub(crate) fn admit_source(self: &Arc<Self>, client: IpAddr, max: usize) -> Option<SourceSeat> {
        let source = source(client);
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let sessions = sources.entry(source).or_default();
        if *sessions >= max {
            return None;
        }
        *sessions += 1;
        Some(SourceSeat { census: Arc::clone(self), source })
    }
}

/// One session that is counted.
pub(crate) struct Seat {
    census: Arc<Census>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.census.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One session that is counted for its source.
pub(crate) struct SourceSeat {
    census: Arc<Census>,
    source: IpAddr,
}

impl Drop for SourceSeat {
    fn drop(&mut self) {
        let mut sources = self.census.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sessions) = sources.get_mut(&self.source) {
            *sessions -= 1;
            // Sources come and go: only those with sessions are kept.
            if *sessions == 0 {
                sources.remove(&self.source);
            }
        }
    }
}

fn source(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(four) => four.into(),
        IpAddr::V6(six) => Ipv6Addr::from_bits(six.to_bits() & (u128::MAX << (128 - SOURCE_IPV6_PREFIX))).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_bounded_in_all_and_by_source() {
        let census = Arc::new(Census::default());
        let first = census.admit(1).unwrap();
        assert!(census.admit(1).is_none());
        drop(first);
        assert!(census.admit(1).is_some());

        let admit = |ip: &str| census.admit_source(ip.parse().unwrap(), 1);
        let held = [admit("192.0.2.1"), admit("192.0.2.2"), admit("2001:db8::1")].map(Option::unwrap);
        assert!(admit("192.0.2.1").is_none());
        assert!(admit("::ffff:192.0.2.1").is_none(), "the same host by IPv6 notation");
        assert!(admit("2001:db8::ffff").is_none(), "the same /64");
        assert!(admit("2001:db8:0:1::1").is_some());
        drop(held);
        assert!(census.sources.lock().unwrap().is_empty());
    }
}
