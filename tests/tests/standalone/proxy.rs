//! The PROXY protocol: who may say where a client comes from.

use testkit::posthouse::Site;
use testkit::smtp::{Client, queued_id};

use crate::documents::{self, message};

fn site(trusted: &str, more: &str) -> Site {
    let identity = format!("clientIdentity: {{ mode: proxyProtocol, trusted: [{trusted}] }}\n{more}");
    let rules = "rules:\n\
         \x20 - name: listed clients may relay\n\
         \x20   match: { source: 192.0.2.0/24 }\n\
         \x20   action: { relay: {} }\n\
         \x20 - include: default\n";
    let text = [
        documents::platform("policyRef: main\n"),
        documents::listener_mx(&identity),
        documents::domain("disk", ""),
        documents::user("alice", ""),
        documents::transport("disk", "maildir: { path: mail/%n }\n"),
        documents::document("MailPolicy", "main", rules),
    ];
    Site::new().with("site.yaml", &text.concat())
}

/// Version 2, TCP over IPv4.
fn version_2(source: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend(source);
    header.extend([127, 0, 0, 1, 0x30, 0x39, 0, 25]);
    header
}

#[test]
fn a_listed_proxy_says_where_the_client_comes_from() {
    let posthouse_site = site("127.0.0.0/8", "");
    let posthouse = posthouse_site.start();
    let cases: &[(&[u8], u16)] = &[
        (b"PROXY TCP4 192.0.2.7 127.0.0.1 5555 25\r\n", 250),
        (b"PROXY TCP4 198.51.100.7 127.0.0.1 5555 25\r\n", 550),
        (b"PROXY TCP6 2001:db8::7 ::1 5555 25\r\n", 550),
        (b"PROXY UNKNOWN\r\n", 550),
        (&version_2([192, 0, 2, 7]), 250),
        (&version_2([198, 51, 100, 7]), 550),
    ];
    for (header, code) in cases {
        let mut client = Client::connect_silently(posthouse.address("mx"));
        client.send(header);
        client.expect(220);
        client.say("EHLO elsewhere.test", 250);
        client.say("MAIL FROM:<bob@elsewhere.test>", 250);
        let reply = client.command("RCPT TO:<carol@world.test>");
        assert_eq!(reply.code, *code, "{}: {reply}", header.escape_ascii());
    }
    // The trace says so as well.
    let mut client = Client::connect_silently(posthouse.address("mx"));
    client.send(version_2([198, 51, 100, 7]));
    client.expect(220);
    client.say("EHLO elsewhere.test", 250);
    queued_id(&client.deliver(
        "bob@elsewhere.test",
        &["alice@example.org"],
        &message("b@e.test", "alice@example.org", "proxied"),
    ));
    let new = posthouse_site.state().join("mail/alice/new");
    let file = testkit::eventually("delivery", || std::fs::read_dir(&new).ok()?.next()?.ok());
    let text = std::fs::read_to_string(file.path()).unwrap();
    assert!(text.contains("[198.51.100.7]") && !text.contains("[127.0.0.1]"), "{text}");
}

#[test]
fn a_listed_proxy_without_or_with_a_broken_header_is_closed() {
    let site = site("127.0.0.0/8", "limits: { proxyTimeout: 1s }\n");
    let posthouse = site.start();
    for header in ["EHLO elsewhere.test\r\n", "PROXY TCP4 nonsense\r\n", ""] {
        let mut client = Client::connect_silently(posthouse.address("mx"));
        client.send(header);
        assert_eq!(client.read(), None, "{header:?}");
    }
}

#[test]
fn an_unlisted_peer_is_served_under_its_own_address_and_may_not_claim_another() {
    let site = site("198.51.100.0/24", "");
    let posthouse = site.start();
    let mut client = Client::connect(posthouse.address("mx"));
    client.say("EHLO elsewhere.test", 250);
    client.say("MAIL FROM:<bob@elsewhere.test>", 250);
    client.say("RCPT TO:<carol@world.test>", 550);
    for header in [b"PROXY TCP4 192.0.2.7 127.0.0.1 5555 25\r\n".to_vec(), version_2([192, 0, 2, 7])] {
        let mut client = Client::connect_silently(posthouse.address("mx"));
        client.send(&header);
        // It may have been greeted before its header came; nothing else is said to it.
        let last = client.read().map_or(0, |reply| reply.code);
        assert!(matches!(last, 0 | 220 | 421 | 554), "{last}");
        if last == 220 {
            assert!(client.read().is_none_or(|reply| matches!(reply.code, 421 | 554)));
        }
        assert_eq!(client.read(), None);
    }
}
