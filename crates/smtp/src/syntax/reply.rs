use std::io::Write;

use types::Reply;

/// RFC 5321 section 4.5.3.1.5: code, text and CRLF.
pub const REPLY_LINE_OCTETS_MAX: usize = 512;
/// Lines of one reply; what comes after is left out.
const REPLY_LINES_MAX: usize = 100;

/// Writes a reply as it goes on the wire: every line with its codes (RFC 5321 section 4.2.1, RFC 2034), long lines broken.
///
/// Characters that are not ASCII become `?`: a client need not have asked for SMTPUTF8. A code that no reply has becomes 451.
pub fn write_reply(reply: &Reply, out: &mut Vec<u8>) {
    let code = if (200..600).contains(&reply.code) { reply.code } else { 451 };
    let mut prefix = Vec::with_capacity(16);
    if let Some(enhanced) = reply.enhanced {
        // Writing into a Vec cannot fail.
        let _ = write!(prefix, "{enhanced} ");
    }
    let text: Vec<u8> =
        reply.text().chars().map(|c| u8::try_from(c).ok().filter(u8::is_ascii).unwrap_or(b'?')).collect();
    let room = REPLY_LINE_OCTETS_MAX - 6 - prefix.len();
    let mut lines = text
        .split(|byte| *byte == b'\n')
        .flat_map(|line| line.chunks(room).chain(line.is_empty().then_some(line)))
        .take(REPLY_LINES_MAX)
        .peekable();
    while let Some(line) = lines.next() {
        let separator = if lines.peek().is_some() { '-' } else { ' ' };
        let _ = write!(out, "{code}{separator}");
        out.extend_from_slice(&prefix);
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(reply: &Reply) -> String {
        let mut out = Vec::new();
        write_reply(reply, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_line_of_a_reply_has_its_codes() {
        let cases = [
            (Reply::new(220, None, "ready"), "220 ready\r\n"),
            (Reply::enhanced(550, 5, 1, 1, "no such user"), "550 5.1.1 no such user\r\n"),
            (Reply::enhanced(550, 5, 7, 1, "one\ntwo"), "550-5.7.1 one\r\n550 5.7.1 two\r\n"),
            (Reply::new(250, None, ""), "250 \r\n"),
            (Reply::new(550, None, "a\r\n250 b"), "550-a?\r\n550 250 b\r\n"),
            (Reply::new(550, None, "für"), "550 f?r\r\n"),
            (Reply::new(99, None, "odd"), "451 odd\r\n"),
            (Reply::new(1250, None, "odd"), "451 odd\r\n"),
        ];
        for (reply, expected) in cases {
            assert_eq!(written(&reply), expected);
        }
    }

    #[test]
    fn a_long_text_becomes_lines_of_512_octets() {
        let text = written(&Reply::enhanced(554, 5, 7, 1, "x".repeat(1200)));
        let lines: Vec<&str> = text.split_inclusive("\r\n").collect();
        assert_eq!(lines.iter().map(|line| line.len()).collect::<Vec<_>>(), [512, 512, 212]);
        assert!(lines[0].starts_with("554-5.7.1 ") && lines[1].starts_with("554-5.7.1 "));
        assert!(lines[2].starts_with("554 5.7.1 "));
        let endless = written(&Reply::new(554, None, "\n".repeat(5000)));
        assert_eq!(endless.lines().count(), REPLY_LINES_MAX);
        assert!(endless.ends_with("554 \r\n"));
    }
}
