//! Replies of a peer that may mean ill: bounded, and without controls (RFC 5321 section 4.2).

use bytes::{Buf, BytesMut};
use types::{EnhancedCode, Reply};

/// Octets of one line of a reply. RFC 5321 section 4.5.3.1.5 says 512; longer ones are seen.
pub const REPLY_LINE_OCTETS_MAX: usize = 4096;
/// Lines of one reply: an EHLO reply has some twenty.
pub const REPLY_LINES_MAX: usize = 256;
/// Octets of all lines of one reply: it is kept with the message and told to its sender.
pub const REPLY_OCTETS_MAX: usize = 16 * 1024;

/// Says why octets are not a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyFault {
    /// A line is longer than [`REPLY_LINE_OCTETS_MAX`].
    #[error("reply line is longer than {REPLY_LINE_OCTETS_MAX} octets")]
    LineTooLong,
    /// More than [`REPLY_LINES_MAX`] lines or [`REPLY_OCTETS_MAX`] octets.
    #[error("reply is longer than {REPLY_LINES_MAX} lines or {REPLY_OCTETS_MAX} octets")]
    TooLong,
    /// A line does not begin with a code from 200 to 599 and a space, a hyphen or nothing.
    #[error("reply line does not begin with a reply code")]
    NoCode,
    /// The lines of one reply have different codes.
    #[error("lines of one reply have different codes")]
    CodeChanged,
}

/// Collects the lines of one reply after the other.
#[derive(Debug, Default)]
pub(super) struct ReplyReader {
    code: Option<u16>,
    text: String,
    lines: usize,
    octets: usize,
}

impl ReplyReader {
    /// Takes whole lines out of `input` until a reply is complete. `None`: more octets are needed.
    pub(super) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Reply>, ReplyFault> {
        while let Some(end) = memchr::memchr(b'\n', input) {
            if end >= REPLY_LINE_OCTETS_MAX {
                return Err(ReplyFault::LineTooLong);
            }
            let last = self.line(&input[..end])?;
            input.advance(end + 1);
            if last {
                return Ok(Some(self.finish()));
            }
        }
        if input.len() >= REPLY_LINE_OCTETS_MAX { Err(ReplyFault::LineTooLong) } else { Ok(None) }
    }

    /// Forgets what was collected.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    fn line(&mut self, line: &[u8]) -> Result<bool, ReplyFault> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.lines += 1;
        self.octets += line.len();
        if self.lines > REPLY_LINES_MAX || self.octets > REPLY_OCTETS_MAX {
            return Err(ReplyFault::TooLong);
        }
        let (code, last, text) = split(line).ok_or(ReplyFault::NoCode)?;
        if *self.code.get_or_insert(code) != code {
            return Err(ReplyFault::CodeChanged);
        }
        if self.lines > 1 {
            self.text.push('\n');
        }
        let plain = String::from_utf8_lossy(text);
        self.text.extend(plain.chars().map(|c| if c.is_control() { '?' } else { c }));
        Ok(last)
    }

    fn finish(&mut self) -> Reply {
        let Self { code, text, .. } = std::mem::take(self);
        let code = code.unwrap_or_default();
        match enhanced(code, &text) {
            Some(found) => Reply::new(code, Some(found), without(&text, found)),
            None => Reply::new(code, None, text),
        }
    }
}

/// Code, whether it is the last line, text.
fn split(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (digits, rest) = line.split_at_checked(3)?;
    let code = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
    if !(200..=599).contains(&code) {
        return None;
    }
    match rest.split_first() {
        None => Some((code, true, rest)),
        Some((b' ', text)) => Some((code, true, text)),
        Some((b'-', text)) => Some((code, false, text)),
        Some(_) => None,
    }
}

/// The enhanced code at the beginning of the text, where it is of the class of the reply code (RFC 2034 section 4).
fn enhanced(code: u16, text: &str) -> Option<EnhancedCode> {
    let word = text.split([' ', '\n']).next()?;
    word.parse::<EnhancedCode>().ok().filter(|found| u16::from(found.class) == code / 100)
}

