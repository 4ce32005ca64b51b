use bytes::Bytes;

use crate::header::{FieldStart, field_start};

/// Bounds of a header section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderLimits {
    /// Octets of the section.
    pub bytes_max: usize,
    /// Fields.
    pub fields_max: usize,
    /// Received fields: more is a loop (RFC 5321 section 6.3).
    pub received_max: usize,
}

/// The header section breaks a bound. What is pushed after it is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// More than [`HeaderLimits::bytes_max`].
    #[error("header section is too large")]
    TooLarge,
    /// More than [`HeaderLimits::fields_max`].
    #[error("too many header fields")]
    TooManyFields,
    /// More than [`HeaderLimits::received_max`].
    #[error("too many Received fields: mail loop")]
    TooManyReceived,
}

/// Parts a message that arrives in chunks: the header section is kept, the body is passed on without copying.
///
/// The header section ends at the first empty line, which belongs to neither part, or before the first line that is neither a field nor the continuation of one:
/// that line begins the body, as if an empty line stood before it.
#[derive(Debug)]
pub struct HeaderSplitter {
    limits: HeaderLimits,
    header: Vec<u8>,
    /// Where the line begins that has not ended yet.
    line_start: usize,
    /// The unfinished line is known to belong to the header section.
    line_is_header: bool,
    in_body: bool,
    fields: usize,
    received: usize,
}

impl HeaderSplitter {
    /// Starts before the first octet.
    pub fn new(limits: HeaderLimits) -> Self {
        Self {
            limits,
            header: Vec::new(),
            line_start: 0,
            line_is_header: false,
            in_body: false,
            fields: 0,
            received: 0,
        }
    }

    /// Takes the next octets; those of the body are appended to `body` as slices of `chunk`.
    pub fn push(&mut self, chunk: Bytes, body: &mut Vec<Bytes>) -> Result<(), HeaderFault> {
        let mut rest = chunk;
        while !self.in_body && !rest.is_empty() {
            let end = memchr::memchr(b'\n', &rest).map_or(rest.len(), |at| at + 1);
            // One octet beyond the bound is enough to tell, wherever the network cut: the body may begin with a long line.
            let room = self.limits.bytes_max.saturating_sub(self.header.len());
            self.header.extend_from_slice(&rest.split_to(end.min(room.saturating_add(1))));
            self.line(body)?;
        }
        if !rest.is_empty() {
            body.push(rest);
        }
        Ok(())
    }

    /// Ends the message and gives the header section: whole lines with CRLF, without the empty line.
    pub fn finish(mut self, body: &mut Vec<Bytes>) -> Vec<u8> {
        let line = &self.header[self.line_start..];
        if !self.line_is_header && !line.is_empty() {
            body.push(Bytes::copy_from_slice(line));
            self.header.truncate(self.line_start);
        } else if !line.is_empty() {
            if line.last() == Some(&b'\r') {
                self.header.pop();
            }
            self.header.extend_from_slice(b"\r\n");
        }
        self.header
    }

    /// Octets of the header section so far.
    pub fn header_len(&self) -> usize {
        self.header.len()
    }

    /// Looks at the line that has just grown.
    fn line(&mut self, body: &mut Vec<Bytes>) -> Result<(), HeaderFault> {
        if !self.line_is_header {
            self.classify(body)?;
            if self.in_body {
                return Ok(());
            }
        }
        // What may become the empty line belongs to no section.
        if self.header.len() > self.limits.bytes_max && self.header[self.line_start..] != *b"\r" {
            return Err(HeaderFault::TooLarge);
        }
        // Only CRLF ends a line: an LF on its own is text of the field.
        if self.header.ends_with(b"\r\n") {
            self.line_start = self.header.len();
            self.line_is_header = false;
        }
        Ok(())
    }

    fn classify(&mut self, body: &mut Vec<Bytes>) -> Result<(), HeaderFault> {
        let line = &self.header[self.line_start..];
        if line == b"\r" {
            return Ok(());
        }
        if line == b"\r\n" {
            self.header.truncate(self.line_start);
            self.in_body = true;
            return Ok(());
        }
        match field_start(line) {
            FieldStart::Undecided => {}
            FieldStart::Continuation if self.line_start > 0 => self.line_is_header = true,
            FieldStart::Field { colon } => {
                self.line_is_header = true;
                let is_received = line[..colon].trim_ascii_end().eq_ignore_ascii_case(b"received");
                return self.count(is_received);
            }
            FieldStart::Continuation | FieldStart::Other => {
                body.push(Bytes::copy_from_slice(line));
                self.header.truncate(self.line_start);
                self.in_body = true;
            }
        }
        Ok(())
    }

