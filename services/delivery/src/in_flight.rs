//! The leases that we hold: what is prolonged while it takes long, and given back in the end.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use posthouse_proto::queue::v1::LeaseToken;

/// Leases from the moment they arrive until their settlement is recorded.
#[derive(Default)]
pub(crate) struct InFlight {
    leases: Mutex<HashMap<u64, Held>>,
}

struct Held {
    token: LeaseToken,
    /// Its settlement waits to be recorded.
    settling: bool,
    /// Extend has come by: the lease is no longer young.
    seen: bool,
}

impl InFlight {
    pub(crate) fn add(&self, token: LeaseToken) {
        self.lock().insert(token.delivery, Held { token, settling: false, seen: false });
    }

    /// Its settlement is on its way.
    pub(crate) fn settling(&self, token: &LeaseToken) {
        if let Some(held) = self.lock().get_mut(&token.delivery).filter(|held| held.token == *token) {
            held.settling = true;
        }
    }

    /// Its settlement is recorded, or stale: either way it is not ours any more.
    pub(crate) fn remove(&self, token: &LeaseToken) {
        let mut leases = self.lock();
        if leases.get(&token.delivery).is_some_and(|held| held.token == *token) {
            leases.remove(&token.delivery);
        }
    }

    /// Leases that are older than one interval of asking.
    pub(crate) fn to_extend(&self) -> Vec<LeaseToken> {
        let mut leases = self.lock();
        let old = leases.values_mut().filter_map(|held| std::mem::replace(&mut held.seen, true).then_some(held.token));
        old.collect()
    }

    /// Leases without a settlement.
    pub(crate) fn unsettled(&self) -> Vec<LeaseToken> {
        self.lock().values().filter(|held| !held.settling).map(|held| held.token).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Held>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
