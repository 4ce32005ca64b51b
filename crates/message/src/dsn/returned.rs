//! The last part of a report: what comes back of the message.

use super::Returned;

/// Octets of a header section that come back; what follows is cut at a line end.
const HEADER_OCTETS_MAX: usize = 64 << 10;
/// RFC 5322 section 2.1.1.
const LINE_OCTETS_MAX: usize = 998;
/// RFC 2045 section 6.7.
const QUOTED_LINE_OCTETS_MAX: usize = 76;

/// A part of the report, ready to be written.
pub(super) struct Part {
    pub content_type: &'static str,
    pub encoding: &'static str,
    pub content: Vec<u8>,
}

/// Chooses the type and the encoding (RFC 6522 section 4, RFC 6533 section 5).
pub(super) fn part(header: &[u8], returned: &Returned<'_>, smtp_utf8: bool) -> Part {
    if let Returned::Full(body) = returned
        && header.len() <= HEADER_OCTETS_MAX
        && can_travel(header)
        && can_travel(body)
    {
        let mut content = Vec::with_capacity(header.len() + body.len() + 4);
        content.extend_from_slice(header);
        end_line(&mut content);
        content.extend_from_slice(b"\r\n");
        content.extend_from_slice(body);
        let content_type = if smtp_utf8 { "message/global" } else { "message/rfc822" };
        // RFC 2046 section 5.2.1: a message within a message is not encoded.
        return Part { content_type, encoding: encoding_of(&content), content };
    }
    let content_type = if smtp_utf8 { "message/global-headers" } else { "text/rfc822-headers" };
    let mut content = bounded(header).to_vec();
    end_line(&mut content);
    if can_travel(&content) {
        return Part { content_type, encoding: encoding_of(&content), content };
    }
    Part { content_type, encoding: "quoted-printable", content: quoted_printable(&content) }
}

/// Whether octets may go as 8BITMIME (RFC 6152): no NUL, CR and LF only in pairs, lines within their length.
fn can_travel(octets: &[u8]) -> bool {
    if memchr::memchr(0, octets).is_some() {
        return false;
    }
    let mut start = 0;
    for at in memchr::memchr2_iter(b'\r', b'\n', octets) {
        if octets[at] == b'\r' {
            if octets.get(at + 1) != Some(&b'\n') || at - start > LINE_OCTETS_MAX {
                return false;
            }
            start = at + 2;
        } else if at + 1 != start {
            return false;
        }
    }
    octets.len().saturating_sub(start) <= LINE_OCTETS_MAX
}

pub(super) fn encoding_of(octets: &[u8]) -> &'static str {
    if octets.is_ascii() { "7bit" } else { "8bit" }
}

fn bounded(header: &[u8]) -> &[u8] {
    if header.len() <= HEADER_OCTETS_MAX {
        return header;
    }
    let cut = &header[..HEADER_OCTETS_MAX];
    &cut[..memchr::memrchr(b'\n', cut).map_or(cut.len(), |at| at + 1)]
}

fn end_line(content: &mut Vec<u8>) {
    if !content.is_empty() && !content.ends_with(b"\r\n") {
        content.extend_from_slice(b"\r\n");
    }
}

/// RFC 2045 section 6.7. Only CRLF is a line end: other CRs and LFs are encoded.
fn quoted_printable(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len() + octets.len() / 8);
    let mut column = 0;
    let mut i = 0;
    while i < octets.len() {
        if octets[i..].starts_with(b"\r\n") {
            out.extend_from_slice(b"\r\n");
            column = 0;
            i += 2;
            continue;
        }
        let octet = octets[i];
        let ends_line = i + 1 == octets.len() || octets[i + 1..].starts_with(b"\r\n");
        let literal = match octet {
            b' ' | b'\t' => !ends_line,
            b'=' => false,
            other => other.is_ascii_graphic(),
        };
        let width = if literal { 1 } else { 3 };
        // One column is kept for the `=` of a soft line break.
        if column + width >= QUOTED_LINE_OCTETS_MAX {
            out.extend_from_slice(b"=\r\n");
            column = 0;
        }
        if literal {
            out.push(octet);
        } else {
            out.extend_from_slice(format!("={octet:02X}").as_bytes());
        }
        column += width;
        i += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_smtp_carries_come_back_as_they_are() {
        let long = vec![b'a'; 999];
        let fits = [&long[..998], b"\r\n", &long[..998]].concat();
        let cases: &[(&[u8], bool)] = &[
            (b"", true),
            (b"a: b\r\n", true),
            (b"\r\n\r\n", true),
            ("a: \u{fc}\r\n".as_bytes(), true),
            (&fits, true),
            (&long, false),
            (b"a\nb", false),
            (b"a\n", false),
            (b"\n", false),
            (b"a\r", false),
            (b"a\rb", false),
            (b"a\r\r\n", false),
            (b"a\r\n\n", false),
            (b"a\0b", false),
        ];
        for (octets, expected) in cases {
            assert_eq!(can_travel(octets), *expected, "{:?}", String::from_utf8_lossy(octets));
        }
    }

    #[test]
    fn a_body_that_smtp_cannot_carry_stays_behind_and_a_header_is_encoded() {
        let full = part(b"A: b\r\n", &Returned::Full(b"text\r\n"), false);
        assert_eq!((full.content_type, full.encoding), ("message/rfc822", "7bit"));
        assert_eq!(full.content, b"A: b\r\n\r\ntext\r\n");
        let binary = part(b"A: b\r\n", &Returned::Full(b"te\0xt"), false);
        assert_eq!((binary.content_type, binary.encoding), ("text/rfc822-headers", "7bit"));
        let hostile = part(b"A: b\rInjected: c\0=\r\n", &Returned::Headers, false);
        assert_eq!(hostile.encoding, "quoted-printable");
        assert_eq!(hostile.content, b"A: b=0DInjected: c=00=3D\r\n");
        let international = part("A: \u{fc}\r\n".as_bytes(), &Returned::Full(b""), true);
        assert_eq!((international.content_type, international.encoding), ("message/global", "8bit"));
    }

    #[test]
    fn quoted_lines_stay_within_76_octets() {
        let encoded = quoted_printable(&[vec![b'a'; 300], vec![0xff; 300]].concat());
        assert!(encoded.split(|b| *b == b'\n').all(|line| line.strip_suffix(b"\r").unwrap_or(line).len() <= 76));
    }

    #[test]
    fn a_huge_header_section_is_cut_at_a_line_end() {
        let header = b"A: 0123456789\r\n".repeat(10_000);
        let part = part(&header, &Returned::Headers, false);
        assert!(part.content.len() <= HEADER_OCTETS_MAX && part.content.ends_with(b"9\r\n"));
    }
}
