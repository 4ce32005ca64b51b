//! The values of the mail world, parsed once at the edge and trusted afterwards.
//!
//! Nothing here does I/O or reads a clock.
#![warn(missing_docs)]

mod address;
mod domain;
mod id;
mod reply;
mod time;

pub use address::{Address, AddressError, LOCAL_PART_OCTETS_MAX, PATH_OCTETS_MAX};
pub use domain::{DOMAIN_OCTETS_MAX, Domain, DomainError};
pub use id::{MessageId, MessageIdError};
pub use reply::{Class, EnhancedCode, EnhancedCodeError, Reply};
pub use time::Timestamp;
