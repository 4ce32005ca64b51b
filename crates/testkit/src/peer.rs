//! An SMTP server that misbehaves exactly as the test says, and keeps what it was given.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// What the peer does with one transaction, or with one connection; when the list is at its end it does [`Act::Accept`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Takes every message.
    Accept,
    /// Answers this instead of 220, and closes.
    Greeting(&'static str),
    /// Answers MAIL with this.
    Mail(&'static str),
    /// Answers every RCPT with this.
    Recipients(&'static str),
    /// Answers the end of data with this.
    Data(&'static str),
    /// Never answers the end of data.
    Hang,
    /// Reads the end of data and closes without an answer.
    DropAfterData,
}

/// A message as the peer got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Argument of MAIL, as in `FROM:<a@b> SIZE=3`.
    pub mail: String,
    /// Arguments of the accepted RCPTs.
    pub recipients: Vec<String>,
    /// Dot-unstuffed, CRLF line ends.
    pub text: String,
}

/// The peer; ends when dropped.
pub struct Peer {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    connections: Arc<Mutex<usize>>,
    ends: Arc<AtomicBool>,
}

impl Peer {
    /// On a loopback address with port 0.
    pub fn start(acts: &[Act]) -> Self {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0)), acts)
    }

    /// On this address.
    pub fn start_on(address: SocketAddr, acts: &[Act]) -> Self {
        let listener = TcpListener::bind(address).expect("the peer binds");
        let address = listener.local_addr().expect("the peer has an address");
        let peer = Self { address, received: Arc::default(), connections: Arc::default(), ends: Arc::default() };
        let (received, connections, ends) =
            (Arc::clone(&peer.received), Arc::clone(&peer.connections), Arc::clone(&peer.ends));
        let acts: Acts = Arc::new(Mutex::new(acts.iter().cloned().collect()));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { return };
                *connections.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                let (acts, received) = (Arc::clone(&acts), Arc::clone(&received));
                // A peer that is hung up on has nothing left to do.
                thread::spawn(move || serve(&stream, &acts, &received).ok());
            }
        });
        peer
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has accepted so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many connections it has had.
    pub fn connections(&self) -> usize {
        *self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `n` messages and returns them.
    #[track_caller]
    pub fn wait_for(&self, n: usize) -> Vec<Received> {
        crate::eventually(&format!("{n} messages at the peer"), || {
            let received = self.received();
            (received.len() >= n).then_some(received)
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // Wakes the accept call.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

type Acts = Arc<Mutex<VecDeque<Act>>>;

fn next_act(acts: &Acts, fits: impl Fn(&Act) -> bool) -> Option<Act> {
    let mut acts = acts.lock().unwrap_or_else(PoisonError::into_inner);
    acts.pop_front_if(|act| fits(act))
}

fn serve(stream: &TcpStream, acts: &Acts, received: &Mutex<Vec<Received>>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut out = stream;
    let mut input = BufReader::new(stream);
    if let Some(Act::Greeting(reply)) = next_act(acts, |act| matches!(act, Act::Greeting(_))) {
        return write!(out, "{reply}\r\n");
    }
    let mut act = Act::Accept;
    write!(out, "220 peer.test ESMTP\r\n")?;
    let mut message = Received { mail: String::new(), recipients: Vec::new(), text: String::new() };
    let mut line = String::new();
    loop {
        line.clear();
        if input.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let command = line.trim_end().to_owned();
        match command.get(..4).unwrap_or_default().to_ascii_uppercase().as_str() {
            "EHLO" | "LHLO" => {
                write!(out, "250-peer.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 100000000\r\n")?
            }
            "HELO" | "RSET" | "NOOP" => write!(out, "250 2.0.0 ok\r\n")?,
            "MAIL" => {
                act = next_act(acts, |act| !matches!(act, Act::Greeting(_))).unwrap_or(Act::Accept);
                message = Received { mail: command[5..].to_owned(), recipients: Vec::new(), text: String::new() };
                write!(out, "{}\r\n", if let Act::Mail(reply) = &act { reply } else { "250 2.1.0 ok" })?;
            }
            "RCPT" => match &act {
                Act::Recipients(reply) => write!(out, "{reply}\r\n")?,
                Act::Mail(_) => write!(out, "503 5.5.1 no transaction\r\n")?,
                _ => {
                    message.recipients.push(command[5..].to_owned());
                    write!(out, "250 2.1.5 ok\r\n")?;
                }
            },
            "DATA" if message.recipients.is_empty() => write!(out, "503 5.5.1 no recipients\r\n")?,
            "DATA" => {
                write!(out, "354 go on\r\n")?;
                message.text = read_text(&mut input)?;
                match &act {
                    Act::Data(reply) => write!(out, "{reply}\r\n")?,
                    Act::Hang => {
                        // Until the client gives up.
                        let mut rest = String::new();
                        while input.read_line(&mut rest)? > 0 {}
                        return Ok(());
                    }
                    Act::DropAfterData => return Ok(()),
                    _ => {
                        received.lock().unwrap_or_else(PoisonError::into_inner).push(message.clone());
                        write!(out, "250 2.0.0 taken\r\n")?;
                    }
                }
            }
            "QUIT" => return write!(out, "221 2.0.0 bye\r\n"),
            _ => write!(out, "502 5.5.1 what?\r\n")?,
        }
    }
}

fn read_text(input: &mut impl BufRead) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    loop {
        let mut line = Vec::new();
        if input.read_until(b'\n', &mut line)? == 0 || line == b".\r\n" {
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        assert!(line.ends_with(b"\r\n"), "no bare LF leaves: {line:?}");
        bytes.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}
