//! S21: clients that are slow, many, or greedy.

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::documents;
use crate::kit::{Raw, rss_kib, site, still_works};

#[allow(clippy::disallowed_methods, reason = "a test measures real time")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn s21_a_byte_now_and_then_meets_the_deadline_of_each_state() {
    let limits =
        "limits: { commandTimeout: 1s, dataTimeout: 1s, sessionTimeout: 4s, handshakeTimeout: 1s, proxyTimeout: 1s }\n";
    let auth = "auth: { optional: true, allowWithoutTls: true }\n";
    let plain = documents::listener_mx(&format!("{limits}{auth}"));
    let implicit = documents::listener_mx(limits)
        .replace("name: mx", "name: tls")
        .replace("mode: opportunistic", "mode: implicit");
    let identity = format!("{limits}clientIdentity: {{ mode: proxyProtocol, trusted: [127.0.0.0/8] }}\n");
    let proxied = documents::listener_mx(&identity).replace("name: mx", "name: proxied");
    let site = site(&[plain, implicit, proxied].concat(), "");
    let posthouse = site.start();
    // Listener, what is said at once line by line, what drips, how it ends.
    let cases: &[(&str, &[&str], &[u8], &str)] = &[
        ("mx", &[], b"", "421 4.4.2"),
        ("mx", &[], b"EHLO very.slow.client.example.test with much to say ", "421 4.4.2"),
        ("mx", &["EHLO c"], b"MAIL FROM:<aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "421 4.4.2"),
        ("mx", &["EHLO c", "MAIL FROM:<a@b.test>"], b"RCPT TO:<aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "421 4.4.2"),
        ("mx", &["EHLO c", "AUTH PLAIN"], b"AGEAc2VjcmV0AGEAc2VjcmV0AGEAc2VjcmV0AGEAc2VjcmV0", "421 4.4.2"),
        ("mx", &["EHLO c", "MAIL FROM:<a@b.test>", "RCPT TO:<alice@example.org>", "DATA"], b"", "421 4.4.2"),
        // A byte in time prolongs the wait for more text, and the session ends all the same.
        (
            "mx",
            &["EHLO c", "MAIL FROM:<a@b.test>", "RCPT TO:<alice@example.org>", "DATA"],
            b"Subject: ssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssss",
            "421 4.4.2",
        ),
        (
            "mx",
            &["EHLO c", "MAIL FROM:<a@b.test>", "RCPT TO:<alice@example.org>"],
            b"BDAT 100\r\nSubject: sssssssssssssssssssssssssssssssssssssssssssssssssssssssssss",
            "421 4.4.2",
        ),
        ("mx", &["EHLO c", "STARTTLS"], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "closed"),
        ("tls", &[], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "closed"),
        ("tls", &[], b"", "closed"),
        ("proxied", &[], b"PROXY TCP4 192.0.2.7 127.0.0.1 5555 25", "closed"),
    ];
    std::thread::scope(|scope| {
        for (listener, lines, drip, end) in cases {
            let address = posthouse.address(listener);
            scope.spawn(move || {
                let start = now();
                let mut client = Raw::connect(address);
                if *listener == "mx" {
                    client.expect("220 ");
                }
                for line in *lines {
                    let reply = client.say(line);
                    assert!(matches!(reply.as_bytes()[0], b'2' | b'3'), "{line}: {reply}");
                }
                for byte in *drip {
                    // The last of them may come behind the close.
                    if !client.send([*byte]) {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(120));
                    if start.elapsed() > Duration::from_secs(6) {
                        break;
                    }
                }
                let said = String::from_utf8_lossy(&client.rest()).into_owned();
                let took = start.elapsed();
                let ended = if *end == "closed" {
                    said.is_empty()
                } else {
                    said.contains(end) || said.is_empty() && !drip.is_empty()
                };
                assert!(ended, "{listener}, {lines:?}, {}: {said:?}", drip.escape_ascii());
                assert!(took < Duration::from_secs(20), "{listener}, {lines:?}: {took:?}");
            });
        }
    });
    let sessions = || posthouse.metric("posthouse_sessions", &[]);
    testkit::eventually("no session to be left", || (sessions() == 0.0).then_some(()));
    still_works(&site, &posthouse, "mx", "after-slow");
}

#[test]
fn s21_ten_thousand_idle_connections_leave_room_for_mail() {
    const IDLE: usize = 10_000;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let files = limit.maximum.unwrap_or(u64::MAX);
    assert!(files >= 12_000, "this test wants 12,000 open files (ulimit -Hn), there are {files}");
    let limits = "limits: { sessionsMax: 11000, sessionsPerSourceMax: 11000 }\n";
    let capped = documents::listener_mx("limits: { sessionsMax: 60, sessionsPerSourceMax: 50 }\n")
        .replace("name: mx", "name: capped");
    let site = site(&[documents::listener_mx(limits), capped].concat(), "");
    let posthouse = site.start();
    let address = posthouse.address("mx");
    let warm: Vec<_> = (0..100).map(|_| Raw::greeted(address)).collect();
    let before = rss_kib(&posthouse);
    let idle: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| scope.spawn(move || (0..IDLE / 4).map(|_| Raw::greeted(address)).collect::<Vec<_>>()))
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let grown = rss_kib(&posthouse).saturating_sub(before);
    println!("{} idle sessions: {grown} KiB", idle.len());
    assert!(grown < 200 << 10, "{grown} KiB for {} idle sessions", idle.len());
    still_works(&site, &posthouse, "mx", "between-the-idle");
    // Caps: of a source, and of all.
    let mut held: Vec<_> = (0..50).map(|_| Raw::greeted(posthouse.address("capped"))).collect();
    let mut refused = Raw::connect(posthouse.address("capped"));
    refused.expect("421 4.7.0");
    refused.expect("closed");
    held.pop();
    drop(refused);
    testkit::eventually("a place", || {
        let mut again = Raw::connect(posthouse.address("capped"));
        again.reply().starts_with("220 ").then_some(())
    });
    drop((idle, warm, held));
    testkit::eventually("the sessions to end", || (posthouse.metric("posthouse_sessions", &[]) == 0.0).then_some(()));
}

