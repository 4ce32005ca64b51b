//! Text of a message on its way in: the end is found, dots are unstuffed, line ends are checked.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr3;

use super::config::{LineEnds, SessionConfig};
use super::event::Reason;

const CRLF: &[u8] = b"\r\n";

/// How the end of the text is known.
#[derive(Debug, Clone, Copy)]
enum Framing {
    /// CRLF.CRLF (RFC 5321 section 4.1.1.4) and nothing else.
    Dot,
    /// So many octets (RFC 3030).
    Chunk { left: u64, last: bool },
}

/// State of a message between two reads: a few words, no text.
///
/// The result does not depend on where the network cut the input: octets that mean nothing without the next one stay in the input.
#[derive(Debug)]
pub(super) struct Text {
    line_ends: LineEnds,
    line_max: usize,
    octets_max: u64,
    framing: Framing,
    /// With dots: the next octet follows a true CRLF, or is the first.
    line_start: bool,
    /// The last octet of the chunk before was a CR.
    pending_cr: bool,
    /// Octets of the current line.
    line_octets: usize,
    /// Octets handed out.
    octets: u64,
    fault: Option<Reason>,
    /// The end is still looked for, but nothing is handed out any more.
    silent: bool,
}

/// What came of one look at the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Not empty.
    pub(super) chunk: Option<Bytes>,
    /// The text or the chunk of BDAT is at its end.
    pub(super) end: bool,
}

impl Text {
    pub(super) fn dotted(config: &SessionConfig) -> Self {
        Self::new(config, Framing::Dot)
    }

    pub(super) fn chunked(config: &SessionConfig) -> Self {
        Self::new(config, Framing::Chunk { left: 0, last: false })
    }

    fn new(config: &SessionConfig, framing: Framing) -> Self {
        let octets_max = match config.limits.message_max_bytes {
            0 => u64::MAX,
            max => max,
        };
        Self {
            line_ends: config.line_ends,
            line_max: config.limits.text_line_max_bytes.saturating_sub(CRLF.len()),
            octets_max,
            framing,
            line_start: true,
            pending_cr: false,
            line_octets: 0,
            octets: 0,
            fault: None,
            silent: false,
        }
    }

    /// The next chunk of BDAT begins.
    pub(super) fn begin_chunk(&mut self, size: u64, last: bool) {
        self.framing = Framing::Chunk { left: size, last };
    }

    /// False only between chunks and in a chunk that is not the last.
    pub(super) fn is_last(&self) -> bool {
        !matches!(self.framing, Framing::Chunk { last: false, .. })
    }

    pub(super) fn fault(&self) -> Option<Reason> {
        self.fault
    }

    /// From now on nothing is handed out.
    pub(super) fn silence(&mut self) {
        self.silent = true;
    }

    /// Takes all that can be taken.
    pub(super) fn take(&mut self, input: &mut BytesMut) -> Taken {
        match self.framing {
            Framing::Dot => self.take_dotted(input),
            Framing::Chunk { left, last } => self.take_counted(input, left, last),
        }
    }

    fn take_dotted(&mut self, input: &mut BytesMut) -> Taken {
        let (mut run, mut at, mut end_octets) = (Run::default(), 0, 0);
        loop {
            if self.line_start {
                match &input[at..] {
                    [] | [b'.'] | [b'.', b'\r'] => break,
                    [b'.', b'\r', b'\n', ..] => {
                        end_octets = 3;
                        break;
                    }
                    // RFC 5321 section 4.5.2: the first dot of a line is not part of it.
                    [b'.', ..] => {
                        self.hand_out(&mut run, input, at);
                        at += 1;
                        run.start = at;
                    }
                    _ => {}
                }
                self.line_start = false;
            }
            let (next, more) = self.take_line(&mut run, input, at, input.len());
            at = next;
            if !more {
                break;
            }
        }
        let chunk = self.finish(run, input, at, at + end_octets);
        Taken { chunk, end: end_octets > 0 }
    }

    fn take_counted(&mut self, input: &mut BytesMut, left: u64, last: bool) -> Taken {
        let limit = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let whole = limit as u64 == left;
        let (mut run, mut at) = (Run::default(), 0);
        if self.pending_cr && limit > 0 {
            self.pending_cr = false;
            if input[0] == b'\n' {
                at = 1;
                run.start = at;
                self.put_line_end(&mut run, input);
            } else {
                self.bare(&mut run, input, 0, 0);
            }
        }
        loop {
            let (next, more) = self.take_line(&mut run, input, at, limit);
            at = next;
            if !more {
                break;
            }
        }
        let mut consumed = at;
        if whole && at < limit {
            // The CR that ends the chunk; whether LF follows, the next one says.
            self.pending_cr = true;
            consumed = limit;
        }
        if whole && last {
            self.hand_out(&mut run, input, at);
            run.start = at;
            self.end_last_line(&mut run, input, at);
        }
        self.framing = Framing::Chunk { left: left - consumed as u64, last };
        let chunk = self.finish(run, input, at, consumed);
        Taken { chunk, end: whole }
    }

    /// The message ends here; what is not ended by CRLF is given one, so that whoever sends it on need not.
    fn end_last_line(&mut self, run: &mut Run, input: &mut BytesMut, at: usize) {
        if std::mem::take(&mut self.pending_cr) {
            self.bare(run, input, at, at);
        } else if self.line_octets > 0 {
            self.put_line_end(run, input);
        }
    }

