//! Responses to the challenges of AUTH (RFC 4954 section 4).

use bytes::{Buf, BytesMut};
use memchr::memchr;

use super::command::{IMPROPER_PIPELINING, LINE_END};
use super::event::{Event, Step};
use super::session::{Owed, Session, State, line_of};
use crate::syntax::{Mechanism, decode_base64, parse_name, parse_plain};

pub(super) const BAD_RESPONSE: &str = "501 5.5.2 authentication response is not valid";

/// Which response is awaited.
#[derive(Debug)]
pub(super) enum Sasl {
    Plain,
    LoginUser,
    LoginPassword { user: String },
}

impl Session {
    pub(super) fn sasl_step(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> Option<Step> {
        let line_max = self.config.limits.command_line_max_bytes;
        let Some(end) = memchr(b'\n', &input[..input.len().min(line_max)]) else {
            if input.len() < line_max {
                return Some(Step::Read);
            }
            self.moved = true;
            self.state = State::SkipLine;
            self.error("500 5.5.6 authentication line is too long", out);
            return None;
        };
        self.moved = true;
        if input.len() > end + 1 {
            input.clear();
            self.close(IMPROPER_PIPELINING, out);
            return None;
        }
        let response = line_of(&input[..end], self.config.line_ends).map(<[u8]>::to_vec);
        input.advance(end + 1);
        let State::Sasl(sasl) = std::mem::replace(&mut self.state, State::Command) else {
            return None;
        };
        match response.as_deref() {
            None => self.error(LINE_END.reply, out),
            Some(b"*") => self.error("501 5.7.0 authentication cancelled", out),
            Some(response) => match decode_base64(response) {
                Ok(response) => return self.respond(sasl, &response, out).map(Step::Event),
                Err(_) => self.error(BAD_RESPONSE, out),
            },
        }
        None
    }

    /// Goes on with a decoded response.
    pub(super) fn respond(&mut self, sasl: Sasl, response: &[u8], out: &mut Vec<u8>) -> Option<Event> {
        let event = match sasl {
            Sasl::Plain => parse_plain(response).ok().map(|plain| Event::Authenticate {
                mechanism: Mechanism::Plain,
                authorization_id: plain.authorization_id,
                user: plain.user,
                password: plain.password,
            }),
            Sasl::LoginUser => {
                if let Ok(user) = parse_name(response) {
                    // "Password:" in base64.
                    self.say("334 UGFzc3dvcmQ6", out);
                    self.state = State::Sasl(Sasl::LoginPassword { user });
                    return None;
                }
                None
            }
            Sasl::LoginPassword { user } => {
                (!response.is_empty() && !response.contains(&0)).then(|| Event::Authenticate {
                    mechanism: Mechanism::Login,
                    authorization_id: String::new(),
                    user,
                    password: response.to_vec(),
                })
            }
        };
        if event.is_some() {
            self.state = State::Answer(Owed::Authenticate);
        } else {
            self.error(BAD_RESPONSE, out);
        }
        event
    }
}
