//! S1 and S2: what ends a message, on the way in and on the way out.
//!
//! S2 by HTTP injection does not apply yet: there is no HTTP injection. DKIM does not either: nothing is signed yet.

use std::time::Duration;

use testkit::eventually;

use crate::documents;
use crate::kit::{Raw, Script, Scripted, accepted, mail_of, relay_site, site, texts};

const FALSE_ENDS: [&str; 8] =
    ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\n.\r", "\r\n.\r\r\n", "\r\n\0.\r\n"];

/// A text with a false end in it, and what looks like a second message behind that.
fn smuggling(marker: &str) -> Vec<u8> {
    format!("A: b\r\n\r\n1{marker}MAIL FROM:<x@y.z>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nA: c\r\n\r\n2\r\n.\r\n")
        .into_bytes()
}

/// Sends a message in two parts and expects one answer that begins like this, and a session that is in its place.
#[track_caller]
fn one_answer(client: &mut Raw, whole: &[u8], split: usize, expected: &str) {
    client.begin("carol@elsewhere.test", "alice@example.org");
    client.send(&whole[..split]);
    if split > 0 && split < whole.len() {
        // Long enough for the other side to have read the first part, mostly.
        std::thread::sleep(Duration::from_micros(500));
    }
    client.send(&whole[split..]);
    client.send(b"NOOP\r\n");
    let reply = client.reply();
    assert!(reply.starts_with(expected), "{} split at {split}: {reply}", whole.escape_ascii());
    let after = client.reply();
    assert!(after.starts_with("250 2.0.0 ok"), "{} split at {split}: {after}", whole.escape_ascii());
}

/// Every marker, whole and split at every byte, on a session each; how many messages were sent.
fn every_way(address: std::net::SocketAddr, expected: &str) -> usize {
    std::thread::scope(|scope| {
        let sessions = FALSE_ENDS.map(|marker| {
            scope.spawn(move || {
                let whole = smuggling(marker);
                let mut client = Raw::hello(address);
                for split in 0..whole.len() {
                    one_answer(&mut client, &whole, split, expected);
                }
                whole.len()
            })
        });
        sessions.into_iter().map(|session| session.join().unwrap()).sum()
    })
}

#[test]
fn s1_smuggling_inbound_is_refused_whole_and_split_at_every_byte() {
    let site = site(&documents::listener_mx("limits: { errorsMax: 100000 }\n"), "");
    let posthouse = site.start();
    every_way(posthouse.address("mx"), "550 5.5.2");
    assert_eq!(accepted(&posthouse), 0);
    assert!(site.queued().is_empty());
    assert!(mail_of(&site, "alice").is_empty() && mail_of(&site, "bob").is_empty());
}

#[test]
fn s1_smuggling_inbound_is_one_message_where_line_ends_are_normalised() {
    let site = site(&documents::listener_mx("lineEnds: normalise\n"), "");
    let posthouse = site.start();
    let sent = every_way(posthouse.address("mx"), "250 2.0.0 queued as");
    assert_eq!(accepted(&posthouse), sent, "one message for one end of data, never two");
    let some = eventually("mail", || mail_of(&site, "alice").pop());
    assert!(some.contains("RCPT TO:<bob@example.org>") && some.ends_with("2\n"), "what was smuggled is text: {some}");
    assert!(mail_of(&site, "bob").is_empty());
}

#[test]
fn s2_smuggling_outbound_leaves_as_one_message_with_clean_line_ends() {
    let peer = Scripted::start(Script { ehlo: b"451 4.3.2 not now".to_vec(), ..Script::default() });
    let site = relay_site(peer.address(), "");
    let mut posthouse = site.start();
    // Taken by a listener that normalises, and by the sendmail command.
    let bodies =
        ["a\nb", "a\rb", "a\n.\nMAIL FROM:<x@y.z>", "a\n.\r\nMAIL FROM:<x@y.z>", "a\r.\rMAIL", "a\r\n.\rMAIL", "a\r"];
    let mut client = Raw::hello(posthouse.address("local"));
    for body in bodies {
        client.begin("carol@elsewhere.test", "dave@world.test");
        client.send(format!("Subject: s\r\n\r\n{body}\r\n.\r\n"));
        client.expect("250 2.0.0 queued as");
    }
    let state = site.state();
    let sent = site.cli_with_input(
        &["sendmail", "--state", state.to_str().unwrap(), "-i", "dave@world.test"],
        b"Subject: s\n\na\n.\nMAIL FROM:<x@y.z>\nb\r.\rc",
    );
    assert!(sent.status.success(), "{sent:?}");
    // In the store, as if something had damaged it: the same length, other octets.
    let evil = "a\n.\nMAIL FROM:<x@y.z>\r.\rb\r\n.\nc\rdd";
    let stored = format!("{}\r\n", "x".repeat(evil.len() - 2));
    client.begin("carol@elsewhere.test", "dave@world.test");
    client.send(format!("Subject: stored\r\n\r\n{stored}.\r\n"));
    client.expect("250 2.0.0 queued as");
    posthouse.kill();
    let hex: String = evil.bytes().map(|byte| format!("{byte:02x}")).collect();
    crate::spool::sqlite(&site, &format!("update bodies set body = x'{hex}' where length(body) = {};", stored.len()));
    peer.play(Script::default());
    let before = peer.seen().len();
    let _posthouse = site.start();
    let messages = bodies.len() + 2;
    eventually("the messages at the peer", || (peer.messages() >= messages).then_some(()));
    site.wait_until_empty();
    assert_eq!(peer.messages(), messages, "never one more");
    let mut found = 0;
    for octets in &peer.seen()[before..] {
        for (at, byte) in octets.iter().enumerate() {
            match byte {
                b'\n' => assert!(at > 0 && octets[at - 1] == b'\r', "a bare LF: {}", octets.escape_ascii()),
                b'\r' => assert_eq!(octets.get(at + 1), Some(&b'\n'), "a bare CR: {}", octets.escape_ascii()),
                _ => {}
            }
        }
        for text in texts(octets) {
            found += 1;
            let text = String::from_utf8(text).unwrap();
            assert!(!text.split("\r\n").any(|line| line == "."), "a dot is stuffed: {text}");
        }
    }
    assert_eq!(found, messages);
}
