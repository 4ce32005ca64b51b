//! One transaction: which commands are on their way, and what is known of each recipient.

use std::collections::VecDeque;

use types::{Class, Reply};

use super::session::PIPELINED_COMMANDS_MAX;
use super::{Answer, Body, Envelope, Extensions, Protocol, Stage, command};

/// A command that is waited for or still to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Rset,
    Mail,
    Rcpt(usize),
    Data,
    /// The dot of a text that nobody is left for.
    EmptyEnd,
}

/// What a reply meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// For the next reply.
    Waiting,
    /// For the reply to DATA.
    WaitingForData,
    /// The peer takes the text now.
    Text,
    /// The peer takes the text, but nobody is left: the dot must follow.
    NobodyLeft,
    /// Every recipient has its answer.
    Over,
    /// As `Over`, and the peer closes the session (421).
    Ended,
    /// The code has no meaning here.
    OutOfOrder { stage: Stage, code: u16 },
}

#[derive(Debug)]
pub(super) struct Transaction {
    envelope: Envelope,
    offered: Extensions,
    protocol: Protocol,
    unsent: VecDeque<Command>,
    on_their_way: VecDeque<Command>,
    answers: Vec<Option<Answer>>,
    /// Recipients that were accepted and have no answer yet, in the order of RCPT: LMTP answers them in this order.
    accepted: VecDeque<usize>,
    /// MAIL was refused: what follows is answered by 503 and means nothing.
    mail_refused: bool,
    data_sent: bool,
    text_taken: bool,
    sent_anything: bool,
}

impl Transaction {
    /// Recipients that cannot be served over this session have their answers at once.
    pub(super) fn new(envelope: Envelope, offered: &Extensions, protocol: Protocol, dirty: bool) -> Self {
        let answers = refuse(&envelope, offered);
        let mut unsent = VecDeque::with_capacity(envelope.recipients.len() + 3);
        if dirty {
            unsent.push_back(Command::Rset);
        }
        unsent.push_back(Command::Mail);
        unsent.extend(answers.iter().enumerate().filter(|(_, a)| a.is_none()).map(|(i, _)| Command::Rcpt(i)));
        unsent.push_back(Command::Data);
        if answers.iter().all(Option::is_some) {
            unsent.clear();
        }
        Self {
            envelope,
            offered: offered.clone(),
            protocol,
            unsent,
            on_their_way: VecDeque::new(),
            answers,
            accepted: VecDeque::new(),
            mail_refused: false,
            data_sent: false,
            text_taken: false,
            sent_anything: false,
        }
    }

    /// Appends the commands that may be sent now.
    pub(super) fn send_more(&mut self, out: &mut Vec<u8>) {
        let window = if self.offered.pipelining { PIPELINED_COMMANDS_MAX } else { 1 };
        while self.on_their_way.len() < window {
            let Some(next) = self.unsent.pop_front() else { return };
            match next {
                Command::Rset => out.extend_from_slice(b"RSET\r\n"),
                Command::Mail => command::mail(&self.envelope, &self.offered, self.protocol, out),
                Command::Rcpt(i) => command::rcpt(&self.envelope.recipients[i], &self.offered, self.protocol, out),
                Command::Data => {
                    self.data_sent = true;
                    out.extend_from_slice(b"DATA\r\n");
                }
                Command::EmptyEnd => {}
            }
            self.sent_anything = true;
            self.on_their_way.push_back(next);
        }
    }

    /// What the next reply is for.
    pub(super) fn stage(&self) -> Stage {
        match self.on_their_way.front() {
            Some(Command::Rset | Command::Mail) | None => Stage::Mail,
            Some(Command::Rcpt(_)) => Stage::Rcpt,
            Some(Command::Data) => Stage::Data,
            Some(Command::EmptyEnd) => Stage::End,
        }
    }

    /// Nothing is on its way and nothing will be.
    pub(super) fn is_over(&self) -> bool {
        self.on_their_way.is_empty() && self.unsent.is_empty() && !self.text_taken
    }

    /// The peer may still hold a sender and recipients.
    pub(super) fn leaves_the_peer_dirty(&self) -> bool {
        self.sent_anything && !self.text_taken
    }

    /// Takes the reply to the oldest command on its way.
    pub(super) fn take(&mut self, reply: Reply) -> Progress {
        let stage = self.stage();
        let Some(command) = self.on_their_way.pop_front() else {
            return Progress::OutOfOrder { stage, code: reply.code };
        };
        // RFC 5321 section 3.8: 421 may answer any command, and ends the session.
        if reply.code == 421 {
            let answer = Answer::peer(reply, stage);
            self.answer_all(&answer);
            return Progress::Ended;
        }
        match command {
            Command::Rset if reply.class() != Class::Success => {
                return Progress::OutOfOrder { stage, code: reply.code };
            }
            Command::Rset => {}
            Command::Mail => return self.take_mail(reply),
            Command::Rcpt(i) => return self.take_rcpt(i, reply),
            Command::Data => return self.take_data(reply),
            Command::EmptyEnd => {
                self.text_taken = true;
                return Progress::Over;
            }
        }
        self.progress()
    }

