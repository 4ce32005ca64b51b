//! S27: the doors of the administrator and of local programs.

use std::io::Write;
use std::net::SocketAddr;

use testkit::posthouse::{Posthouse, Site};

use crate::documents;
use crate::kit::{Raw, rss_kib, site, still_works};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header of HPACK that needs no tables.
fn header(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

/// A call to a method with this message, as a gRPC client sends it.
fn call(path: &str, message: &[u8]) -> Vec<u8> {
    let headers = [
        header(":method", "POST"),
        header(":scheme", "http"),
        header(":path", path),
        header(":authority", "admin"),
        header("content-type", "application/grpc"),
        header("te", "trailers"),
    ]
    .concat();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let body = [&[0], &length[..], message].concat();
    let mut out = [PREFACE, &frame(4, 0, 0, b""), &frame(1, 4, 1, &headers)].concat();
    let chunks: Vec<_> = body.chunks(16_000).collect();
    for (n, chunk) in chunks.iter().enumerate() {
        out.extend(frame(0, u8::from(n + 1 == chunks.len()), 1, chunk));
    }
    out
}

/// Groups of an unknown field within each other.
fn nested_groups(depth: usize) -> Vec<u8> {
    // Field 100, wire types 3 and 4.
    [[0xa3, 0x06].repeat(depth), [0xa4, 0x06].repeat(depth)].concat()
}

/// Fields with a length within each other.
fn nested_messages(depth: usize) -> Vec<u8> {
    let mut message = Vec::new();
    for _ in 0..depth {
        let mut length = message.len();
        let mut outer = vec![0x0a];
        while length >= 0x80 {
            outer.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.append(&mut message);
        message = outer;
    }
    message
}

fn garbage() -> Vec<Vec<u8>> {
    let noise: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let huge = call("/posthouse.queue.v1.Queue/List", &[])[..].to_vec();
    let mut lies = huge.clone();
    // A gRPC message that announces 4 GiB.
    lies.truncate(lies.len() - 14);
    lies.extend(frame(0, 1, 1, &[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]));
    vec![
        noise,
        b"GET /metrics HTTP/1.1\r\n".to_vec(),
        PREFACE[..10].to_vec(),
        PREFACE.to_vec(),
        [PREFACE, &frame(4, 0, 0, b"")[..5]].concat(),
        [PREFACE, &frame(4, 0, 0, b""), &[0xff, 0xff, 0xff, 1, 4, 0, 0, 0, 1]].concat(),
        [PREFACE, &frame(4, 0, 0, b""), &frame(1, 0, 1, &[0xff; 100])].concat(),
        [PREFACE, &frame(4, 0, 0, b""), &frame(9, 0, 1, b"x").repeat(1000)].concat(),
        [PREFACE, &frame(4, 0, 0, b""), &frame(6, 0, 0, b"12345678").repeat(10_000)].concat(),
        [PREFACE, &frame(4, 0, 0, b"").repeat(10_000)].concat(),
        // Streams that are opened and reset at once (CVE-2023-44487).
        {
            let headers = [
                header(":method", "POST"),
                header(":scheme", "http"),
                header(":path", "/x"),
                header(":authority", "a"),
            ]
            .concat();
            let storm = (0..20_000_u32)
                .flat_map(|n| [frame(1, 4, 2 * n + 1, &headers), frame(3, 0, 2 * n + 1, &[0, 0, 0, 8])].concat());
            [PREFACE, &frame(4, 0, 0, b"")].concat().into_iter().chain(storm).collect()
        },
        lies,
        call("/posthouse.queue.v1.Queue/List", &nested_groups(100_000)),
        call("/posthouse.queue.v1.Queue/Settle", &nested_messages(3000)),
        call("/posthouse.queue.v1.Queue/Accept", &nested_messages(3000)),
        call("/posthouse.queue.v1.Queue/Lease", &nested_groups(1000)),
        call("/posthouse.policy.v1.Policy/Envelope", &nested_messages(3000)),
        call("/posthouse.policy.v1.Policy/Explain", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        call("/posthouse.ingress.v1.Ingress/Watch", &[0xff; 1000]),
        call("/posthouse.nothing.v1.Nothing/Do", b""),
        call("/", b""),
    ]
}

fn throw(mut client: Raw, bytes: &[u8]) {
    // Whoever is garbled may be hung up on before the end.
    for chunk in bytes.chunks(4096) {
        if !client.send(chunk) {
            break;
        }
    }
    drop(client);
}

fn lives(site: &Site, posthouse: &Posthouse, subject: &str) {
    assert_eq!(posthouse.get("/livez").0, 200);
    let state = site.state();
    let listed = site.cli(&["queue", "list", "--json", "--state", state.to_str().unwrap()]);
    assert!(listed.status.success(), "the admin socket serves: {listed:?}");
    still_works(site, posthouse, "mx", subject);
    assert_eq!(posthouse.metric("posthouse_task_panics_total", &[]), 0.0, "nothing panicked");
}

#[test]
fn s27_garbage_and_half_frames_on_every_door_leave_the_process_alive() {
    let site = site(&documents::listener_mx(""), "");
    let posthouse = site.start();
    let admin_port: SocketAddr = {
        let text = std::fs::read_to_string(site.state().join("run/admin.json")).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value["address"].as_str().unwrap().parse().unwrap()
    };
    let (admin, sendmail) = (site.state().join("admin/admin.sock"), site.state().join("run/sendmail.sock"));
    lives(&site, &posthouse, "before");
    let before = rss_kib(&posthouse);
    for round in 0..2 {
        for bytes in garbage() {
            throw(Raw::unix(&admin), &bytes);
            throw(Raw::unix(&sendmail), &bytes);
            throw(Raw::connect(admin_port), &bytes);
            throw(Raw::connect(posthouse.address("mx")), &bytes);
        }
        lives(&site, &posthouse, &format!("round-{round}"));
    }
    // HTTP/1 of the admin port: headers without end, a line without end, bodies that never come.
    for request in [
        format!("GET /metrics HTTP/1.1\r\n{}", "X: y\r\n".repeat(100_000)),
        format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20)),
        "POST /metrics HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n".to_owned(),
        "POST /readyz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n".to_owned(),
        "GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_owned(),
    ] {
        throw(Raw::connect(admin_port), request.as_bytes());
    }
    lives(&site, &posthouse, "after-http");
    let grown = rss_kib(&posthouse).saturating_sub(before);
    println!("garbage: {grown} KiB");
    assert!(grown < 48 << 10, "{grown} KiB");
}

#[test]
fn s27_calls_that_are_no_messages_get_an_answer() {
    let site = site(&documents::listener_mx(""), "");
    let posthouse = site.start();
    let admin = site.state().join("admin/admin.sock");
    for (path, message) in [
        ("/posthouse.queue.v1.Queue/List", nested_groups(100_000)),
        ("/posthouse.policy.v1.Policy/Explain", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01".to_vec()),
        ("/posthouse.nothing.v1.Nothing/Do", Vec::new()),
    ] {
        let mut stream = std::os::unix::net::UnixStream::connect(&admin).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
        // It may be answered, and closed, before its end.
        let _ = stream.write_all(&call(path, &message));
        // A HEADERS frame for stream 1 that ends it holds the status.
        let (mut held, mut answered) = (Vec::new(), false);
        let mut buffer = [0; 4096];
        while !answered {
            let octets = std::io::Read::read(&mut stream, &mut buffer).unwrap_or(0);
            assert!(octets > 0, "{path}: no answer");
            held.extend_from_slice(&buffer[..octets]);
            while held.len() >= 9 {
                let length = usize::from(held[0]) << 16 | usize::from(held[1]) << 8 | usize::from(held[2]);
                if held.len() < 9 + length {
                    break;
                }
                answered |= (held[3] == 1 && held[4] & 1 == 1) || held[3] == 3 || held[3] == 7;
                held.drain(..9 + length);
            }
        }
    }
    lives(&site, &posthouse, "after-calls");
}
