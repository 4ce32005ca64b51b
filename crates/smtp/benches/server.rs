//! The server's session from MAIL to the end of the text, in reads as a socket gives them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench")]
#![allow(clippy::disallowed_methods, reason = "a session is told the time")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use smtp::server::{
    AuthOffer, Event, LineEnds, MessageAnswer, Protocol, Session, SessionConfig, SessionLimits, Step, TlsOffer,
};
use types::{Domain, Reply};

/// Octets of one read.
const READ_OCTETS: usize = 64 << 10;
/// Octets of the message.
const MESSAGE_OCTETS: usize = 1 << 20;

fn main() {
    divan::main();
}

fn session(now: Instant) -> Session {
    let limits = SessionLimits {
        messages_max: 0,
        message_max_bytes: 0,
        session_timeout: Duration::from_secs(1 << 30),
        ..SessionLimits::default()
    };
    let config = SessionConfig {
        hostname: Domain::parse("mx.example.org").unwrap(),
        protocol: Protocol::Smtp,
        tls: TlsOffer::Off,
        auth: AuthOffer { offered: false, required: false, without_tls: false },
        line_ends: LineEnds::Refuse,
        limits,
    };
    Session::new(Arc::new(config), now)
}

/// Feeds what is said and answers what is asked; counts the octets of text that come out.
fn drive(session: &mut Session, input: &mut BytesMut, out: &mut Vec<u8>, now: Instant) -> usize {
    let mut octets = 0;
    loop {
        match session.advance(input, out, now) {
            Step::Read => return octets,
            Step::Event(Event::Envelope { recipients, .. }) => {
                session.answer_envelope(recipients.iter().map(|_| Ok(())).collect(), out);
            }
            Step::Event(Event::Chunk(chunk)) => octets += black_box(chunk).len(),
            Step::Event(Event::Begin) => {}
            Step::Event(Event::End) => {
                session.answer_message(MessageAnswer::All(Reply::enhanced(250, 2, 0, 0, "taken")), out, now);
            }
            other => panic!("{other:?}: {}", String::from_utf8_lossy(out)),
        }
    }
}

fn envelope() -> &'static [u8] {
    b"MAIL FROM:<a@src.test>\r\nRCPT TO:<b@dst.test>\r\nDATA\r\n"
}

fn message(line: &[u8]) -> Vec<u8> {
    let mut text = b"From: a@src.test\r\nTo: b@dst.test\r\nSubject: bench\r\n\r\n".to_vec();
    while text.len() < MESSAGE_OCTETS {
        text.extend_from_slice(line);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b".\r\n");
    text
}

/// One message through a session; making the reads' buffers is not measured.
fn through_data(bencher: Bencher<'_, '_>, line: &[u8]) {
    let now = Instant::now();
    let text = message(line);
    let mut session = session(now);
    let mut out = Vec::new();
    session.greet(&mut out);
    out.clear();
    drive(&mut session, &mut BytesMut::from(&b"EHLO client.test\r\n"[..]), &mut out, now);
    let reads = || -> Vec<BytesMut> {
        let first = std::iter::once(BytesMut::from(envelope()));
        first.chain(text.chunks(READ_OCTETS).map(BytesMut::from)).collect()
    };
    bencher.counter(BytesCount::new(text.len())).with_inputs(reads).bench_local_values(|reads| {
        let mut input = BytesMut::new();
        let mut octets = 0;
        for read in reads {
            // What was left of the read before stands in front of this one, as in a socket's buffer.
            if input.is_empty() {
                input = read;
            } else {
                input.extend_from_slice(&read);
            }
            octets += drive(&mut session, &mut input, &mut out, now);
        }
        assert!(out.ends_with(b"250 2.0.0 taken\r\n"), "{}", String::from_utf8_lossy(&out));
        out.clear();
        octets
    });
}

/// As smtp-source sends it: full lines.
#[divan::bench]
fn data_text(bencher: Bencher) {
    through_data(bencher, &[b'X'; 78]);
}

/// Every line of usual length begins with a dot that is to be taken off.
#[divan::bench]
fn data_dots(bencher: Bencher) {
    let mut line = [b'X'; 78];
    line[..2].fill(b'.');
    through_data(bencher, &line);
}

/// The worst there is: nothing but lines of one dot.
#[divan::bench]
fn data_only_dots(bencher: Bencher) {
    through_data(bencher, b"..");
}

/// EHLO to the 250 of a small message: what the commands cost.
#[divan::bench]
fn session_of_one_small_message(bencher: Bencher) {
    let now = Instant::now();
    let said = [&b"EHLO client.test\r\n"[..], envelope(), b"Subject: x\r\n\r\nx\r\n.\r\n"];
    bencher.bench_local(|| {
        let mut session = session(now);
        let mut out = Vec::new();
        session.greet(&mut out);
        out.clear();
        let octets: usize =
            said.iter().map(|text| drive(&mut session, &mut BytesMut::from(*text), &mut out, now)).sum();
        black_box((octets, out))
    });
}
