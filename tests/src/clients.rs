//! Clients that send until they are told to stop, and write down every answer.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::ledger::{Answer, Ledger, Sending};
use crate::letter;
use crate::random::Random;
use crate::smtp::{Dialogue, Reply, dot_stuffed};

/// Between two tries to connect while the platform is down.
const RECONNECT_WAIT: Duration = Duration::from_millis(5);
/// Before a message that was refused for now is sent again.
const AGAIN_WAIT: Duration = Duration::from_millis(20);
/// Octets of a chunk of BDAT.
const CHUNK_BYTES: usize = 50_000;

/// What the clients do.
#[derive(Debug, Clone)]
pub struct Load {
    /// Sessions at a time.
    pub clients: usize,
    /// Messages of a session, at most.
    pub messages_per_session_max: u64,
    /// Body sizes, and how many times in a hundred each range is used; the rest takes the last.
    pub sizes: Vec<(u64, std::ops::Range<u64>)>,
    /// How many times in a hundred a message has several recipients.
    pub several_recipients: u64,
    /// Who is written to.
    pub recipients: Vec<String>,
    /// How many times in a hundred BDAT is used instead of DATA.
    pub bdat: u64,
    /// How a session begins.
    pub opening: Opening,
    /// Pause of a client after each message.
    pub pause: Duration,
    /// The numbers are made from this.
    pub seed: u64,
}

/// How a session begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Opening {
    /// In the clear.
    #[default]
    Plain,
    /// With STARTTLS.
    StartTls,
    /// With STARTTLS and a login; the user is the sender.
    Login {
        /// Address.
        user: String,
        /// Password.
        password: String,
    },
}

impl Load {
    /// Small and large, mostly small; some bodies too large for the rows of the database.
    pub fn mixed(clients: usize, recipients: Vec<String>, seed: u64) -> Self {
        Self {
            clients,
            messages_per_session_max: 20,
            sizes: vec![(70, 20..4000), (20, 4000..64_000), (7, 64_000..(256 << 10)), (100, (256 << 10) + 1..700_000)],
            several_recipients: 30,
            recipients,
            bdat: 40,
            opening: Opening::Plain,
            pause: Duration::ZERO,
            seed,
        }
    }

    /// Nothing but small messages.
    pub fn small(clients: usize, recipients: Vec<String>, seed: u64) -> Self {
        Self { sizes: vec![(100, 20..4000)], ..Self::mixed(clients, recipients, seed) }
    }
}

/// Running clients; they end when dropped.
pub struct Clients {
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Starts them; what they do goes into the ledger.
    pub fn start(ledger: &Arc<Ledger>, address: SocketAddr, load: &Load) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let threads = (0..load.clients as u64).map(|n| {
            let client = Client {
                ledger: Arc::clone(ledger),
                address,
                load: load.clone(),
                random: Random::new(load.seed.wrapping_mul(0x1_0001).wrapping_add(n)),
                again: VecDeque::new(),
                ends: Arc::clone(&ends),
            };
            thread::spawn(move || client.run())
        });
        let threads = threads.collect();
        Self { ends, threads }
    }

    /// Tells them to stop and waits for the answers that are on their way. What had no answer yet is not sent again.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            assert!(thread.join().is_ok() || thread::panicking(), "a client broke off");
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.end();
    }
}

/// A message that a client has to hand in.
#[derive(Clone)]
struct Letter {
    id: u64,
    size: usize,
    recipients: Vec<String>,
}

struct Client {
    ledger: Arc<Ledger>,
    address: SocketAddr,
    load: Load,
    random: Random,
    /// To be sent again, under the same id.
    again: VecDeque<Letter>,
    ends: Arc<AtomicBool>,
}

impl Client {
    fn run(mut self) {
        while !self.ends.load(Ordering::Relaxed) {
            // A session that cannot begin, or breaks off between two messages, says nothing about any of them.
            if self.session().is_err() {
                thread::sleep(RECONNECT_WAIT);
            }
        }
    }

