//! S4, and the parts of S8 and S10 that come by SNI.

use testkit::smtp::Client;

use crate::documents;
use crate::kit::{Raw, accepted, site, still_works};

#[test]
fn s4_what_follows_starttls_in_the_clear_closes_and_state_is_reset_by_the_handshake() {
    let auth =
        documents::listener_mx("auth: { optional: true, allowWithoutTls: true }\n").replace("name: mx", "name: auth");
    let site = site(&[documents::listener_mx(""), auth].concat(), "");
    let posthouse = site.start();
    let address = posthouse.address("mx");
    for injected in ["RSET\r\nMAIL FROM:<x@y>\r\n", "NOOP\r\n", "\r\n", "x", "\x16\x03\x01"] {
        let mut client = Raw::hello(address);
        client.send(format!("STARTTLS\r\n{injected}"));
        client.expect("554 5.5.1");
        client.expect("closed");
    }
    // Behind the 220, before the handshake: it is no TLS, and none of it is a command.
    let mut client = Raw::hello(address);
    client.check("STARTTLS", "220");
    client.send("EHLO x\r\nMAIL FROM:<x@y.z>\r\nRCPT TO:<alice@example.org>\r\n");
    let said = client.rest();
    assert!(!said.windows(4).any(|window| window == b"250 " || window == b"250-"), "{}", said.escape_ascii());
    // Not inside a transaction, and never twice.
    let mut client = Raw::hello(address);
    client.check("STARTTLS x", "501");
    client.check("MAIL FROM:<x@y.z>", "250");
    client.check("STARTTLS", "503 5.5.1");
    // HELO, MAIL and AUTH are forgotten.
    let mut client = Client::connect(address);
    client.say("EHLO before.test", 250);
    let (mut client, _) = client.start_tls("localhost");
    client.say("MAIL FROM:<x@y.z>", 503);
    client.say("EHLO after.test", 250);
    client.say("STARTTLS", 503);
    let mut client = Client::connect(posthouse.address("auth"));
    client.say("EHLO before.test", 250);
    assert_eq!(client.auth_plain("alice@example.org", documents::PASSWORD).code, 235);
    let (mut client, _) = client.start_tls("localhost");
    let hello = client.say("EHLO after.test", 250).text();
    assert!(hello.contains("AUTH PLAIN"), "nobody is logged in: {hello}");
    client.say("MAIL FROM:<alice@example.org>", 250);
    client.say("RCPT TO:<x@world.test>", 550);
    assert_eq!(accepted(&posthouse), 0);
}

/// A ClientHello of TLS 1.2 whose server name is these octets.
fn client_hello(name: &[u8]) -> Vec<u8> {
    let with_length = |octets: &[u8]| [&u16::try_from(octets.len()).unwrap().to_be_bytes(), octets].concat();
    let server_name = [&[0][..], &with_length(name)].concat();
    let extensions = [
        [&[0, 0][..], &with_length(&with_length(&server_name))].concat(),
        // Groups, signature algorithms, versions: enough to be taken seriously.
        [&[0, 10][..], &with_length(&with_length(&[0, 29, 0, 23]))].concat(),
        [&[0, 13][..], &with_length(&with_length(&[4, 3, 8, 4, 4, 1]))].concat(),
        [&[0, 43][..], &with_length(&[2, 3, 3])].concat(),
    ]
    .concat();
    let hello = [
        &[3, 3][..],
        &[7; 32],
        &[0],
        &with_length(&[0xc0, 0x2b, 0xc0, 0x2f, 0xc0, 0x2c, 0xc0, 0x30]),
        &[1, 0],
        &with_length(&extensions),
    ]
    .concat();
    let length = u32::try_from(hello.len()).unwrap().to_be_bytes();
    let handshake = [&[1][..], &length[1..], &hello].concat();
    [&[0x16, 3, 1][..], &with_length(&handshake)].concat()
}

#[test]
fn s8_and_s10_a_server_name_is_no_place_for_anything_else() {
    let implicit =
        documents::listener_mx("").replace("name: mx", "name: tls").replace("mode: opportunistic", "mode: implicit");
    let site = site(&[documents::listener_mx(""), implicit].concat(), "");
    let posthouse = site.start();
    let names: [&[u8]; 9] = [
        b"mx.example.org",
        b"mx.example.org\\\0",
        b"\\\0",
        b"a|b",
        b"a\nb",
        b"a\0b",
        b"",
        &[b'x'; 5000],
        b"../../etc/passwd",
    ];
    for name in names {
        let mut client = Raw::connect(posthouse.address("tls"));
        client.send(client_hello(name));
        client.send([0x15, 3, 3, 0, 2, 2, 0]);
        // A ServerHello or an alert, and the end: nothing in the clear, nobody falls over.
        let said = client.rest();
        assert!(said.is_empty() || matches!(said[0], 0x15 | 0x16), "{}: {}", name.escape_ascii(), said.escape_ascii());
    }
    assert_eq!(posthouse.metric("posthouse_task_panics_total", &[]), 0.0);
    still_works(&site, &posthouse, "mx", "after-names");
    assert!(!posthouse.log().contains("a\nb"));
}