    fn take_mail(&mut self, reply: Reply) -> Progress {
        match reply.code {
            200..=299 => {}
            code @ 300..=399 => return Progress::OutOfOrder { stage: Stage::Mail, code },
            _ => {
                self.mail_refused = true;
                self.unsent.clear();
                let answer = Answer::peer(reply, Stage::Mail);
                self.answer_all(&answer);
            }
        }
        self.progress()
    }

    fn take_rcpt(&mut self, i: usize, reply: Reply) -> Progress {
        match reply.code {
            _ if self.mail_refused => {}
            200..=299 => self.accepted.push_back(i),
            code @ 300..=399 => return Progress::OutOfOrder { stage: Stage::Rcpt, code },
            _ => self.answers[i] = Some(Answer::peer(reply, Stage::Rcpt)),
        }
        self.progress()
    }

    fn take_data(&mut self, reply: Reply) -> Progress {
        match reply.code {
            354 if self.accepted.is_empty() => {
                self.on_their_way.push_back(Command::EmptyEnd);
                Progress::NobodyLeft
            }
            354 => {
                self.text_taken = true;
                Progress::Text
            }
            code @ 200..=399 => Progress::OutOfOrder { stage: Stage::Data, code },
            _ => {
                let answer = Answer::peer(reply, Stage::Data);
                self.answer_all(&answer);
                Progress::Over
            }
        }
    }

    fn progress(&mut self) -> Progress {
        // Without anybody to send to, DATA need not be asked for.
        let nobody = self.accepted.is_empty() && !self.unsent.iter().any(|c| matches!(c, Command::Rcpt(_)));
        let waits = self.on_their_way.iter().any(|c| matches!(c, Command::Mail | Command::Rset | Command::Rcpt(_)));
        if nobody && !waits && !self.data_sent {
            self.unsent.clear();
        }
        match self.on_their_way.front() {
            None if self.unsent.is_empty() => Progress::Over,
            Some(Command::Data) => Progress::WaitingForData,
            _ => Progress::Waiting,
        }
    }

    /// Takes one reply after the final dot. True: that was the last one.
    pub(super) fn take_end(&mut self, answer: Answer) -> bool {
        match self.protocol {
            Protocol::Smtp => {
                self.answer_all(&answer);
                true
            }
            // RFC 2033 section 4.2: one reply for each accepted RCPT, in their order.
            Protocol::Lmtp => {
                if let Some(i) = self.accepted.pop_front() {
                    self.answers[i] = Some(answer);
                }
                self.accepted.is_empty()
            }
        }
    }

    fn answer_all(&mut self, answer: &Answer) {
        for slot in self.answers.iter_mut().filter(|slot| slot.is_none()) {
            *slot = Some(answer.clone());
        }
        self.accepted.clear();
    }

    /// The answers in the order of the recipients; `missing` stands in where there is none.
    pub(super) fn into_answers(mut self, missing: &Answer) -> Vec<Answer> {
        self.answer_all(missing);
        self.answers.into_iter().flatten().collect()
    }
}

/// The answers of recipients that this session cannot serve.
fn refuse(envelope: &Envelope, offered: &Extensions) -> Vec<Option<Answer>> {
    let utf8 = || {
        Answer::ours(Reply::enhanced(553, 5, 6, 7, "the next host does not offer SMTPUTF8, which the message needs"))
    };
    let whole = if envelope.body == Body::Binary {
        Some(Answer::ours(Reply::enhanced(554, 5, 6, 3, "a binary message cannot be converted for the next host")))
    } else if envelope.body == Body::EightBit && !offered.eight_bit_mime {
        Some(Answer::ours(Reply::enhanced(
            554,
            5,
            6,
            3,
            "the next host does not offer 8BITMIME, which the message needs",
        )))
    } else if envelope.smtp_utf8 && !offered.smtp_utf8 {
        Some(utf8())
    } else if let Some(limit) = offered.size.filter(|limit| *limit > 0 && *limit < envelope.size) {
        let text = format!("the message has {} octets, the next host takes at most {limit}", envelope.size);
        Some(Answer::ours(Reply::enhanced(552, 5, 3, 4, text)))
    } else if !offered.smtp_utf8 && envelope.sender.as_ref().is_some_and(|sender| !sender.is_ascii()) {
        Some(utf8())
    } else {
        None
    };
    let one = |ascii: bool| whole.clone().or_else(|| (!ascii && !offered.smtp_utf8).then(utf8));
    envelope.recipients.iter().map(|recipient| one(recipient.address.is_ascii())).collect()
}
