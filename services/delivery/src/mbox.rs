//! Mbox: one file a mailbox, in the mboxrd form (`>From ` in the text gets one more `>`).
//!
//! Three locks, taken in one order: one among the tasks of this process (fcntl does not part them), the dot lock that
//! mail readers know, fcntl. A write that fails is cut off again; on return the text is on disk.

mod lock;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use node::Clock;
use resources::snapshot::TransportKind;
use rustix::fs::OFlags;
use types::Timestamp;

use self::lock::Locks;
use crate::job::{AttemptResult, Context, Job};
use crate::local::text::{LocalForm, Source, copy};
use crate::local::{self, Done, Form, Task};
use crate::maildir::{make_folders, sync_folder};

/// Wait for all locks of a mailbox: a reader that rewrites a large file holds them for seconds.
pub(crate) const LOCK_WAIT_MAX: Duration = Duration::from_secs(30);
/// Collects small chunks into writes.
const WRITE_OCTETS: usize = 64 << 10;

/// Delivers to every recipient of the job.
pub(crate) async fn deliver(context: &Context, job: &Job) -> Vec<(u32, AttemptResult)> {
    let TransportKind::Mbox { path, as_user } = &job.transport.kind else {
        return job.all(&AttemptResult::deferred(3, 5, "the transport is no mbox any more"));
    };
    local::deliver(context, job, Form::Mbox, path, as_user.as_deref()).await
}

/// Appends one message. Blocks.
pub(crate) fn append(task: &Task, clock: &Clock, text: &mut dyn Source, lock_wait: Duration) -> Done {
    let opened = open_locked(&task.path, clock, lock_wait);
    let (file, created, _locks) = match opened {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            return Done::deferred(2, 0, "the mailbox is locked by somebody else");
        }
        Err(error) => return Done::trouble("cannot open the mailbox", &error),
    };
    let length = match file.metadata() {
        Ok(metadata) => metadata.len(),
        Err(error) => return Done::trouble("cannot open the mailbox", &error),
    };
    let written = write(&file, length, task, text).and_then(|()| match (created, task.path.parent()) {
        (true, Some(folder)) => sync_folder(folder),
        _ => Ok(()),
    });
    match written {
        Ok(()) => Done::delivered("appended to mbox"),
        Err(error) => {
            // Half a message would become part of the one before it.
            let cut = file.set_len(length).and_then(|()| file.sync_all());
            if let Err(cut) = cut {
                tracing::error!(error = %cut, "part of a message stays in an mbox");
            }
            Done::trouble("cannot write the mailbox", &error)
        }
    }
}

