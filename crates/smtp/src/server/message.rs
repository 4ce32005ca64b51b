//! A message from `Begin` to its replies.

use std::time::Instant;

use bytes::{Buf, BytesMut};
use types::{Class, Reply};

use super::config::Protocol;
use super::event::{Event, MessageAnswer, Reason, Step};
use super::session::{Owed, Session, State, no_answer};
use super::text::{Taken, Text};
use crate::syntax::write_reply;

/// A message in progress.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) text: Text,
    /// The shell holds it and is to be told how it ends.
    pub(super) open: bool,
    /// The shell has refused it already.
    early: Option<MessageAnswer>,
    /// Octets of the current chunk, for its reply.
    pub(super) chunk_octets: u64,
}

impl Message {
    pub(super) fn new(text: Text) -> Self {
        Self { text, open: true, early: None, chunk_octets: 0 }
    }
}

impl Session {
    /// Answers [`Event::End`]. Called earlier it refuses the message: nothing more of it is handed out, and the client hears the answer in its time.
    pub fn answer_message(&mut self, answer: MessageAnswer, out: &mut Vec<u8>, now: Instant) {
        let ended = self.is_owed(Owed::Message);
        match &mut self.message {
            Some(_) if ended => {
                self.end_message(answer, out);
                self.since = now;
            }
            Some(message) if message.open => {
                message.open = false;
                message.text.silence();
                message.early = Some(answer);
            }
            _ => {}
        }
    }

    pub(super) fn begin_text(&mut self, out: &mut Vec<u8>) {
        match self.message.as_mut().and_then(|message| message.early.take()) {
            Some(answer) => self.end_message(answer, out),
            None => {
                self.say("354 end with a line that is a single dot", out);
                self.moved = true;
                self.state = State::Text;
            }
        }
    }

    pub(super) fn text_step(&mut self, input: &mut BytesMut) -> Option<Step> {
        let Some(message) = &mut self.message else {
            self.state = State::Command;
            return None;
        };
        let before = input.len();
        let taken = message.text.take(input);
        self.moved |= input.len() < before;
        if taken.end {
            self.state = State::TextEnd;
        }
        if let Some(reason) = message.text.fault()
            && std::mem::take(&mut message.open)
        {
            return Some(Step::Event(Event::Abandon(reason)));
        }
        match taken {
            Taken { chunk: Some(chunk), .. } => Some(Step::Event(Event::Chunk(chunk))),
            Taken { end: true, .. } => None,
            Taken { end: false, .. } => Some(Step::Read),
        }
    }

    /// The last octet of a message, or of a chunk of BDAT, is here.
    pub(super) fn end_text(&mut self, out: &mut Vec<u8>) -> Option<Event> {
        self.state = State::Command;
        let message = self.message.as_mut()?;
        let fault = message.text.fault().and_then(reply_to_fault);
        if let Some(answer) = message.early.take().or(fault.map(MessageAnswer::All)) {
            self.end_message(answer, out);
            return None;
        }
        if message.text.is_last() {
            message.open = false;
            self.state = State::Answer(Owed::Message);
            return Some(Event::End);
        }
        let line = format!("250 2.0.0 {} octets received", message.chunk_octets);
        self.say(&line, out);
        None
    }

    pub(super) fn swallow_step(&mut self, left: u64, input: &mut BytesMut) -> Option<Step> {
        let octets = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        input.advance(octets);
        self.moved |= octets > 0;
        match left - octets as u64 {
            0 => {
                self.state = State::Command;
                None
            }
            left => {
                self.state = State::Swallow(left);
                Some(Step::Read)
            }
        }
    }

    /// Replies, and the transaction is over: to each recipient at the end of an LMTP message (RFC 2033 section 4.2), else once.
    fn end_message(&mut self, answer: MessageAnswer, out: &mut Vec<u8>) {
        let lmtp = self.config.protocol == Protocol::Lmtp;
        let each = lmtp && self.message.as_ref().is_some_and(|message| message.text.is_last());
        let recipients = self.transaction.as_ref().map_or(1, |transaction| transaction.recipients.len());
        let replies = match answer {
            MessageAnswer::All(reply) => vec![reply; if each { recipients } else { 1 }],
            MessageAnswer::Each(mut replies) => {
                replies.resize_with(if each { recipients } else { 1 }, no_answer);
                replies
            }
        };
        self.end_transaction();
        self.state = State::Command;
        self.moved = true;
        for reply in &replies {
            write_reply(reply, out);
        }
        if replies.iter().any(|reply| reply.class() == Class::Success) {
            self.counts.errors = 0;
            self.counts.commands = 0;
        } else if let Some(reply) = replies.first() {
            self.count_refusal(reply);
        }
        self.end_if(replies.iter().any(|reply| reply.code == 421));
        self.check_limits(out);
    }
}

fn reply_to_fault(reason: Reason) -> Option<Reply> {
    match reason {
        Reason::LineEnds => Some(Reply::enhanced(550, 5, 5, 2, "lines end with CRLF; no bare CR, bare LF or NUL")),
        Reason::LineTooLong => Some(Reply::enhanced(554, 5, 6, 0, "message has a line that is too long")),
        Reason::TooLarge => Some(Reply::enhanced(552, 5, 3, 4, "message is too large")),
        Reason::Reset | Reason::Closed => None,
    }
}
