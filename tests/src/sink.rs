//! The sink: an SMTP and LMTP server that takes everything and writes down what and when.
//!
//! Which process delivers is seen from the name in EHLO: the stage names each epoch.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::ledger::{Arrival, Bounce, Ledger, REFUSED_DOMAIN};
use crate::letter;
use crate::random::Random;

/// How the sink treats its client.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manners {
    /// How many times in a hundred a recipient is put off with 450, whenever it is named.
    pub greylist: u64,
    /// Wait before the reply to the end of data.
    pub delay: Duration,
}

/// A running sink; ends when dropped.
pub struct Sink {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    ledger: Arc<Ledger>,
    manners: Mutex<Manners>,
    ends: AtomicBool,
    arrived: AtomicU64,
    refused: Mutex<HashMap<String, u64>>,
}

impl Sink {
    /// On 127.0.0.1, some port; arrivals go into the ledger.
    pub fn start(ledger: &Arc<Ledger>, manners: Manners) -> Self {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).expect("the sink binds");
        let address = listener.local_addr().expect("it has an address");
        let shared = Arc::new(Shared {
            ledger: Arc::clone(ledger),
            manners: Mutex::new(manners),
            ends: AtomicBool::new(false),
            arrived: AtomicU64::new(0),
            refused: Mutex::default(),
        });
        let sink = Self { address, shared: Arc::clone(&shared) };
        thread::spawn(move || {
            for (n, stream) in (0_u64..).zip(listener.incoming()) {
                if shared.ends.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let shared = Arc::clone(&shared);
                // A client that is killed is what this is about.
                thread::spawn(move || Session::new(&shared, n).serve(&stream).ok());
            }
        });
        sink
    }

    /// Where it listens, for SMTP and LMTP alike.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes how it treats its clients.
    pub fn set_manners(&self, manners: Manners) {
        *self.shared.manners.lock().unwrap_or_else(PoisonError::into_inner) = manners;
    }

    /// Messages that it has answered 2xx, once for each transaction.
    pub fn arrived(&self) -> u64 {
        self.shared.arrived.load(Ordering::Relaxed)
    }

    /// How many times it has said 550 to somebody, by recipient.
    pub fn refused(&self) -> HashMap<String, u64> {
        self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        // Wakes the accept call.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

struct Session<'a> {
    shared: &'a Shared,
    random: Random,
    epoch: u64,
    lmtp: bool,
    null_sender: bool,
    recipients: Vec<String>,
}

impl<'a> Session<'a> {
    fn new(shared: &'a Shared, n: u64) -> Self {
        Self { shared, random: Random::new(n), epoch: 0, lmtp: false, null_sender: false, recipients: Vec::new() }
    }

    fn serve(mut self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut out = stream;
        let mut input = BufReader::with_capacity(64 << 10, stream);
        out.write_all(b"220 sink.test ESMTP\r\n")?;
        let mut replies = Vec::new();
        let mut line = String::new();
        loop {
            line.clear();
            if input.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let command = line.trim_end();
            let (verb, argument) = command.split_once([' ', ':']).unwrap_or((command, ""));
            match verb.to_ascii_uppercase().as_str() {
                "DATA" if self.recipients.is_empty() => replies.extend_from_slice(b"503 5.5.1 no recipients\r\n"),
                "DATA" => {
                    replies.extend_from_slice(b"354 go on\r\n");
                    out.write_all(&std::mem::take(&mut replies))?;
                    let text = read_text(&mut input)?;
                    self.take(&text, &mut replies);
                }
                "QUIT" => {
                    replies.extend_from_slice(b"221 2.0.0 bye\r\n");
                    return out.write_all(&replies);
                }
                verb => self.command(verb, argument, &mut replies),
            }
            // One write for a pipelined batch.
            if input.buffer().is_empty() {
                out.write_all(&std::mem::take(&mut replies))?;
            }
        }
    }

    fn command(&mut self, verb: &str, argument: &str, replies: &mut Vec<u8>) {
        let reply: &[u8] = match verb {
            "EHLO" | "LHLO" => {
                self.lmtp = verb == "LHLO";
                self.epoch = epoch_of(argument);
                b"250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 100000000\r\n"
            }
            "MAIL" => {
                self.recipients.clear();
                self.null_sender = argument.contains("<>");
                b"250 2.1.0 ok\r\n"
            }
            "RCPT" => {
                let recipient = argument.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
                let manners = *self.shared.manners.lock().unwrap_or_else(PoisonError::into_inner);
                if recipient.ends_with(REFUSED_DOMAIN) {
                    let mut refused = self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner);
                    *refused.entry(recipient).or_default() += 1;
                    b"550 5.1.1 nobody of that name\r\n"
                } else if self.random.percent(manners.greylist) {
                    b"450 4.2.0 come again\r\n"
                } else {
                    self.recipients.push(recipient);
                    b"250 2.1.5 ok\r\n"
                }
            }
            "RSET" => {
                self.recipients.clear();
                b"250 2.0.0 ok\r\n"
            }
            "NOOP" | "HELO" => b"250 2.0.0 ok\r\n",
            _ => b"502 5.5.1 what?\r\n",
        };
        replies.extend_from_slice(reply);
    }

    /// Writes a message down, then says 2xx: from here on it is here.
    fn take(&mut self, text: &[u8], replies: &mut Vec<u8>) {
        let manners = *self.shared.manners.lock().unwrap_or_else(PoisonError::into_inner);
        if !manners.delay.is_zero() {
            thread::sleep(manners.delay);
        }
        let recipients = std::mem::take(&mut self.recipients);
        let (ledger, epoch) = (&self.shared.ledger, self.epoch);
        let report = if self.null_sender { letter::read_report(text) } else { None };
        let found = if report.is_none() { letter::read(text) } else { None };
        let at_ms = ledger.now_ms();
        let mut records = ledger.records();
        match (report, found) {
            (Some(report), _) => {
                let bounce = |recipient: &String| Bounce {
                    id: report.id,
                    about: report.about.clone(),
                    recipient: recipient.clone(),
                    own_id: report.own_id.clone(),
                    epoch,
                    at_ms,
                };
                records.bounces.extend(report.recipients.iter().map(bounce));
            }
            (None, Some(found)) => {
                let arrival = |recipient: &String| Arrival {
                    id: found.id,
                    recipient: recipient.clone(),
                    whole: found.whole,
                    queue_id: found.queue_id.clone(),
                    epoch,
                    at_ms,
                };
                records.arrivals.extend(recipients.iter().map(arrival));
            }
            (None, None) => {
                let begin = String::from_utf8_lossy(&text[..text.len().min(200)]).into_owned();
                records.strangers.push(begin);
            }
        }
        drop(records);
        self.shared.arrived.fetch_add(1, Ordering::Relaxed);
        let count = if self.lmtp { recipients.len() } else { 1 };
        for _ in 0..count {
            replies.extend_from_slice(b"250 2.0.0 taken\r\n");
        }
    }
}

/// N of `eN.mx.example.org`; 0 where the name is another.
fn epoch_of(name: &str) -> u64 {
    let number = name.split('.').next().and_then(|label| label.strip_prefix('e'));
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn read_text(input: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    loop {
        let begin = text.len();
        if input.read_until(b'\n', &mut text)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if &text[begin..] == b".\r\n" {
            text.truncate(begin);
            return Ok(text);
        }
        if text[begin] == b'.' {
            text.remove(begin);
        }
    }
}
