//! S5 and S7: servers that we deliver to.
//!
//! S5: MTA-STS, DANE and TLSRPT do not exist yet; `tls: { mode: required }` of a transport is what forbids the clear. Its
//! stripping and injection are here.

use testkit::eventually;

use crate::kit::{Raw, Script, Scripted, mail_of, relay_site, rss_kib, text};

#[test]
fn s5_a_server_that_strips_starttls_or_talks_behind_it_gets_no_mail_in_the_clear() {
    let ehlo = |lines: &str| lines.as_bytes().to_vec();
    let with_tls = ehlo("250-peer.test\r\n250-STARTTLS\r\n250 8BITMIME");
    let cases = [
        Script { ehlo: ehlo("250-peer.test\r\n250 8BITMIME"), ..Script::default() },
        Script { ehlo: ehlo("250-peer.test\r\n250-XSTARTTLS\r\n250 STARTTLSX"), ..Script::default() },
        Script { ehlo: with_tls.clone(), starttls: b"454 4.7.0 not now".to_vec(), ..Script::default() },
        Script { ehlo: with_tls.clone(), starttls: b"220 go\r\n250 2.1.0 injected".to_vec(), ..Script::default() },
        Script {
            ehlo: with_tls.clone(),
            starttls: b"220 go\r\n250-peer.test\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n250 ok\r\n250 ok\r\n354 go"
                .to_vec(),
            ..Script::default()
        },
        Script { ehlo: with_tls, starttls: b"220 go".to_vec(), ..Script::default() },
    ];
    std::thread::scope(|scope| {
        for script in cases {
            scope.spawn(move || {
                let what = script.starttls.escape_ascii().to_string();
                let peer = Scripted::start(script);
                let site = relay_site(peer.address(), "limits: { attemptTimeout: 2s }\n");
                // The last `tls` of a document wins nothing: it is written once, so it is replaced.
                let path = site.documents().join("site.yaml");
                let documents = std::fs::read_to_string(&path).unwrap();
                let required = documents.replace("tls: { mode: off }", "tls: { mode: required, verify: none }");
                assert_ne!(documents, required);
                site.write("site.yaml", &required);
                let posthouse = site.start();
                let mut client = Raw::hello(posthouse.address("local"));
                client.deliver("alice@example.org", "dave@world.test", &text("secret"));
                eventually("two attempts", || {
                    (posthouse.metric("posthouse_deliveries_total", &["result=\"deferred\""]) >= 1.0).then_some(())
                });
                assert_eq!(site.queued().len(), 1, "{what}: it waits");
                assert_eq!(peer.messages(), 0, "{what}");
                for octets in peer.seen() {
                    for word in ["MAIL", "RCPT", "DATA", "AUTH", "Subject"] {
                        let found = octets.windows(word.len()).any(|window| window == word.as_bytes());
                        assert!(!found, "{what}: {word} in the clear: {}", octets.escape_ascii());
                    }
                }
            });
        }
    });
}

/// What a reply leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Delivered,
    Deferred,
    Failed,
}

#[test]
fn s7_a_reply_is_bounded_escaped_and_never_read_as_anything_else() {
    use Fate::{Deferred, Delivered, Failed};
    let long_line = [b"550 5.1.1 ".to_vec(), vec![b'x'; 1 << 20]].concat();
    let many_lines = [
        "550-5.1.1 xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n".repeat(16_000),
        "550 5.1.1 end".to_owned(),
    ]
    .concat()
    .into_bytes();
    let reply = |text: &[u8]| text.to_vec();
    // Said to RCPT; a fate of deferred means that nothing of it was believed.
    let cases: Vec<(Vec<u8>, &[Fate])> = vec![
        (reply(b"553-\r\n553\r\n"), &[Failed]),
        (reply(b"553-\r\n553 "), &[Failed]),
        (reply(b"250"), &[Delivered]),
        (reply(b"250-\r\n250"), &[Delivered]),
        (reply(b"550 5.1.1 a\x1b[2J\x07\x08b\x7f\xff\xfe"), &[Failed]),
        (reply(b"550 5.1.1 no\ntype: mda\nmda-exec: id"), &[Failed, Deferred]),
        (reply(b"550 5.1.1 no\r\ntype: mda"), &[Failed, Deferred]),
        (reply(b"999 what"), &[Deferred]),
        (reply(b"-1 what"), &[Deferred]),
        (reply(b"abc"), &[Deferred]),
        (reply(b"250-ok\r\n550 5.1.1 or not"), &[Deferred, Failed]),
        (reply(b""), &[Deferred]),
        (long_line, &[Deferred, Failed]),
        (many_lines, &[Deferred, Failed]),
    ];
    let peer = Scripted::start(Script::default());
    let site = relay_site(peer.address(), "limits: { attemptTimeout: 5s }\n");
    let posthouse = site.start();
    let before = rss_kib(&posthouse);
    let mut client = Raw::hello(posthouse.address("local"));
    for (rcpt, allowed) in cases {
        peer.play(Script { rcpt: rcpt.clone(), ehlo: b"250 peer.test".to_vec(), ..Script::default() });
        let count =
            |result: &str| posthouse.metric("posthouse_deliveries_total", &["transport=\"out\"", result]) as usize;
        let all = || [count("result=\"delivered\""), count("result=\"deferred\""), count("result=\"failed\"")];
        let was = all();
        // A dot-less sender at nobody's domain: the reports of this test go nowhere, those that matter are looked at below.
        let id = client.deliver("alice@example.org", "dave@world.test", &text("reply"));
        let shown = String::from_utf8_lossy(&rcpt[..rcpt.len().min(60)]).escape_debug().to_string();
        let fate = eventually(&format!("an attempt: {shown}"), || {
            let now = all();
            let fates = [Delivered, Deferred, Failed];
            (0..3).find(|n| now[*n] > was[*n]).map(|n| fates[n])
        });
        assert!(allowed.contains(&fate), "{shown}: {fate:?}");
        if fate == Deferred {
            let entry = site.queued().into_iter().find(|entry| entry.to_string().contains(&id)).expect("it waits");
            let said = entry.to_string();
            assert!(said.len() < 20_000, "{shown}: {} octets are kept", said.len());
            assert!(said.bytes().all(|byte| byte >= b' '), "{said}");
            let removed = site.cli(&["queue", "remove", "--state", site.state().to_str().unwrap(), &id]);
            assert!(removed.status.success(), "{removed:?}");
        }
    }
    let grown = rss_kib(&posthouse).saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB");
    for report in mail_of(&site, "alice") {
        assert!(report.len() < 64 << 10, "{} octets", report.len());
        for line in report.lines() {
            assert!(line.len() <= 998 && line.bytes().all(|byte| byte >= b' ' || byte == b'\t'), "{line:?}");
            assert!(!line.starts_with("type:") && !line.starts_with("mda-exec"), "{line}");
        }
    }
}
