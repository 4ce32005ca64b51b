//! The text of a message: header section and fields, trace and submission fields, delivery status notifications.
//!
//! Nothing here does I/O or reads a clock.
#![warn(missing_docs)]

pub mod dsn;
