//! `cargo xtask bench memory`: resident memory under load, with idle connections, and with large messages on all
//! connections at once.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use socket2::{Domain, Socket, Type};

use super::accept::cells::{Cell, Mode};
use super::accept::group::Group;
use super::accept::load::{Sink, send};
use super::common::{Results, Running, Site, Target, binary, need_space, peak_rss, reset_peak_rss, rss, wait_for};

const MIB: f64 = (1 << 20) as f64;
const LOAD: Cell = Cell { size_kib: 10, connections: 100, mode: Mode::Keep };
const LOAD_MESSAGES: u64 = 50_000;
const IDLE_CONNECTIONS: usize = 10_000;
/// `sessionsPerSourceMax` of the listener: so many connections come from one address of 127.0.0.0/8.
const PER_SOURCE: usize = 100;
const LARGE_BYTES: usize = 25 << 20;
/// What the platform wants left, what its log takes, and what others write meanwhile.
const SPARE_BYTES: u64 = 2 << 30;
/// A reply that takes longer than this does not come.
const REPLY_TIMEOUT: Duration = Duration::from_secs(600);

/// How it is measured.
#[derive(Args)]
pub struct Options {
    /// Connections that each send a message of 25 MiB at once; the long form is 500
    #[arg(long, default_value_t = 100, value_name = "N")]
    connections: usize,
    /// Messages of 10 KiB of the load
    #[arg(long, default_value_t = LOAD_MESSAGES, value_name = "N")]
    messages: u64,
    /// Measures this binary instead of building one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Writes the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Each figure from a platform that was started for it.
pub fn run(options: &Options) -> Result<()> {
    let large = (options.connections * LARGE_BYTES) as u64;
    need_space(&std::env::temp_dir(), large + large / 4 + SPARE_BYTES)?;
    let folder = Site::new("memory-binary")?;
    let binary = binary(options.binary.as_deref(), folder.path())?;
    let mut results = Results::new("memory");
    under_load(&binary, options.messages, &mut results)?;
    idle(&binary, &mut results)?;
    large_messages(&binary, options.connections, &mut results)?;
    results.note(
        "VmHWM and VmRSS of the release build, each figure from a platform of its own. Load: `smtp-source -d` into \
         Posthouse into `smtp-sink`. Idle: every connection has said EHLO. Large: all connections send at once as fast as they \
         are let; the next hop is down, so the mail stays in the queue.",
    );
    results.finish(options.json.as_deref())
}

/// Everything from this host goes to one next hop.
fn site(name: &str, next_hop: u16) -> Result<Site> {
    let site = Site::new(name)?;
    let policy = "[{ name: on, match: { source: 127.0.0.0/8 }, action: { relay: { transport: next } } }]";
    let text = [
        ("MailPlatform", "main", "{ hostname: mx.bench.test, postmaster: p@bench.test, relayTransport: next, policyRef: all, admin: { address: \"127.0.0.1:0\" } }".to_owned()),
        ("MailListener", "mx", "{ protocol: smtp, address: 127.0.0.1, port: 0, tls: { mode: \"off\" }, limits: { messagesMax: 0 } }".to_owned()),
        ("MailTransport", "next", format!("{{ relay: {{ hosts: [\"127.0.0.1:{next_hop}\"], tls: {{ mode: \"off\" }} }} }}")),
        ("MailTransport", "boxes", "{ maildir: { path: \"mail/%d/%n\" } }".to_owned()),
        ("MailDomain", "bench", "{ domain: bench.test, delivery: { transport: boxes } }".to_owned()),
        ("MailUser", "p", "{ address: p@bench.test }".to_owned()),
        ("MailPolicy", "all", format!("{{ rules: {policy} }}")),
    ];
    let document = |(kind, name, spec): (&str, &str, String)| {
        format!("---\napiVersion: posthouse.dev/v1alpha1\nkind: {kind}\nmetadata: {{ name: {name} }}\nspec: {spec}\n")
    };
    site.write("site.yaml", &text.map(document).concat())?;
    Ok(site)
}

fn under_load(binary: &Path, messages: u64, results: &mut Results) -> Result<()> {
    let group = Group::new("memory");
    let sink = Sink::start(&group)?;
    let site = site("load", sink.port)?;
    let (running, _) = site.start(binary)?;
    send(&group, &LOAD, messages, running.address("mx")?.port())?;
    sink.wait_for(messages)?;
    let what = format!("100 connections, {messages} messages of 10 KiB: peak");
    results.add("rss_load_peak_mib", what, peak_rss(running.pid())? as f64 / MIB, "MiB", Target::AtMost(80.0));
    running.stop()
}

fn idle(binary: &Path, results: &mut Results) -> Result<()> {
    let site = site("idle", 1)?;
    let (running, _) = site.start(binary)?;
    let address = running.address("mx")?;
    let before = rss(running.pid())?;
    let mut connections = Vec::with_capacity(IDLE_CONNECTIONS);
    for n in 0..IDLE_CONNECTIONS {
        let mut client = connect(n, address)?;
        expect(&mut client, "220")?;
        client.write_all(b"EHLO client.bench.test\r\n")?;
        expect(&mut client, "250")?;
        connections.push(client);
    }
    let open = wait_for("all sessions", Duration::from_secs(30), || {
        let open = running.metric("posthouse_sessions", &["listener=\"mx\""]);
        (open >= IDLE_CONNECTIONS as f64).then_some(open)
    })?;
    ensure!(open as usize == IDLE_CONNECTIONS, "{open} sessions are open");
    let after = rss(running.pid())?;
    let peak = peak_rss(running.pid())?;
    let what = "10,000 idle connections without TLS: resident";
    results.add("rss_idle_10000_mib", what, after.max(peak) as f64 / MIB, "MiB", Target::AtMost(200.0));
    let each = after.saturating_sub(before) as f64 / IDLE_CONNECTIONS as f64 / 1024.0;
    results.add("idle_kib_per_connection", "one idle connection", each, "KiB", Target::None);
    drop(connections);
    running.stop()
}

/// The n-th client, from an address that is not over its bound.
pub fn connect(n: usize, address: SocketAddr) -> Result<TcpStream> {
    let host = u32::try_from(n / PER_SOURCE)? + 1;
    let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 1, 0)) + host);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect(&address.into()).with_context(|| format!("client {n} from {source}"))?;
    socket.set_tcp_nodelay(true)?;
    socket.set_read_timeout(Some(REPLY_TIMEOUT))?;
    Ok(socket.into())
}

