//! The ledger harness: clients write down what was answered 250, a sink writes down what arrived, and after a storm both
//! are compared.
//!
//! - [`ledger`]: the records and their comparison, a pure function.
//! - [`letter`]: messages that carry their ledger id and a checksum.
//! - [`clients`]: many sessions at once that send until they are told to stop, and come again after an unknown answer.
//! - [`sink`]: an SMTP and LMTP server that writes arrivals down.
//! - [`stage`]: a platform between the two, whose processes are numbered (*epochs*).
//! - [`storm`]: kills at random instants; [`points`]: kills at named points.
//! - [`soak`]: honest and [`hostile`] traffic for a long time, watched for leaks.
//! - [`power`]: power cuts, over a disk that loses what was not synced.
//!
//! Over another store or with separate services only the stage is another one.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "part of tests: what goes wrong here fails the test, with its reason"
)]

pub mod clients;
pub mod hostile;
pub mod ledger;
pub mod letter;
pub mod points;
pub mod power;
pub mod random;
pub mod sink;
pub mod smtp;
pub mod soak;
pub mod stage;
pub mod storm;
