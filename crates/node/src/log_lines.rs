//! The way of log lines to stderr: those that come close together are one write.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// How long a line may wait for others: a person who looks on does not notice, and a busy server writes some fifty times
/// a second in place of some ten thousand.
const GATHER: Duration = Duration::from_millis(20);
/// What waits at most; beyond it whoever logs writes, as fast as the reader of the log takes it. No line is dropped.
const WAITING_MAX_BYTES: usize = 256 << 10;

/// Lines on their way. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct LogLines {
    inner: Arc<Inner>,
}

struct Inner {
    waiting: Mutex<Vec<u8>>,
    /// Held while lines leave, so that they leave in order. Taken before `waiting`.
    out: Mutex<Box<dyn Write + Send>>,
    first: Condvar,
}

impl Inner {
    fn waiting(&self) -> MutexGuard<'_, Vec<u8>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what waits; returns when it has left.
    fn write_out(&self) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let text = std::mem::take(&mut *self.waiting());
        // A log that nobody can read any more is no reason to stop the mail.
        let _ = out.write_all(&text).and_then(|()| out.flush());
        let mut waiting = self.waiting();
        if waiting.is_empty() && text.capacity() <= WAITING_MAX_BYTES {
            *waiting = text;
            waiting.clear();
        }
    }

    fn gather(&self) {
        loop {
            let waiting = self.waiting();
            drop(self.first.wait_while(waiting, |waiting| waiting.is_empty()).unwrap_or_else(PoisonError::into_inner));
            self.write_out();
            std::thread::sleep(GATHER);
        }
    }
}

impl LogLines {
    /// Lines that go to `out`, with a thread that carries them there.
    pub(crate) fn new(out: Box<dyn Write + Send>) -> io::Result<Self> {
        let inner = Arc::new(Inner { waiting: Mutex::default(), out: Mutex::new(out), first: Condvar::new() });
        let gathering = Arc::clone(&inner);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || gathering.gather())?;
        Ok(Self { inner })
    }

    /// Returns when every line so far has left.
    pub(crate) fn flush(&self) {
        self.inner.write_out();
    }
}

/// Takes one line.
pub(crate) struct Line<'a> {
    lines: &'a LogLines,
    at_once: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let mut waiting = self.lines.inner.waiting();
        let (first, full) = (waiting.is_empty(), waiting.len() + text.len() > WAITING_MAX_BYTES);
        waiting.extend_from_slice(text);
        drop(waiting);
        if self.at_once || full {
            self.lines.flush();
        } else if first {
            self.lines.inner.first.notify_one();
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogLines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self, at_once: false }
    }

    /// An error may be the last thing that the process says.
    fn make_writer_for(&'a self, of: &Metadata<'_>) -> Line<'a> {
        Line { lines: self, at_once: *of.level() == Level::ERROR }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[derive(Clone, Default)]
    struct Out {
        writes: Arc<Mutex<Vec<Vec<u8>>>>,
    }

    impl Out {
        fn text(&self) -> Vec<u8> {
            self.writes.lock().unwrap().concat()
        }
    }

    impl Write for Out {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.writes.lock().unwrap().push(text.to_owned());
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_leaves_once_and_in_the_order_of_its_writer() {
        let out = Out::default();
        let lines = LogLines::new(Box::new(out.clone())).unwrap();
        let count = 20_000;
        std::thread::scope(|scope| {
            for thread in ["a", "b"] {
                let lines = &lines;
                scope.spawn(move || {
                    for n in 0..count {
                        lines.make_writer().write_all(format!("{thread} {n}\n").as_bytes()).unwrap();
                    }
                });
            }
        });
        lines.flush();
        let text = String::from_utf8(out.text()).unwrap();
        for thread in ["a ", "b "] {
            let numbers = text.lines().filter_map(|line| line.strip_prefix(thread)).map(|n| n.parse::<i32>().unwrap());
            assert!(numbers.eq(0..count));
        }
        let writes = out.writes.lock().unwrap().iter().filter(|write| !write.is_empty()).count();
        assert!(writes < 2000, "{writes} writes");
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "bounds a wait")]
    fn a_lonely_line_leaves_by_itself() {
        let out = Out::default();
        let lines = LogLines::new(Box::new(out.clone())).unwrap();
        lines.make_writer().write_all(b"one\n").unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while out.text() != b"one\n" {
            assert!(Instant::now() < end);
            std::thread::yield_now();
        }
    }
}
