//! A client that says anything and expects nothing, a server that answers anything, and the sites they meet at.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use testkit::posthouse::{Posthouse, Site};

use crate::documents;

/// How long an answer may take before it counts as none.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a connection is made of.
trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// One connection. A peer that closes is an answer, not a fault.
pub struct Raw {
    stream: Box<dyn Stream>,
    held: Vec<u8>,
}

impl Raw {
    /// Connects and reads nothing.
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the listener takes connections");
        Self::over(stream)
    }

    /// Takes a connection that was made.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream: Box::new(stream), held: Vec::new() }
    }

    /// Connects to a Unix socket and reads nothing.
    pub fn unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("the socket takes connections");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream: Box::new(stream), held: Vec::new() }
    }

    /// Connects, reads the greeting, says EHLO.
    #[track_caller]
    pub fn hello(address: SocketAddr) -> Self {
        let mut raw = Self::greeted(address);
        raw.check("EHLO client.test", "250");
        raw
    }

    /// Connects and reads the greeting.
    #[track_caller]
    pub fn greeted(address: SocketAddr) -> Self {
        let mut raw = Self::connect(address);
        let greeting = raw.reply();
        assert!(greeting.starts_with("220 "), "{greeting}");
        raw
    }

    /// Sends bytes; false where the peer is gone.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).and_then(|()| self.stream.flush()).is_ok()
    }

    /// Reads one reply, all its lines joined by LF; `closed` at the end of the connection.
    pub fn reply(&mut self) -> String {
        let mut lines = Vec::new();
        loop {
            let Some(line) = self.line() else { return "closed".to_owned() };
            let more = line.as_bytes().get(3) == Some(&b'-');
            lines.push(line);
            if !more {
                return lines.join("\n");
            }
        }
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.held.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.held.drain(..=end).collect();
                return Some(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if !self.read_more() {
                return None;
            }
        }
    }

    fn read_more(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(octets) => {
                self.held.extend_from_slice(&buffer[..octets]);
                true
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("no answer and no end of the connection: the peer hangs")
            }
            Err(_) => false,
        }
    }

    /// Everything until the connection ends.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.read_more() {}
        std::mem::take(&mut self.held)
    }

    /// Sends a line and reads a reply.
    pub fn say(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n"));
        self.reply()
    }

    /// Sends a line and checks how its reply begins.
    #[track_caller]
    pub fn check(&mut self, line: &str, expected: &str) -> String {
        let reply = self.say(line);
        assert!(reply.starts_with(expected), "{:.200}: {reply:.300}, not {expected}", line.escape_debug().to_string());
        reply
    }

    /// Reads a reply and checks how it begins.
    #[track_caller]
    pub fn expect(&mut self, expected: &str) -> String {
        let reply = self.reply();
        assert!(reply.starts_with(expected), "{reply:.300}, not {expected}");
        reply
    }

    /// Everything up to 354.
    #[track_caller]
    pub fn begin(&mut self, sender: &str, recipient: &str) {
        self.check(&format!("MAIL FROM:<{sender}>"), "250");
        self.check(&format!("RCPT TO:<{recipient}>"), "250");
        self.check("DATA", "354");
    }

    /// A whole message that is accepted; its id.
    #[track_caller]
    pub fn deliver(&mut self, sender: &str, recipient: &str, text: &str) -> String {
        self.begin(sender, recipient);
        self.send(testkit::smtp::dot_stuffed(text));
        let reply = self.expect("250 2.0.0 queued as ");
        reply["250 2.0.0 queued as ".len()..].to_owned()
    }
}

/// One text of the honest kind.
pub fn text(subject: &str) -> String {
    documents::message("bob@elsewhere.test", "alice@example.org", subject)
}

/// Alice and bob with maildirs; `listeners` are further documents, `platform` lines of the MailPlatform.
pub fn site(listeners: &str, platform: &str) -> Site {
    let text = [
        documents::platform(platform),
        listeners.to_owned(),
        documents::domain("disk", ""),
        documents::user("alice", ""),
        documents::user("bob", ""),
        documents::transport("disk", "maildir: { path: mail/%n }\n"),
    ];
    Site::new().with("site.yaml", &text.concat())
}

/// What local programs send to other domains goes to `peer`, quickly again where it is deferred; alice and bob have maildirs.
pub fn relay_site(peer: SocketAddr, more: &str) -> Site {
    let local =
        documents::listener_mx("loopbackIsLocal: true\nlineEnds: normalise\n").replace("name: mx", "name: local");
    let text = [
        documents::listener_mx(""),
        local,
        documents::relay_policy("out"),
        documents::smart_host("out", peer, &format!("{}{more}", documents::QUICK_RETRY)),
    ];
    site(&text.concat(), "policyRef: main\nrelayTransport: out\n")
}

/// The texts in a maildir.
pub fn mail_of(site: &Site, user: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(site.state().join("mail").join(user).join("new")) else { return Vec::new() };
    entries
        .filter_map(|entry| Some(String::from_utf8_lossy(&std::fs::read(entry.ok()?.path()).ok()?).into_owned()))
        .collect()
}