/// The text with the enhanced code taken from the front of every line.
fn without(text: &str, code: EnhancedCode) -> String {
    let code = code.to_string();
    let plain = |line: &str| {
        let rest = line.strip_prefix(code.as_str()).filter(|rest| rest.is_empty() || rest.starts_with(' '));
        rest.map_or_else(|| line.to_owned(), |rest| rest.trim_start().to_owned())
    };
    text.split('\n').map(plain).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(octets: &[u8]) -> Result<Option<Reply>, ReplyFault> {
        ReplyReader::default().next(&mut BytesMut::from(octets))
    }

    #[test]
    fn replies_are_read_as_they_are_meant() {
        let cases: &[(&[u8], u16, Option<&str>, &str)] = &[
            (b"250 2.1.0 ok\r\n", 250, Some("2.1.0"), "ok"),
            (b"250\r\n", 250, None, ""),
            (b"250\n", 250, None, ""),
            (b"250 \r\n", 250, None, ""),
            (b"553-\r\n553\r\n", 553, None, "\n"),
            (b"250-a\r\n250-b\r\n250 c\r\n", 250, None, "a\nb\nc"),
            (b"550-5.1.1 no\r\n550-5.1.1 such\r\n550 5.1.1 user\r\n", 550, Some("5.1.1"), "no\nsuch\nuser"),
            (b"550-5.1.1 no\r\n550 such user\r\n", 550, Some("5.1.1"), "no\nsuch user"),
            (b"550 2.0.0 class of another\r\n", 550, None, "2.0.0 class of another"),
            (b"550 5.1.1\r\n", 550, Some("5.1.1"), ""),
            (b"550 5.1.1-x\r\n", 550, None, "5.1.1-x"),
            (b"550 \x07\x1b[2J\0 b\rc \xc2\x85 \xff\r\n", 550, None, "??[2J? b?c ? \u{fffd}"),
            (b"554 ok\r\r\n", 554, None, "ok?"),
        ];
        for (octets, code, enhanced, text) in cases {
            let reply = read(octets).unwrap().unwrap();
            let expected = (*code, enhanced.map(str::to_owned), *text);
            assert_eq!((reply.code, reply.enhanced.map(|e| e.to_string()), reply.text()), expected, "{octets:?}");
        }
    }

    #[test]
    fn what_is_no_reply_is_told_apart() {
        let long_line = [b"250 ".as_slice(), &[b'x'; REPLY_LINE_OCTETS_MAX], b"\r\n"].concat();
        let endless_line = [b"250 ".as_slice(), &[b'x'; 1 << 20]].concat();
        let endless_reply = b"250-spam and more spam\r\n".repeat(50_000);
        let many_lines = b"250-\r\n".repeat(REPLY_LINES_MAX + 1);
        let cases: &[(&[u8], ReplyFault)] = &[
            (b"\r\n", ReplyFault::NoCode),
            (b"25\r\n", ReplyFault::NoCode),
            (b"2x0 a\r\n", ReplyFault::NoCode),
            (b"+50 a\r\n", ReplyFault::NoCode),
            (b"150 a\r\n", ReplyFault::NoCode),
            (b"600 a\r\n", ReplyFault::NoCode),
            (b"2500 a\r\n", ReplyFault::NoCode),
            (b"HTTP/1.1 400 Bad Request\r\n", ReplyFault::NoCode),
            (b"250-a\r\n550 b\r\n", ReplyFault::CodeChanged),
            (&long_line, ReplyFault::LineTooLong),
            (&endless_line, ReplyFault::LineTooLong),
            (&endless_reply, ReplyFault::TooLong),
            (&many_lines, ReplyFault::TooLong),
        ];
        for (octets, expected) in cases {
            assert_eq!(read(octets), Err(*expected), "{:?}", &octets[..octets.len().min(40)]);
        }
    }

    proptest! {
        #[test]
        fn where_octets_are_split_does_not_matter(octets: Vec<u8>, lines in "(2[0-9]{2}[- ][a-z0-9. ]{0,12}\r?\n){0,6}", at: prop::sample::Index) {
            let all = [lines.as_bytes(), &octets].concat();
            let whole = read_all(&[&all]);
            let at = at.index(all.len() + 1);
            prop_assert_eq!(whole, read_all(&[&all[..at], &all[at..]]));
        }
    }

    fn read_all(pieces: &[&[u8]]) -> Vec<Result<Reply, ReplyFault>> {
        let (mut reader, mut input, mut found) = (ReplyReader::default(), BytesMut::new(), Vec::new());
        for piece in pieces {
            input.extend_from_slice(piece);
            loop {
                match reader.next(&mut input) {
                    Ok(None) => break,
                    Ok(Some(reply)) => found.push(Ok(reply)),
                    Err(fault) => {
                        found.push(Err(fault));
                        return found;
                    }
                }
            }
        }
        found
    }
}