    fn count(&mut self, is_received: bool) -> Result<(), HeaderFault> {
        self.fields += 1;
        self.received += usize::from(is_received);
        if self.fields > self.limits.fields_max {
            return Err(HeaderFault::TooManyFields);
        }
        if self.received > self.limits.received_max {
            return Err(HeaderFault::TooManyReceived);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: HeaderLimits = HeaderLimits { bytes_max: 200, fields_max: 4, received_max: 2 };

    fn split(limits: HeaderLimits, chunks: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>), HeaderFault> {
        let mut splitter = HeaderSplitter::new(limits);
        let mut body = Vec::new();
        for chunk in chunks {
            splitter.push(Bytes::copy_from_slice(chunk), &mut body)?;
        }
        let header = splitter.finish(&mut body);
        Ok((header, body.concat()))
    }

    #[test]
    fn a_message_is_parted_at_its_first_empty_line_wherever_it_is_cut() {
        let long = format!("A: {}\r\n\r\nx", "a".repeat(200));
        // The bound is for the header section: a body may begin with a longer line, and the empty line is not counted.
        let body = format!("no field {}", "x".repeat(300));
        let exact = format!("A: {}\r\n\r\nx", "a".repeat(195));
        type Parts<'a> = Result<(&'a str, &'a str), HeaderFault>;
        let cases: &[(&str, Parts<'_>)] = &[
            (&body, Ok(("", body.as_str()))),
            (&exact, Ok((&exact[..200], "x"))),
            ("A: b\r\n\r\nbody\r\n\r\nmore", Ok(("A: b\r\n", "body\r\n\r\nmore"))),
            ("A: b\r\n c\r\n\r\n", Ok(("A: b\r\n c\r\n", ""))),
            ("A: b\r\n", Ok(("A: b\r\n", ""))),
            ("A: b", Ok(("A: b\r\n", ""))),
            ("A: b\r", Ok(("A: b\r\n", ""))),
            ("", Ok(("", ""))),
            ("\r\nbody", Ok(("", "body"))),
            ("no header\r\nA: b\r\n", Ok(("", "no header\r\nA: b\r\n"))),
            ("nothing", Ok(("", "nothing"))),
            (" A: b\r\n\r\nx", Ok(("", " A: b\r\n\r\nx"))),
            ("A: b\r\nno field\r\n\r\nx", Ok(("A: b\r\n", "no field\r\n\r\nx"))),
            ("A: b\r\nFr\0om: c\r\n\r\nx", Ok(("A: b\r\n", "Fr\0om: c\r\n\r\nx"))),
            ("A: b\n\n\r\nC: d\r\n\r\nx", Ok(("A: b\n\n\r\nC: d\r\n", "x"))),
            ("received: 1\r\nReceived : 2\r\n\r\n", Ok(("received: 1\r\nReceived : 2\r\n", ""))),
            ("Received: 1\r\nReceived: 2\r\nReceived: 3\r\n\r\n", Err(HeaderFault::TooManyReceived)),
            ("A:1\r\nA:2\r\nA:3\r\nA:4\r\nA:5\r\n\r\n", Err(HeaderFault::TooManyFields)),
            (&long, Err(HeaderFault::TooLarge)),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|(header, body)| (header.as_bytes().to_vec(), body.as_bytes().to_vec()));
            let bytes = text.as_bytes();
            assert_eq!(split(LIMITS, &[bytes]), expected, "{text:?}");
            for at in 0..=bytes.len() {
                assert_eq!(split(LIMITS, &[&bytes[..at], &bytes[at..]]), expected, "{text:?} cut at {at}");
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(split(LIMITS, &single), expected, "{text:?} octet by octet");
        }
    }

    #[test]
    fn the_body_is_passed_on_without_copying() {
        let chunk = Bytes::from_static(b"A: b\r\n\r\nbody");
        let mut body = Vec::new();
        let mut splitter = HeaderSplitter::new(LIMITS);
        splitter.push(chunk.clone(), &mut body).unwrap();
        assert_eq!(body.len(), 1);
        assert_eq!(body[0].as_ptr(), chunk[8..].as_ptr());
    }

    proptest! {
        #[test]
        fn every_message_is_parted_alike_however_it_is_cut(
            text in "([A-Za-z]{0,3}:? ?[a-z]{0,4}(\r\n|\n|\r)){0,8}.{0,5}", cuts in prop::collection::vec(0usize..80, 0..5)
        ) {
            let limits = HeaderLimits { bytes_max: 1000, fields_max: 100, received_max: 100 };
            let bytes = text.as_bytes();
            let whole = split(limits, &[bytes]).unwrap();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(split(limits, &parts).unwrap(), whole.clone());
            // Nothing is lost: what was read again is parted the same way.
            let again = [whole.0.as_slice(), b"\r\n", whole.1.as_slice()].concat();
            prop_assert_eq!(split(limits, &[&again]).unwrap(), whole);
        }
    }
}
