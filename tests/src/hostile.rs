//! Clients that do what honest ones do not, again and again. Nothing of theirs may arrive: it would be a stranger to the
//! ledger.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::random::Random;
use crate::smtp::Dialogue;

/// What each of them does, over and over.
const WAYS: &[fn(&Hostile, &mut Random) -> io::Result<()>] =
    &[half_open, garbage, smuggling, oversized, dropped_in_data, slow, errors, dropped_in_bdat];
/// Between two attacks of one client.
const PAUSE: Duration = Duration::from_millis(50);

/// Running attackers; they end when dropped.
pub struct Attackers {
    ends: Arc<AtomicBool>,
    attacks: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

struct Hostile {
    address: SocketAddr,
    recipient: String,
    ends: Arc<AtomicBool>,
}

impl Attackers {
    /// One client for each kind of attack.
    pub fn start(address: SocketAddr, recipient: &str, seed: u64) -> Self {
        let (ends, attacks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = WAYS.iter().zip(seed..).map(|(way, seed)| {
            let hostile = Hostile { address, recipient: recipient.to_owned(), ends: Arc::clone(&ends) };
            let attacks = Arc::clone(&attacks);
            thread::spawn(move || {
                let mut random = Random::new(seed);
                while !hostile.ends.load(Ordering::Relaxed) {
                    // Being thrown out is what they come for.
                    let _ = way(&hostile, &mut random);
                    attacks.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(PAUSE);
                }
            })
        });
        let threads = threads.collect();
        Self { ends, attacks, threads }
    }

    /// Ends them; returns how many attacks there were.
    pub fn stop(mut self) -> u64 {
        self.end();
        self.attacks.load(Ordering::Relaxed)
    }

    fn end(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        self.end();
    }
}

impl Hostile {
    fn greeted(&self) -> io::Result<Dialogue> {
        let mut dialogue = Dialogue::connect(self.address)?;
        dialogue.reply()?;
        dialogue.say("EHLO hostile.test")?;
        Ok(dialogue)
    }

    fn in_data(&self) -> io::Result<Dialogue> {
        let mut dialogue = self.greeted()?;
        dialogue.say("MAIL FROM:<hostile@client.test>")?;
        dialogue.say(&format!("RCPT TO:<{}>", self.recipient))?;
        dialogue.say("DATA")?;
        Ok(dialogue)
    }

    /// Waits, but not beyond the end.
    fn wait(&self, steps: u64) {
        for _ in 0..steps {
            if self.ends.load(Ordering::Relaxed) {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Many connections that say nothing.
fn half_open(hostile: &Hostile, random: &mut Random) -> io::Result<()> {
    let open: Vec<_> = (0..20).filter_map(|_| Dialogue::connect(hostile.address).ok()).collect();
    hostile.wait(random.between(1, 60));
    drop(open);
    Ok(())
}

/// Octets of all kinds.
fn garbage(hostile: &Hostile, random: &mut Random) -> io::Result<()> {
    let mut dialogue = Dialogue::connect(hostile.address)?;
    dialogue.reply()?;
    for _ in 0..random.between(1, 200) {
        let bytes: Vec<u8> = (0..random.between(1, 400)).map(|_| random.draw() as u8).collect();
        dialogue.send(&bytes)?;
    }
    Ok(())
}

/// Ends of data that others take for one.
fn smuggling(hostile: &Hostile, random: &mut Random) -> io::Result<()> {
    const ENDS: &[&str] = &["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\r\n\0.\r\n", "\n.\r"];
    let end = ENDS[random.below(ENDS.len() as u64) as usize];
    let mut dialogue = hostile.in_data()?;
    let text = format!(
        "Subject: outer\r\n\r\ntext{end}MAIL FROM:<smuggled@client.test>\r\nRCPT TO:<{}>\r\nDATA\r\n\
         Subject: smuggled\n\r\nbare\nline\r\n.\r\n",
        hostile.recipient
    );
    dialogue.send(text.as_bytes())?;
    dialogue.reply()?;
    dialogue.say("QUIT").map(drop)
}

/// Header sections and lines beyond every bound.
fn oversized(hostile: &Hostile, _: &mut Random) -> io::Result<()> {
    let mut dialogue = hostile.in_data()?;
    let field = format!("X-Large: {}\r\n", "x".repeat(900));
    for _ in 0..40 {
        dialogue.send(field.repeat(50).as_bytes())?;
    }
    dialogue.send(b"\r\ntext\r\n.\r\n")?;
    dialogue.reply()?;
    dialogue.say("MAIL FROM:<hostile@client.test> SIZE=999999999999")?;
    dialogue.send("MAIL FROM:<a@b.test> ".repeat(400).as_bytes())?;
    dialogue.say("")?;
    Ok(())
}

/// Half a message, small or large.
fn dropped_in_data(hostile: &Hostile, random: &mut Random) -> io::Result<()> {
    let mut dialogue = hostile.in_data()?;
    dialogue.send(b"Subject: half\r\n\r\n")?;
    let line = format!("{}\r\n", "half ".repeat(15));
    dialogue.send(line.repeat(random.below(8000) as usize).as_bytes())
}

/// A chunk that does not come to its end.
fn dropped_in_bdat(hostile: &Hostile, random: &mut Random) -> io::Result<()> {
    let mut dialogue = hostile.greeted()?;
    dialogue.say("MAIL FROM:<hostile@client.test>")?;
    dialogue.say(&format!("RCPT TO:<{}>", hostile.recipient))?;
    dialogue.send(b"BDAT 1000000 LAST\r\nSubject: half\r\n\r\n")?;
    dialogue.send(&vec![b'x'; random.below(900_000) as usize])
}

/// One octet at a time.
fn slow(hostile: &Hostile, _: &mut Random) -> io::Result<()> {
    let mut dialogue = Dialogue::connect(hostile.address)?;
    for byte in b"EHLO a.very.slow.client.test\r\nMAIL FROM:<slow@client.test>\r\n" {
        dialogue.send(&[*byte])?;
        hostile.wait(1);
    }
    Ok(())
}

/// Faults until it is thrown out.
fn errors(hostile: &Hostile, _: &mut Random) -> io::Result<()> {
    let mut dialogue = hostile.greeted()?;
    loop {
        dialogue.say("DATA")?;
        dialogue.say("WHAT IS THIS")?;
        dialogue.say("RCPT TO:<@@@>")?;
    }
}
