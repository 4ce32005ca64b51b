//! The server's side of a session.
//!
//! The shell feeds [`Session::advance`] with what it read and does what the returned [`Step`] says:
//!
//! ```text
//! session.greet(&mut out);
//! loop {
//!     match session.advance(&mut input, &mut out, now) {
//!         Step::Read => { write `out` in one go; read into `input` until session.deadline(); }
//!         Step::Event(event) => act, and where the event asks, call the answer_...() that belongs to it;
//!         Step::Close => { write `out`; close }
//!     }
//! }
//! ```

mod command;
mod config;
mod event;
mod mask;
mod message;
mod sasl;
mod session;
mod text;

pub use config::{AuthOffer, LineEnds, Protocol, SessionConfig, SessionLimits, TlsOffer};
pub use event::{Event, MessageAnswer, Reason, Step, Transaction};
pub use mask::mask;
pub use session::Session;

pub use crate::syntax::{BodyType, MailFrom, Mechanism, Notify, RcptTo, Recipient, Ret};

#[cfg(test)]
mod tests;