/// Reads one reply, which must begin so.
pub fn expect(client: &mut TcpStream, code: &str) -> Result<String> {
    let reply = reply(client)?;
    ensure!(reply.starts_with(code), "{code} was expected, but the platform said {reply:?}");
    Ok(reply)
}

fn reply(client: &mut TcpStream) -> Result<String> {
    let mut text = String::new();
    let mut buffer = [0; 1024];
    while !is_whole(&text) {
        let read = client.read(&mut buffer)?;
        ensure!(read > 0, "the connection was closed after {text:?}");
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    Ok(text)
}

/// RFC 5321 section 4.2.1: the last line has a blank behind its code.
fn is_whole(reply: &str) -> bool {
    let last = reply.strip_suffix("\r\n").map(|text| text.rsplit("\r\n").next().unwrap_or(text));
    last.is_some_and(|line| line.as_bytes().get(3).is_none_or(|byte| *byte == b' '))
}

/// What became of the large messages.
#[derive(Debug, Default)]
struct Replies {
    taken: AtomicUsize,
    refused: AtomicUsize,
    lost: AtomicUsize,
}

fn large_messages(binary: &Path, connections: usize, results: &mut Results) -> Result<()> {
    // Nobody listens there: the mail stays, and nothing is read back for a delivery.
    let site = site("large", 1)?;
    let (running, _) = site.start(binary)?;
    let address = running.address("mx")?;
    reset_peak_rss(running.pid())?;
    let replies = send_all(address, connections, &running)?;
    let peak = peak_rss(running.pid())? as f64 / MIB;
    let what = format!("{connections} connections sending 25 MiB each at once: peak");
    results.add("rss_large_peak_mib", what, peak, "MiB", Target::AtMost(400.0));
    let refused = replies.refused.into_inner() + replies.lost.into_inner();
    let what = format!("of these {connections} messages: not answered 250");
    results.add("large_refused", what, refused as f64, "", Target::AtMost(0.0));
    results.add("large_taken", "of these: answered 250", replies.taken.into_inner() as f64, "", Target::None);
    running.stop()
}

fn send_all(address: SocketAddr, connections: usize, running: &Running) -> Result<Replies> {
    let replies = Arc::new(Replies::default());
    let text: Arc<Vec<u8>> = Arc::new(message());
    let together = Arc::new(Barrier::new(connections));
    let mut clients = Vec::with_capacity(connections);
    for n in 0..connections {
        let (replies, text, together) = (Arc::clone(&replies), Arc::clone(&text), Arc::clone(&together));
        let client = move || {
            let begun = begin(n, address);
            // Nobody waits for one that failed.
            together.wait();
            let answer = begun.and_then(|mut client| {
                client.write_all(&text)?;
                reply(&mut client)
            });
            match answer {
                Ok(answer) if answer.starts_with("250") => replies.taken.fetch_add(1, Ordering::Relaxed),
                Ok(answer) => {
                    println!("client {n}: {}", answer.trim_end());
                    replies.refused.fetch_add(1, Ordering::Relaxed)
                }
                Err(error) => {
                    println!("client {n}: {error:#}");
                    replies.lost.fetch_add(1, Ordering::Relaxed)
                }
            };
        };
        clients.push(std::thread::Builder::new().stack_size(256 << 10).spawn(client)?);
    }
    for client in clients {
        if client.join().is_err() {
            bail!("a client ended in a panic");
        }
    }
    ensure!(running.get("/livez").is_some_and(|(status, _)| status == 200), "the platform is not alive any more");
    Arc::into_inner(replies).context("all clients have ended")
}

fn begin(n: usize, address: SocketAddr) -> Result<TcpStream> {
    let mut client = connect(n, address)?;
    expect(&mut client, "220")?;
    for (command, code) in [
        ("EHLO client.bench.test\r\n", "250"),
        ("MAIL FROM:<a@src.test>\r\n", "250"),
        ("RCPT TO:<b@dst.test>\r\n", "250"),
        ("DATA\r\n", "354"),
    ] {
        client.write_all(command.as_bytes())?;
        expect(&mut client, code)?;
    }
    Ok(client)
}

/// 25 MiB in lines of 78 octets, and the end of data.
fn message() -> Vec<u8> {
    let mut text = b"From: a@src.test\r\nTo: b@dst.test\r\nSubject: large\r\n\r\n".to_vec();
    let mut line = [b'x'; 78];
    line[76..].copy_from_slice(b"\r\n");
    while text.len() + line.len() <= LARGE_BYTES {
        text.extend_from_slice(&line);
    }
    text.extend_from_slice(b".\r\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_whole_with_its_last_line() {
        for (text, expected) in [
            ("250 ok\r\n", true),
            ("250-a\r\n250 b\r\n", true),
            ("250-a\r\n", false),
            ("250-a\r\n250", false),
            ("", false),
            ("250\r\n", true),
        ] {
            assert_eq!(is_whole(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_large_message_has_its_size_and_one_end() {
        let text = message();
        assert!(text.len() <= LARGE_BYTES + 3 && text.len() > LARGE_BYTES - 100);
        assert!(text.ends_with(b"x\r\n.\r\n"));
    }
}
