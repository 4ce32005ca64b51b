//! One transaction over a session: envelope, text, answers.

use node::Clock;
use smtp::client::{self, Answer, AnsweredBy, Body, Protocol, Step, Trouble};
use types::Class;

use crate::connection::{Connection, is_before_anything};
use crate::job::{AttemptResult, BodySource, Context, Job, JobRecipient, Outcome};
use posthouse_proto::queue::v1::{BodyType, DsnReturn};

/// What goes over the wire: the same for every host that is tried.
pub(crate) struct Message<'a> {
    pub(crate) job: &'a Job,
    pub(crate) recipients: Vec<&'a JobRecipient>,
    pub(crate) protocol: Protocol,
    /// Fields that final delivery puts in front.
    pub(crate) prefix: String,
}

/// How a transaction ended.
pub(crate) enum Exchanged {
    /// Every recipient has a result. The session may rest.
    Answered(Vec<(u32, AttemptResult)>, Box<Connection>),
    /// A session that had rested was gone before it heard a word: nothing has happened.
    Stale,
}

impl Message<'_> {
    /// Runs the transaction. `rested`: the session was used before.
    pub(crate) async fn exchange(&self, context: &Context, mut connection: Connection, rested: bool) -> Exchanged {
        connection.begin(self.envelope());
        let limit = self.job.deadline;
        let answers = loop {
            match connection.next(limit).await {
                Step::SendText => {
                    if let Err(trouble) = self.send_text(context, &mut connection).await {
                        break connection.session.fail(&trouble);
                    }
                }
                Step::Done(answers) => {
                    let closing = !connection.session.is_reusable() && answers.iter().all(|a| a.reply.code == 421);
                    if rested && closing {
                        return Exchanged::Stale;
                    }
                    break answers;
                }
                Step::Close(trouble) => {
                    if rested && !connection.session.has_heard() && is_before_anything(&trouble) {
                        return Exchanged::Stale;
                    }
                    break connection.session.fail(&trouble);
                }
                Step::Read | Step::Ready | Step::StartTls => {
                    let text = "session is in disorder".to_owned();
                    break connection.session.fail(&Trouble::Shell { code: (5, 0), text });
                }
            }
        };
        let passes_dsn = connection.session.passes_dsn();
        let results = self.recipients.iter().zip(answers).map(|(recipient, answer)| {
            (recipient.number, to_result(&answer, &connection.remote, self.protocol, passes_dsn))
        });
        Exchanged::Answered(results.collect(), Box::new(connection))
    }

    /// All of a small message leaves in one write, with the final dot.
    async fn send_text(&self, context: &Context, connection: &mut Connection) -> Result<(), Trouble> {
        let limit = self.job.deadline;
        let mut goes_on = true;
        for part in [self.prefix.as_bytes(), &self.job.header, self.end_of_header()] {
            goes_on = goes_on && (part.is_empty() || connection.text(part, limit).await);
        }
        let mut body = self.job.body(context);
        while goes_on {
            // Without the whole text there is no final dot: the peer must not take half a message.
            let chunk = body.next().await.map_err(|error| Trouble::Shell { code: (3, 0), text: error.to_string() })?;
            let Some(chunk) = chunk else {
                connection.finish();
                node::fault::point("delivery.before-dot");
                break;
            };
            goes_on = connection.text(&chunk, limit).await;
        }
        Ok(())
    }

    fn end_of_header(&self) -> &'static [u8] {
        if self.job.header.is_empty() || self.job.header.ends_with(b"\n") { b"\r\n" } else { b"\r\n\r\n" }
    }

    fn envelope(&self) -> client::Envelope {
        let job = self.job;
        client::Envelope {
            sender: job.sender.clone(),
            size: job.body_size + (self.prefix.len() + job.header.len() + self.end_of_header().len()) as u64,
            body: body_of(job),
            // What was submitted with SMTPUTF8 needs it only where there is other than ASCII (RFC 6531 section 3.6);
            // addresses are looked at by the session.
            smtp_utf8: job.smtp_utf8 && !job.header.is_ascii(),
            ret: match job.ret {
                DsnReturn::Full => Some(client::Ret::Full),
                DsnReturn::Headers => Some(client::Ret::Headers),
                DsnReturn::Unspecified => None,
            },
            envid: (!job.envid.is_empty()).then(|| job.envid.clone()),
            recipients: self
                .recipients
                .iter()
                .map(|recipient| client::Recipient {
                    address: recipient.address.clone(),
                    orcpt: recipient.orcpt.clone(),
                    notify: recipient.notify,
                })
                .collect(),
        }
    }
}

/// What was declared 8-bit and is not, as far as that can be seen without reading it twice, goes everywhere.
fn body_of(job: &Job) -> Body {
    match (job.body_type, &job.body) {
        (BodyType::Binarymime, _) => Body::Binary,
        (BodyType::BodyType8bitmime, BodySource::Inline(body)) if body.is_ascii() && job.header.is_ascii() => {
            Body::SevenBit
        }
        (BodyType::BodyType8bitmime, _) => Body::EightBit,
        (BodyType::BodyType7bit | BodyType::Unspecified, _) => Body::SevenBit,
    }
}

fn to_result(answer: &Answer, remote: &str, protocol: Protocol, passes_dsn: bool) -> AttemptResult {
    let outcome = match answer.class {
        Class::Success => Outcome::Delivered {
            relayed: protocol == Protocol::Smtp && !passes_dsn,
            final_: protocol == Protocol::Lmtp,
        },
        Class::Transient => Outcome::Deferred,
        Class::Permanent => Outcome::Failed,
    };
    to_result_of(answer, outcome, remote)
}

/// The result of a host that could not be talked to.
pub(crate) fn trouble_result(trouble: &Trouble, remote: &str) -> AttemptResult {
    let answer = trouble.answer();
    let outcome = if answer.class == Class::Permanent { Outcome::Failed } else { Outcome::Deferred };
    to_result_of(&answer, outcome, remote)
}

fn to_result_of(answer: &Answer, outcome: Outcome, remote: &str) -> AttemptResult {
    let reply = &answer.reply;
    let enhanced = reply.enhanced.unwrap_or(types::EnhancedCode::new(4, 0, 0));
    match answer.by {
        AnsweredBy::Peer => AttemptResult {
            outcome,
            remote: remote.to_owned(),
            reply: format!("{} {enhanced} {}", reply.code, reply.text()).trim_end().to_owned(),
            enhanced,
        },
        AnsweredBy::Us => {
            AttemptResult { outcome, remote: String::new(), reply: format!("{} ({remote})", reply.text()), enhanced }
        }
    }
}

/// Whether the attempt has no time left.
pub(crate) fn is_late(job: &Job, clock: &Clock) -> bool {
    clock.instant() >= job.deadline
}
