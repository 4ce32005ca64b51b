//! Disks that lose, fill up, break and lie.

mod power;
