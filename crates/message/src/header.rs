use std::borrow::Cow;

/// RFC 5322 section 2.1.1: octets of a line without CRLF. What we generate never exceeds it.
pub const LINE_OCTETS_MAX: usize = 998;

/// One header field, folded as it was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    raw: &'a [u8],
    colon: usize,
}

impl<'a> Field<'a> {
    /// The whole field with its last CRLF.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The name, without the white space that obsolete syntax allows before the colon (RFC 5322 section 4.5).
    pub fn name(&self) -> &'a [u8] {
        self.raw[..self.colon].trim_ascii_end()
    }

    /// Whether this is the name, in any case.
    pub fn is(&self, name: &str) -> bool {
        self.name().eq_ignore_ascii_case(name.as_bytes())
    }

    /// What follows the colon, folded, without the last CRLF.
    pub fn value(&self) -> &'a [u8] {
        let value = self.raw.get(self.colon + 1..).unwrap_or_default();
        let value = value.strip_suffix(b"\n").unwrap_or(value);
        value.strip_suffix(b"\r").unwrap_or(value)
    }

    /// The value on one line, without white space at its ends. Octets that are not UTF-8 are replaced.
    pub fn unfolded(&self) -> Cow<'a, str> {
        match String::from_utf8_lossy(self.value().trim_ascii()) {
            // RFC 5322 section 2.2.3: unfolding removes CRLF only; a CR or LF on its own goes with it.
            text if text.contains(['\r', '\n']) => {
                Cow::Owned(text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect())
            }
            text => text,
        }
    }
}

/// The fields of a header section, top down. Lines that belong to no field are passed over.
pub fn fields(header: &[u8]) -> Fields<'_> {
    Fields { rest: header }
}

/// Iterator of [`fields`].
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        while !self.rest.is_empty() {
            let (raw, rest) = self.rest.split_at(field_end(self.rest));
            self.rest = rest;
            if let FieldStart::Field { colon } = field_start(raw) {
                return Some(Field { raw, colon });
            }
        }
        None
    }
}

/// Where the field at the start of `text` ends: behind the first line that is not continued.
fn field_end(text: &[u8]) -> usize {
    let mut end = 0;
    while let Some(at) = memchr::memchr(b'\n', &text[end..]) {
        end += at + 1;
        if !matches!(text.get(end), Some(b' ' | b'\t')) {
            return end;
        }
    }
    text.len()
}

/// What the start of a line says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldStart {
    /// It begins a field.
    Field { colon: usize },
    /// It goes on with the field before it.
    Continuation,
    /// More octets are needed.
    Undecided,
    /// It is no line of a header section.
    Other,
}

/// Reads a line, or the part of it that is there. The one place that says what a header field is (S12).
pub(crate) fn field_start(line: &[u8]) -> FieldStart {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return FieldStart::Continuation;
    }
    let name = line.iter().take_while(|b| is_name_octet(**b)).count();
    if name > LINE_OCTETS_MAX {
        return FieldStart::Other;
    }
    let space = line[name..].iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    match line.get(name + space) {
        _ if space > LINE_OCTETS_MAX => FieldStart::Other,
        Some(b':') if name > 0 => FieldStart::Field { colon: name + space },
        None => FieldStart::Undecided,
        Some(_) => FieldStart::Other,
    }
}

/// RFC 5322 section 3.6.8: ftext.
fn is_name_octet(byte: u8) -> bool {
    (33..=126).contains(&byte) && byte != b':'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_walked_top_down_with_their_folded_values() {
        let header = b"Subject: one\r\n two\r\nfrom : a@b\r\nX:\r\nNo field\r\nTo: c@d\r\n";
        let found: Vec<(&[u8], String)> =
            fields(header).map(|field| (field.name(), field.unfolded().into_owned())).collect();
        let expected: Vec<(&[u8], String)> = [("Subject", "one two"), ("from", "a@b"), ("X", ""), ("To", "c@d")]
            .map(|(name, value)| (name.as_bytes(), value.to_owned()))
            .into();
        assert_eq!(found, expected);
        assert_eq!(fields(header).next().map(|field| field.raw()), Some(b"Subject: one\r\n two\r\n".as_slice()));
        assert!(fields(header).nth(1).is_some_and(|field| field.is("FROM")));
    }

    #[test]
    fn a_line_is_a_field_only_with_a_clean_name_and_a_colon() {
        let long = vec![b'a'; LINE_OCTETS_MAX + 1];
        let cases: &[(&[u8], FieldStart)] = &[
            (b"From: x", FieldStart::Field { colon: 4 }),
            (b"From \t: x", FieldStart::Field { colon: 6 }),
            (b"From", FieldStart::Undecided),
            (b"From ", FieldStart::Undecided),
            (b"", FieldStart::Undecided),
            (b"From x", FieldStart::Other),
            (b": x", FieldStart::Other),
            (b"Fr\0om: x", FieldStart::Other),
            (b"\xffrom: x", FieldStart::Other),
            (b" x: y", FieldStart::Continuation),
            (&long, FieldStart::Other),
        ];
        for (line, expected) in cases {
            assert_eq!(field_start(line), *expected, "{}", String::from_utf8_lossy(line));
        }
    }
}
