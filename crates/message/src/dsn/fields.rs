//! Header lines that cannot be broken out of.

use jiff::tz::TimeZone;
use types::Timestamp;

/// RFC 5322 section 2.1.1: lines should be no longer.
const LINE_OCTETS_SOFT: usize = 78;
/// A word that is longer is broken: with its fold it stays well below the 998 octets of RFC 5322 section 2.1.1.
const WORD_OCTETS_MAX: usize = 900;
/// Octets of one field's value. What a remote server says is cut here.
const VALUE_OCTETS_MAX: usize = 4096;

/// Which characters a field may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Charset {
    /// The rest is written as `\x{XX}` (RFC 6533 section 3, utf-8-addr-xtext).
    Ascii,
    /// RFC 6532.
    Utf8,
}

/// Appends `name: value`, folded between words. Controls in `value` become spaces, so that it stays one field.
pub(super) fn push_field(out: &mut Vec<u8>, charset: Charset, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    let mut column = name.len() + 1;
    let value = plain(value, charset);
    for word in value.split(' ').filter(|word| !word.is_empty()) {
        let mut rest = word;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(boundary_at(rest, WORD_OCTETS_MAX));
            // The first word stays beside the name, where it fits a line at all.
            let first = column == name.len() + 1;
            if column + 1 + piece.len() > LINE_OCTETS_SOFT && !(first && piece.len() <= WORD_OCTETS_MAX) {
                out.extend_from_slice(b"\r\n");
                column = 0;
            }
            out.push(b' ');
            out.extend_from_slice(piece.as_bytes());
            column += 1 + piece.len();
            rest = after;
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// `value` without controls, bounded, in `charset`.
pub(super) fn plain(value: &str, charset: Charset) -> String {
    let value = &value[..boundary_at(value, VALUE_OCTETS_MAX)];
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            c if is_break(c) => out.push(' '),
            c if c.is_ascii() || charset == Charset::Utf8 => out.push(c),
            c => out.push_str(&format!("\\x{{{:X}}}", u32::from(c))),
        }
    }
    out
}

/// What came as xtext and may not stand in a field goes back to xtext (RFC 3461 section 4): `+0D`.
pub(super) fn re_encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if is_break(c) {
            let mut octets = [0; 4];
            for octet in c.encode_utf8(&mut octets).bytes() {
                out.push_str(&format!("+{octet:02X}"));
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// Controls, and what Unicode takes for a line end.
fn is_break(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// The largest character boundary of `text` that is not over `octets`.
pub(super) fn boundary_at(text: &str, octets: usize) -> usize {
    text.floor_char_boundary(octets)
}

/// RFC 5322 section 3.3, in UTC.
pub(super) fn date(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.unix_ms())
        .ok()
        .and_then(|at| jiff::fmt::rfc2822::to_string(&at.to_zoned(TimeZone::UTC)).ok())
        // Outside the years that RFC 5322 can write.
        .unwrap_or_else(|| "Thu, 1 Jan 1970 00:00:00 +0000".to_owned())
}