/// Opens the file behind its locks; whether it was created.
fn open_locked(path: &Path, clock: &Clock, lock_wait: Duration) -> io::Result<(File, bool, Locks)> {
    if let Some(folder) = path.parent() {
        make_folders(folder)?;
    }
    let until = clock.instant() + lock_wait;
    let mut locks = Locks::around(path, clock, until)?;
    loop {
        let (file, created) = open(path)?;
        locks.lock_file(&file, clock, until)?;
        // A reader that rewrites its mailbox may have put another file there while we waited.
        let (ours, there) = (file.metadata()?, fs::symlink_metadata(path));
        if there.is_ok_and(|there| (there.ino(), there.dev()) == (ours.ino(), ours.dev())) {
            return Ok((file, created, locks));
        }
        if clock.instant() >= until {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

fn open(path: &Path) -> io::Result<(File, bool)> {
    // A mailbox folder that others may write to must not lead us to another file.
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).map_err(io::Error::other)?;
    let mut options = OpenOptions::new();
    options.read(true).append(true).mode(0o600).custom_flags(flags);
    let (file, created) = match options.clone().create_new(true).open(path) {
        Ok(file) => (file, true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (options.open(path)?, false),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    match metadata.is_file() && metadata.nlink() == 1 {
        true => Ok((file, created)),
        false => Err(io::Error::other("it is no plain file with one name")),
    }
}

fn write(file: &File, length: u64, task: &Task, text: &mut dyn Source) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(WRITE_OCTETS, file);
    out.write_all(separation(file, length)?)?;
    out.write_all(from_line(&task.sender, Timestamp::from_unix_ms(task.received_at_ms)).as_bytes())?;
    let mut escaped = LocalForm::new(FromEscape::new(out));
    copy(text, &mut escaped)?;
    let (escaped, _) = escaped.finish()?;
    let mut out = escaped.finish()?;
    out.write_all(b"\n")?;
    out.flush()?;
    file.sync_all()
}

/// What is missing of the empty line before a From_ line.
fn separation(file: &File, length: u64) -> io::Result<&'static [u8]> {
    let mut last = [b'\n'; 2];
    match length {
        0 => {}
        1 => file.read_exact_at(&mut last[1..], 0)?,
        _ => file.read_exact_at(&mut last, length - 2)?,
    }
    Ok(match last {
        [b'\n', b'\n'] => b"",
        [_, b'\n'] => b"\n",
        _ => b"\n\n",
    })
}

/// `From sender Sun Nov 22 18:52:22 2026`, in UTC. A space in the sender would shift the date.
fn from_line(sender: &str, at: Timestamp) -> String {
    let sender = match sender {
        "" => "MAILER-DAEMON".to_owned(),
        some => some.replace(|c: char| c.is_whitespace() || c.is_control(), "-"),
    };
    format!("From {sender} {}\n", asctime(at))
}

fn asctime(at: Timestamp) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = at.unix_ms().div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days to a date of the Gregorian calendar, in years that begin in March and eras of 400 of them.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = year_of_era + era * 400 + i64::from(month < 2);
    let name = |names: &[&'static str], index: i64| usize::try_from(index).ok().and_then(|i| names.get(i).copied());
    format!(
        "{} {} {day:2} {:02}:{:02}:{:02} {year}",
        name(&DAYS, days.rem_euclid(7)).unwrap_or("Thu"),
        name(&MONTHS, month).unwrap_or("Jan"),
        second / 3600,
        second / 60 % 60,
        second % 60,
    )
}

/// Puts `>` in front of lines that begin with any number of `>` and `From `, and a line end behind the last one.
struct FromEscape<W> {
    out: W,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the begin of a line, or behind its `>`s.
    Start,
    /// So many octets of `From ` were seen and are held back.
    Matched(usize),
    Inside,
}

const FROM: &[u8] = b"From ";

impl<W: Write> FromEscape<W> {
    fn new(out: W) -> Self {
        Self { out, state: State::Start }
    }

    fn finish(mut self) -> io::Result<W> {
        if let State::Matched(n) = self.state {
            self.out.write_all(&FROM[..n])?;
            self.state = State::Inside;
        }
        if self.state == State::Inside {
            self.out.write_all(b"\n")?;
        }
        Ok(self.out)
    }
}

impl<W: Write> Write for FromEscape<W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let mut rest = octets;
        while let Some(octet) = rest.first() {
            match self.state {
                State::Inside => {
                    let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
                    self.out.write_all(&rest[..end])?;
                    if rest[end - 1] == b'\n' {
                        self.state = State::Start;
                    }
                    rest = &rest[end..];
                }
                // It does not matter where among the `>`s the new one stands.
                State::Start if *octet == b'>' => {
                    self.out.write_all(b">")?;
                    rest = &rest[1..];
                }
                State::Start => self.state = State::Matched(0),
                State::Matched(n) if *octet == FROM[n] => {
                    rest = &rest[1..];
                    self.state = State::Matched(n + 1);
                    if n + 1 == FROM.len() {
                        self.out.write_all(b">From ")?;
                        self.state = State::Inside;
                    }
                }
                State::Matched(n) => {
                    self.out.write_all(&FROM[..n])?;
                    self.state = State::Inside;
                }
            }
        }
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests;