    fn session(&mut self) -> io::Result<()> {
        let mut dialogue = Dialogue::connect(self.address)?;
        expect(dialogue.reply()?)?;
        expect(dialogue.say("EHLO client.test")?)?;
        if self.load.opening != Opening::Plain {
            dialogue = dialogue.start_tls()?;
            expect(dialogue.say("EHLO client.test")?)?;
        }
        let mut sender = format!("client-{}@client.test", self.random.below(50));
        if let Opening::Login { user, password } = &self.load.opening {
            sender.clone_from(user);
            let response = testkit::smtp::base64(&format!("\0{user}\0{password}"));
            expect(dialogue.say(&format!("AUTH PLAIN {response}"))?)?;
        }
        for _ in 0..self.random.between(1, self.load.messages_per_session_max + 1) {
            if self.ends.load(Ordering::Relaxed) {
                break;
            }
            let letter = self.again.pop_front().unwrap_or_else(|| self.new_letter());
            let result = self.hand_in(&mut dialogue, &sender, &letter);
            let answer = result.as_ref().map_or(Answer::Unknown, Clone::clone);
            let again = matches!(answer, Answer::Unknown | Answer::Deferred(_) | Answer::Refused(400..500));
            let sending = Sending { id: letter.id, recipients: letter.recipients.clone(), answer };
            self.ledger.records().sendings.push(sending);
            if again {
                self.again.push_back(letter);
            }
            if !matches!(result?, Answer::Accepted(_)) {
                thread::sleep(AGAIN_WAIT);
            }
            thread::sleep(self.load.pause);
        }
        dialogue.say("QUIT").map(drop)
    }

    fn new_letter(&mut self) -> Letter {
        let mut dice = self.random.below(100);
        let mut range = 20..1000;
        for (percent, of) in &self.load.sizes {
            range = of.clone();
            if dice < *percent {
                break;
            }
            dice -= percent;
        }
        let size = self.random.between(range.start, range.end) as usize;
        let several = self.random.percent(self.load.several_recipients);
        let count = if several { self.random.between(2, 6) } else { 1 };
        let mut recipients: Vec<String> = Vec::new();
        for _ in 0..count {
            let all = &self.load.recipients;
            let recipient = &all[self.random.below(all.len() as u64) as usize];
            if !recipients.contains(recipient) {
                recipients.push(recipient.clone());
            }
        }
        Letter { id: self.ledger.new_id(), size, recipients }
    }

    /// One transaction. An error is an unknown answer.
    fn hand_in(&mut self, dialogue: &mut Dialogue, sender: &str, letter: &Letter) -> io::Result<Answer> {
        let text = letter::write(letter.id, letter.size, sender, &letter.recipients);
        let reply = dialogue.say(&format!("MAIL FROM:<{sender}>"))?;
        if !reply.is_positive() {
            return Ok(Answer::Refused(reply.code));
        }
        for recipient in &letter.recipients {
            let reply = dialogue.say(&format!("RCPT TO:<{recipient}>"))?;
            if !reply.is_positive() {
                dialogue.say("RSET")?;
                return Ok(Answer::Refused(reply.code));
            }
        }
        let reply = if self.random.percent(self.load.bdat) {
            self.chunks(dialogue, &text)?
        } else {
            let reply = dialogue.say("DATA")?;
            if reply.code != 354 {
                return Ok(Answer::Refused(reply.code));
            }
            dialogue.send(&dot_stuffed(&text))?;
            dialogue.reply()?
        };
        match reply.code {
            250 => match reply.text.strip_prefix("2.0.0 queued as ") {
                Some(id) => Ok(Answer::Accepted(id.to_owned())),
                None => Err(io::Error::other(format!("no id in {reply:?}"))),
            },
            code if code >= 500 => Ok(Answer::Refused(code)),
            code => Ok(Answer::Deferred(code)),
        }
    }

    fn chunks(&mut self, dialogue: &mut Dialogue, text: &[u8]) -> io::Result<Reply> {
        let mut rest = text;
        loop {
            let size = (self.random.between(1, CHUNK_BYTES as u64 * 2) as usize).min(rest.len());
            let (chunk, after) = rest.split_at(size);
            rest = after;
            let last = if rest.is_empty() { " LAST" } else { "" };
            dialogue.send(format!("BDAT {size}{last}\r\n").as_bytes())?;
            dialogue.send(chunk)?;
            let reply = dialogue.reply()?;
            if rest.is_empty() || !reply.is_positive() {
                return Ok(reply);
            }
        }
    }
}

fn expect(reply: Reply) -> io::Result<()> {
    if reply.is_positive() { Ok(()) } else { Err(io::Error::other(format!("{} {}", reply.code, reply.text))) }
}
