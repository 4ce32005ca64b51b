use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What works and what does not: the source of `/readyz`.
#[derive(Clone, Default)]
pub struct Health {
    parts: Arc<Mutex<BTreeMap<&'static str, Part>>>,
}

/// The state of one part of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Works.
    Ready,
    /// Works, and somebody should look: does not make the process unready.
    Degraded(String),
    /// Does not work yet, or no more.
    NotReady(String),
}

impl Health {
    /// Sets the state of a part, for example `queue`.
    pub fn set(&self, name: &'static str, part: Part) {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).insert(name, part);
    }

    /// All parts by name.
    pub fn parts(&self) -> BTreeMap<&'static str, Part> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether no part is [`Part::NotReady`].
    pub fn is_ready(&self) -> bool {
        !self.parts().values().any(|part| matches!(part, Part::NotReady(_)))
    }
}
