//! Takes values off the front of an input.

use std::borrow::Cow;

/// The rest of an input. What is not there any more is zero or empty.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn octet(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.octet() & 1 == 1
    }

    pub(crate) fn number(&mut self) -> i64 {
        i64::from_le_bytes(std::array::from_fn(|_| self.octet()))
    }

    /// Octets up to the next 0xFF: a mark that no UTF-8 holds, so that a mutation moves one part and not all of them.
    pub(crate) fn part(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|octet| *octet == 0xff).unwrap_or(self.0.len());
        let part = &self.0[..end];
        self.0 = self.0.get(end + 1..).unwrap_or_default();
        part
    }

    pub(crate) fn text(&mut self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.part())
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }
}

/// Where a network cuts, from one number: the same number cuts the same way.
pub(crate) struct Cuts(u32);

impl Cuts {
    pub(crate) fn new(seed: u8) -> Self {
        Self(u32::from(seed))
    }

    /// Octets of the next piece of `left`; always one where the seed is zero.
    pub(crate) fn next(&mut self, left: usize) -> usize {
        if self.0 == 0 {
            return left.min(1);
        }
        // A linear congruential generator (Numerical Recipes) is random enough for this.
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) | 1;
        let size = match self.0 >> 29 {
            0..4 => 1 + (self.0 >> 16) % 3,
            4..6 => 1 + (self.0 >> 16) % 17,
            _ => 1 + (self.0 >> 16) % 400,
        };
        left.min(size as usize)
    }
}

/// Checks a line that we generate: no CR or LF on its own, at most 998 octets (S11).
pub(crate) fn check_lines(octets: &[u8]) {
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        let line =
            line.strip_suffix(b"\r\n").unwrap_or_else(|| panic!("no CRLF ends {:?}", line.escape_ascii().to_string()));
        assert!(line.len() <= message::LINE_OCTETS_MAX, "a line of {} octets", line.len());
        assert!(!line.contains(&b'\r') && !line.contains(&b'\n'), "{:?}", line.escape_ascii().to_string());
    }
}
