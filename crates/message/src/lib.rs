//! The text of a message: header section and fields, trace and submission fields, delivery status notifications.
//!
//! Nothing here does I/O or reads a clock.
#![warn(missing_docs)]

mod author;
mod date;
mod delivered;
pub mod dsn;
mod header;
mod received;
mod split;
mod submission;

pub use author::{AUTHORS_MAX, AuthorError, author_addresses};
pub use date::rfc5322_date;
pub use delivered::{delivered_to, return_path};
pub use header::{Field, Fields, LINE_OCTETS_MAX, fields};
pub use received::{Client, Protocol, Received, Tls};
pub use split::{HeaderFault, HeaderLimits, HeaderSplitter};
pub use submission::{message_id, missing_fields};
