//! The custom resource types, their loader and the one compiler that makes a snapshot of them.

pub mod snapshot;

pub use snapshot::Snapshot;
