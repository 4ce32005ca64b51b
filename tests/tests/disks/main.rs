//! Disks that lose, fill up, break and lie; and rows that are damaged.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "what goes wrong in a test fails the test, with its reason"
)]

mod broken;
mod full;
mod power;
mod rows;

use posthouse_tests::ledger::{Answer, Sending};
use posthouse_tests::letter;
use posthouse_tests::smtp::{Dialogue, dot_stuffed};
use posthouse_tests::stage::Stage;

/// Hands one message of the ledger in and returns the reply to its end of data, or to what was refused before. What came
/// of it is written down.
fn hand_in(stage: &Stage, bytes: usize) -> String {
    let recipients = vec!["u0@example.org".to_owned()];
    let id = stage.ledger.new_id();
    let text = letter::write(id, bytes, "alone@client.test", &recipients);
    let mut dialogue = Dialogue::connect(stage.mx()).unwrap();
    dialogue.reply().unwrap();
    let mut reply = dialogue.say("EHLO client.test").unwrap();
    for line in ["MAIL FROM:<alone@client.test>", "RCPT TO:<u0@example.org>", "DATA"] {
        if reply.is_positive() {
            reply = dialogue.say(line).unwrap();
        }
    }
    if reply.code == 354 {
        dialogue.send(&dot_stuffed(&text)).unwrap();
        reply = dialogue.reply().unwrap();
    }
    let answer = match (reply.code, reply.text.strip_prefix("2.0.0 queued as ")) {
        (250, Some(id)) => Answer::Accepted(id.to_owned()),
        (code, _) => Answer::Deferred(code),
    };
    stage.ledger.records().sendings.push(Sending { id, recipients, answer });
    format!("{} {}", reply.code, reply.text)
}