    /// Goes from `at` to behind the next line end, or as far as it can be told before `limit`.
    fn take_line(&mut self, run: &mut Run, input: &mut BytesMut, at: usize, limit: usize) -> (usize, bool) {
        let Some(found) = memchr3(b'\r', b'\n', 0, &input[at..limit]) else {
            self.count_line(run, limit, limit - at);
            return (limit, false);
        };
        let found = at + found;
        self.count_line(run, found, found - at);
        match (input[found], input[found + 1..limit].first()) {
            (b'\r', None) => (found, false),
            (b'\r', Some(b'\n')) => {
                self.line_octets = 0;
                self.line_start = true;
                (found + CRLF.len(), true)
            }
            (0, _) => {
                self.nul(run, input, found);
                (found + 1, true)
            }
            _ => {
                self.bare(run, input, found, found + 1);
                (found + 1, true)
            }
        }
    }

    fn count_line(&mut self, run: &Run, at: usize, octets: usize) {
        self.line_octets += octets;
        if self.line_octets > self.line_max && !self.silent {
            // The octet at which the line became too long decides which fault came first.
            let over = (self.line_octets - self.line_max - 1) as u64;
            self.fail(Reason::LineTooLong, run.octets(at).saturating_sub(over));
        }
    }

    /// A CR or LF that stands alone: text up to `at`, to be gone on with from `next`.
    fn bare(&mut self, run: &mut Run, input: &mut BytesMut, at: usize, next: usize) {
        if self.line_ends == LineEnds::Refuse {
            self.fail(Reason::LineEnds, run.octets(at));
        }
        self.hand_out(run, input, at);
        run.start = next;
        self.put_line_end(run, input);
    }

    /// Some receivers drop NUL, and `CRLF NUL . CRLF` is an end of data to them: it never goes on.
    fn nul(&mut self, run: &mut Run, input: &mut BytesMut, at: usize) {
        if self.line_ends == LineEnds::Refuse {
            self.fail(Reason::LineEnds, run.octets(at));
        }
        self.hand_out(run, input, at);
        run.start = at + 1;
    }

    fn put_line_end(&mut self, run: &mut Run, input: &BytesMut) {
        self.line_octets = 0;
        if !self.silent {
            run.insert(input, CRLF);
        }
    }

    fn hand_out(&self, run: &mut Run, input: &mut BytesMut, end: usize) {
        if !self.silent {
            run.close(input, end);
        }
    }

    /// The first fault counts; `octets` of this run came before it.
    fn fail(&mut self, reason: Reason, octets: u64) {
        if !self.silent {
            let large = self.octets + octets > self.octets_max;
            self.fault = Some(if large { Reason::TooLarge } else { reason });
            self.silent = true;
        }
    }

    /// Takes `consumed` octets off the input; what is kept of those before `at` becomes the chunk.
    fn finish(&mut self, mut run: Run, input: &mut BytesMut, at: usize, consumed: usize) -> Option<Bytes> {
        if !self.silent {
            run.close(input, at);
            let octets = run.octets(at);
            self.fail_if_large(octets);
            self.octets += octets;
        }
        if self.silent {
            input.advance(consumed);
            return None;
        }
        run.into_chunk(input, consumed)
    }

    fn fail_if_large(&mut self, octets: u64) {
        if self.octets + octets > self.octets_max {
            self.fail(Reason::TooLarge, octets);
        }
    }
}

/// The part of the input that is handed out together: moved up in place where octets are left out, copied only where some are put in.
#[derive(Debug, Default)]
struct Run {
    /// Where the part that is not closed yet begins.
    start: usize,
    /// End of what was closed in place.
    kept: usize,
    copy: Option<Vec<u8>>,
}

impl Run {
    /// Octets of the run if it ended at `at`.
    fn octets(&self, at: usize) -> u64 {
        (self.copy.as_ref().map_or(self.kept, Vec::len) + at.saturating_sub(self.start)) as u64
    }

    fn close(&mut self, input: &mut BytesMut, end: usize) {
        let octets = end.saturating_sub(self.start);
        match &mut self.copy {
            Some(copy) => copy.extend_from_slice(&input[self.start..self.start + octets]),
            None => {
                if self.kept != self.start {
                    input.copy_within(self.start..self.start + octets, self.kept);
                }
                self.kept += octets;
            }
        }
        self.start += octets;
    }

    fn insert(&mut self, input: &BytesMut, octets: &[u8]) {
        let kept = self.kept;
        let copy = self.copy.get_or_insert_with(|| {
            let mut copy = Vec::with_capacity(input.len() + CRLF.len());
            copy.extend_from_slice(&input[..kept]);
            copy
        });
        copy.extend_from_slice(octets);
    }

    fn into_chunk(self, input: &mut BytesMut, consumed: usize) -> Option<Bytes> {
        let chunk = match self.copy {
            Some(copy) => {
                input.advance(consumed);
                Bytes::from(copy)
            }
            None if self.kept == 0 => {
                input.advance(consumed);
                return None;
            }
            None => {
                let mut head = input.split_to(consumed);
                head.truncate(self.kept);
                head.freeze()
            }
        };
        (!chunk.is_empty()).then_some(chunk)
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
