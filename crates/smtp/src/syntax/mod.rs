//! Words of the wire: command lines, paths, parameters, xtext, base64, replies.

mod command;
mod envelope;
mod path;
mod reply;
mod sasl;
mod xtext;

pub use command::{Command, Refusal, parse_command};
pub use envelope::{BodyType, MailFrom, Notify, RcptTo, Recipient, Ret};
pub use path::{Path, PathError, parse_path};
pub use reply::{REPLY_LINE_OCTETS_MAX, write_reply};
pub use sasl::{Mechanism, PlainResponse, SaslError, decode_base64, parse_name, parse_plain};
pub use xtext::{XtextError, decode_xtext, encode_xtext};
