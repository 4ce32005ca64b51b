//! Compiled rules, tables and directory: who may send what to whom, and where it goes.
//!
//! Pure: a decision is a function of values. What a decision needs from outside it asks for by name: [`decide`] answers
//! an [`Answer`], or a [`Need`] that the caller looks up, puts into [`Lookups`] and asks again.
#![warn(missing_docs)]

mod criteria;
mod decide;
mod directory;
mod facts;
mod guards;
mod keys;
mod lookups;
mod model;
mod networks;
mod patterns;
mod query;
mod replies;
mod resolve;
#[cfg(test)]
mod tests;

pub use decide::decide;
pub use directory::{Login, find_login, may_send_as};
pub use facts::{Accepted, Answer, Client, Destination, Fact, Facts, NoStory, Recipient, Step, Story};
pub use lookups::{Lookup, LookupError, Lookups, Need, Row};
pub use model::*;
pub use networks::NetworkList;
pub use patterns::PatternList;
pub use query::{Query, QueryError, Variable};
pub use replies::{lookup_failed, not_own_address};