#[test]
fn s21_a_million_recipients_in_one_session_are_answered_or_ended_in_flat_memory() {
    const RECIPIENTS: usize = 1_000_000;
    let patient = documents::listener_mx("limits: { errorsMax: 10000000, recipientsMax: 100 }\n")
        .replace("name: mx", "name: patient");
    let site = site(&[documents::listener_mx(""), patient].concat(), "");
    let posthouse = site.start();
    let line = b"RCPT TO:<alice@example.org>\r\n";
    let block = line.repeat(1000);
    for (listener, ends) in [("mx", true), ("patient", false)] {
        let address = posthouse.address(listener);
        let mut client = std::net::TcpStream::connect(address).unwrap();
        let mut input = std::io::BufReader::new(client.try_clone().unwrap());
        let mut said = String::new();
        for (line, end) in [("", "220 "), ("EHLO c\r\n", "250 "), ("MAIL FROM:<a@b.test>\r\n", "250 ")] {
            std::io::Write::write_all(&mut client, line.as_bytes()).unwrap();
            while {
                said.clear();
                std::io::BufRead::read_line(&mut input, &mut said).unwrap();
                !said.starts_with(end)
            } {}
        }
        let before = rss_kib(&posthouse);
        let block = &block;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for _ in 0..RECIPIENTS / 1000 {
                    if std::io::Write::write_all(&mut client, block).is_err() {
                        return;
                    }
                }
                let _ = client.shutdown(std::net::Shutdown::Write);
            });
            let (mut taken, mut refused, mut last, mut most) = (0, 0, String::new(), 0);
            let mut reply = String::new();
            loop {
                reply.clear();
                // A close with input unread may cut the last replies off.
                if !matches!(std::io::BufRead::read_line(&mut input, &mut reply), Ok(1..)) {
                    break;
                }
                match reply.get(..5) {
                    Some("250 2") if reply.contains("recipient") => taken += 1,
                    Some("452 4") => refused += 1,
                    _ => last.clone_from(&reply),
                }
                if (taken + refused) % 100_000 == 0 {
                    most = most.max(rss_kib(&posthouse));
                }
            }
            let grown = most.saturating_sub(before);
            println!("{listener}: {taken} taken, {refused} refused, {grown} KiB, then {last}");
            assert!(grown < 16 << 10, "{listener}: {grown} KiB");
            if ends {
                assert!(taken <= 1000 && refused <= 1100, "{listener}: {taken} and {refused}");
            } else {
                assert_eq!((taken, refused), (100, RECIPIENTS - 100), "{listener}: {last}");
            }
        });
    }
    still_works(&site, &posthouse, "mx", "after-a-million");
}

#[test]
fn s21_who_speaks_first_or_speaks_http_is_closed() {
    let delayed = documents::listener_mx("");
    let site = site(&delayed, "");
    let posthouse = site.start();
    let address = posthouse.address("mx");
    for first in [
        "GET / HTTP/1.1\r\nHost: mx\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 30\r\n\r\nMAIL FROM:<a@b.test>\r\n",
        "CONNECT mx:25 HTTP/1.1\r\n\r\n",
        "HEAD / HTTP/1.0\r\n\r\n",
        "PUT / HTTP/1.1\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "get / http/1.1\r\n\r\n",
    ] {
        let mut client = Raw::greeted(address);
        client.send(first);
        let said = String::from_utf8_lossy(&client.rest()).into_owned();
        assert!(said.is_empty() || said.starts_with("554 5.5.1") && said.lines().count() == 1, "{first:?}: {said}");
    }
    // Early: before the greeting was written it is refused; a client that was greeted meanwhile spoke in its turn.
    let mut refused = 0;
    for _ in 0..50 {
        let mut early = Raw::connect(address);
        early.send("EHLO early.test\r\n");
        match early.reply() {
            reply if reply.starts_with("554 5.5.0") => refused += 1,
            reply if reply.starts_with("220 ") => {
                let next = early.reply();
                assert!(next.starts_with("250") || next.starts_with("554 5.5.0"), "{next}");
            }
            reply => panic!("{reply}"),
        }
    }
    println!("{refused} of 50 were caught");
    // TLS to a port that speaks in the clear first.
    let mut client = Raw::greeted(address);
    client.send([&b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03\r\n"[..], b"NOOP\r\n"].concat());
    client.expect("500");
    still_works(&site, &posthouse, "mx", "after-http");
}