/// A message is taken and arrives: the platform lives.
#[track_caller]
pub fn still_works(site: &Site, posthouse: &Posthouse, listener: &str, subject: &str) {
    let mut client = Raw::hello(posthouse.address(listener));
    client.deliver("carol@elsewhere.test", "alice@example.org", &text(subject));
    let wanted = format!("Subject: {subject}\n");
    testkit::eventually(subject, || mail_of(site, "alice").iter().any(|text| text.contains(&wanted)).then_some(()));
}

/// How many messages were accepted.
pub fn accepted(posthouse: &Posthouse) -> usize {
    posthouse.metric("posthouse_messages_total", &["result=\"accepted\""]) as usize
}

/// Resident memory in KiB.
pub fn rss_kib(posthouse: &Posthouse) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", posthouse.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What a scripted server says; each part without its last CRLF.
#[derive(Clone)]
pub struct Script {
    pub ehlo: Vec<u8>,
    /// Said to STARTTLS; then nothing is said any more.
    pub starttls: Vec<u8>,
    pub rcpt: Vec<u8>,
    /// Said at the end of the data.
    pub end: Vec<u8>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            ehlo: b"250-peer.test\r\n250-PIPELINING\r\n250 8BITMIME".to_vec(),
            starttls: b"502 5.5.1 no".to_vec(),
            rcpt: b"250 2.1.5 ok".to_vec(),
            end: b"250 2.0.0 taken".to_vec(),
        }
    }
}

/// A server that follows its script and keeps every octet that it was sent.
pub struct Scripted {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
    messages: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
}

impl Scripted {
    /// On loopback.
    pub fn start(script: Script) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let peer = Self {
            address: listener.local_addr().unwrap(),
            script: Arc::new(Mutex::new(script)),
            seen: Arc::default(),
            messages: Arc::default(),
            ends: Arc::default(),
        };
        let (script, seen, messages, ends) =
            (Arc::clone(&peer.script), Arc::clone(&peer.seen), Arc::clone(&peer.messages), Arc::clone(&peer.ends));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { return };
                let number = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(Vec::new());
                    seen.len() - 1
                };
                let (script, seen, messages) = (Arc::clone(&script), Arc::clone(&seen), Arc::clone(&messages));
                // A client that hangs up has said what it had to say.
                thread::spawn(move || converse(stream, &script, &seen, number, &messages).ok());
            }
        });
        peer
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From the next command on.
    pub fn play(&self, script: Script) {
        *self.script.lock().unwrap() = script;
    }

    /// The octets of every connection so far.
    pub fn seen(&self) -> Vec<Vec<u8>> {
        self.seen.lock().unwrap().clone()
    }

    /// How many ends of data it has answered.
    pub fn messages(&self) -> usize {
        self.messages.load(Ordering::Relaxed)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

fn converse(
    mut stream: TcpStream,
    script: &Mutex<Script>,
    seen: &Mutex<Vec<Vec<u8>>>,
    number: usize,
    messages: &AtomicUsize,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(b"220 peer.test\r\n")?;
    let (mut held, mut in_data, mut silent) = (Vec::new(), false, false);
    let mut buffer = [0; 16 << 10];
    loop {
        let end: &[u8] = if in_data { b"\r\n.\r\n" } else { b"\r\n" };
        let Some(at) = held.windows(end.len()).position(|window| window == end) else {
            let octets = stream.read(&mut buffer)?;
            if octets == 0 {
                return Ok(());
            }
            held.extend_from_slice(&buffer[..octets]);
            seen.lock().unwrap()[number].extend_from_slice(&buffer[..octets]);
            continue;
        };
        let line: Vec<u8> = held.drain(..at + end.len()).collect();
        if silent {
            continue;
        }
        let script = script.lock().unwrap().clone();
        let word = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let answer: &[u8] = match &word[..] {
            _ if in_data => {
                messages.fetch_add(1, Ordering::Relaxed);
                in_data = false;
                &script.end
            }
            b"EHLO" => &script.ehlo,
            b"STAR" => {
                silent = true;
                &script.starttls
            }
            b"RCPT" => &script.rcpt,
            b"DATA" if script.rcpt.starts_with(b"250") => {
                in_data = true;
                b"354 go on"
            }
            b"DATA" => b"503 5.5.1 no recipients",
            b"QUIT" => return stream.write_all(b"221 2.0.0 bye\r\n"),
            _ => b"250 2.0.0 ok",
        };
        stream.write_all(answer)?;
        stream.write_all(b"\r\n")?;
    }
}

/// What stands between DATA's CRLF and the end of data, of every message of a connection.
pub fn texts(octets: &[u8]) -> Vec<Vec<u8>> {
    let (mut texts, mut rest) = (Vec::new(), octets);
    let find = |hay: &[u8], needle: &[u8]| hay.windows(needle.len()).position(|window| window == needle);
    while let Some(at) = find(rest, b"DATA\r\n") {
        rest = &rest[at + 6..];
        let Some(end) = find(rest, b"\r\n.\r\n") else { break };
        texts.push(rest[..end + 2].to_vec());
        rest = &rest[end + 5..];
    }
    texts
}
