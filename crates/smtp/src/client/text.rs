//! The text of a message on its way out: dot-stuffed (RFC 5321 section 4.5.2), and with CRLF line ends only.

/// Writes text as DATA wants it. A bare CR or LF never leaves: each becomes CRLF (SMTP smuggling, outbound).
#[derive(Debug)]
pub struct TextWriter {
    line_begins: bool,
    /// A CR that may be half of a CRLF: it is written with what follows.
    held_cr: bool,
}

impl Default for TextWriter {
    fn default() -> Self {
        Self { line_begins: true, held_cr: false }
    }
}

impl TextWriter {
    /// Appends the next octets of the text to `out`.
    pub fn push(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let Some(&first) = text.first() else { return };
        out.reserve(text.len() + 64);
        let mut rest = text;
        if std::mem::take(&mut self.held_cr) {
            out.extend_from_slice(b"\r\n");
            self.line_begins = true;
            if first == b'\n' {
                rest = &rest[1..];
            }
        }
        while !rest.is_empty() {
            if self.line_begins && rest[0] == b'.' {
                out.push(b'.');
            }
            let Some(end) = memchr::memchr2(b'\r', b'\n', rest) else {
                out.extend_from_slice(rest);
                self.line_begins = false;
                return;
            };
            self.line_begins = true;
            let after = match (rest[end], rest.get(end + 1)) {
                (b'\r', Some(b'\n')) => {
                    // The usual case: line and end in one copy.
                    out.extend_from_slice(&rest[..end + 2]);
                    rest = &rest[end + 2..];
                    continue;
                }
                (b'\r', None) => {
                    out.extend_from_slice(&rest[..end]);
                    self.line_begins = end == 0 && self.line_begins;
                    self.held_cr = true;
                    return;
                }
                _ => end + 1,
            };
            out.extend_from_slice(&rest[..end]);
            out.extend_from_slice(b"\r\n");
            rest = &rest[after..];
        }
    }

    /// Ends the text: the last line gets its end where it has none, then the dot.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.held_cr) || !self.line_begins {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
        self.line_begins = true;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn write(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut writer, mut out) = (TextWriter::default(), Vec::new());
        for piece in pieces {
            writer.push(piece, &mut out);
        }
        writer.finish(&mut out);
        out
    }

    #[test]
    fn text_is_stuffed_and_normalised_wherever_it_is_cut() {
        let cases: &[(&[u8], &[u8])] = &[
            (b"", b".\r\n"),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b"a", b"a\r\n.\r\n"),
            (b".", b"..\r\n.\r\n"),
            (b".\r\n", b"..\r\n.\r\n"),
            (b"a\r\n.\r\n.b\r\n", b"a\r\n..\r\n..b\r\n.\r\n"),
            (b"a.\r\nb.c\r\n", b"a.\r\nb.c\r\n.\r\n"),
            (b"a\nb\rc\r\r\nd\n\r", b"a\r\nb\r\nc\r\n\r\nd\r\n\r\n.\r\n"),
            (b"a\n.\nMAIL FROM:<x@y>\n", b"a\r\n..\r\nMAIL FROM:<x@y>\r\n.\r\n"),
            (b"a\r.\rb", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"a\r\n.\r.\n", b"a\r\n..\r\n..\r\n.\r\n"),
            (b"\r\n\r\n", b"\r\n\r\n.\r\n"),
            (b"a\0b\xff\r\n", b"a\0b\xff\r\n.\r\n"),
        ];
        for (text, expected) in cases {
            for at in 0..=text.len() {
                assert_eq!(write(&[&text[..at], &text[at..]]), *expected, "{text:?} cut at {at}");
            }
            let single: Vec<&[u8]> = text.chunks(1).collect();
            assert_eq!(write(&single), *expected, "{text:?} octet by octet");
        }
    }

    proptest! {
        #[test]
        fn only_the_last_line_is_a_dot_and_every_line_ends_in_crlf(
            text in prop::collection::vec(prop::sample::select(b"\r\n.ab\0".to_vec()), 0..60), at: prop::sample::Index
        ) {
            let at = at.index(text.len() + 1);
            let out = write(&[&text[..at], &text[at..]]);
            prop_assert!(out.ends_with(b".\r\n"));
            let body = &out[..out.len() - 3];
            prop_assert!(body.is_empty() || body.ends_with(b"\r\n"));
            for (i, byte) in out.iter().enumerate() {
                match byte {
                    b'\r' => prop_assert_eq!(out.get(i + 1), Some(&b'\n')),
                    b'\n' => prop_assert!(i > 0 && out[i - 1] == b'\r'),
                    _ => {}
                }
            }
            prop_assert!(!body.windows(5).any(|w| w == b"\r\n.\r\n") && !body.starts_with(b".\r\n"));
        }
    }
}
