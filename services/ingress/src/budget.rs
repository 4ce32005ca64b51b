use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of message text that this process holds and that no queue has committed yet.
///
/// It bounds nobody by itself: a message that grows while the budget is used up opens its stream to the queue early, and
/// from then on the queue's flow control holds its client back.
#[derive(Clone, Default)]
pub(crate) struct Budget {
    used: Arc<AtomicU64>,
}

impl Budget {
    /// An account of one message.
    pub(crate) fn account(&self) -> Account {
        Account { budget: self.clone(), charged: 0 }
    }

    /// Bytes that are held now.
    #[cfg(test)]
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// What one message holds; given back when it is dropped.
pub(crate) struct Account {
    budget: Budget,
    charged: u64,
}

impl Account {
    /// Says how much the message holds now; true while all messages together stay within `max`.
    pub(crate) fn hold(&mut self, bytes: u64, max: u64) -> bool {
        let used = if bytes >= self.charged {
            let more = bytes - self.charged;
            self.budget.used.fetch_add(more, Ordering::Relaxed) + more
        } else {
            let less = self.charged - bytes;
            self.budget.used.fetch_sub(less, Ordering::Relaxed) - less
        };
        self.charged = bytes;
        used <= max
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.charged, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_share_one_budget_and_give_back_what_they_held() {
        let budget = Budget::default();
        let (mut one, mut two) = (budget.account(), budget.account());
        assert!(one.hold(60, 100));
        assert!(two.hold(40, 100));
        assert!(!two.hold(41, 100));
        assert!(two.hold(10, 100));
        assert_eq!(budget.used(), 70);
        drop(one);
        assert_eq!(budget.used(), 10);
        drop(two);
        assert_eq!(budget.used(), 0);
    }
}
