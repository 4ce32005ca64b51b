//! Reads a report back: only as much as it takes to check one.

use memchr::memmem;

/// Name and unfolded value.
pub type Field = (String, String);

/// What a multipart/report says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParsedReport {
    /// Header fields of the report itself.
    pub header: Vec<Field>,
    /// The part for people.
    pub text: String,
    /// Per-message fields (RFC 3464 section 2.2).
    pub message: Vec<Field>,
    /// Per-recipient fields (RFC 3464 section 2.3).
    pub recipients: Vec<Vec<Field>>,
    /// Content type of the last part.
    pub returned_type: String,
    /// Content of the last part, not decoded.
    pub returned: Vec<u8>,
}

impl ParsedReport {
    /// The first field of a name in `fields`, in any case.
    pub fn value<'f>(fields: &'f [Field], name: &str) -> Option<&'f str> {
        fields.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Parses a whole message; `None` where it is no multipart/report of three parts.
pub fn parse_report(message: &[u8]) -> Option<ParsedReport> {
    let (header, body) = split(message);
    let header = fields(header);
    let content_type = ParsedReport::value(&header, "Content-Type")?;
    if !content_type.starts_with("multipart/report") {
        return None;
    }
    let boundary = content_type.split_once("boundary=\"")?.1.split_once('"')?.0;
    let delimiter = format!("\r\n--{boundary}");
    // The first delimiter needs no line end before it.
    let whole = [b"\r\n".as_slice(), body].concat();
    let mut starts = memmem::find_iter(&whole, delimiter.as_bytes()).map(|at| at + delimiter.len());
    let (text, status, returned, end) = (starts.next()?, starts.next()?, starts.next()?, starts.next()?);
    if starts.next().is_some() || !whole[end..].starts_with(b"--") {
        return None;
    }
    let part = |start: usize, next: usize| Some(split(whole[start..next - delimiter.len()].strip_prefix(b"\r\n")?));
    let (_, text) = part(text, status)?;
    let (_, groups) = part(status, returned)?;
    let (returned_header, returned) = part(returned, end)?;
    let mut groups = split_groups(groups).into_iter().map(fields).filter(|group| !group.is_empty());
    Some(ParsedReport {
        text: String::from_utf8_lossy(text).into_owned(),
        message: groups.next()?,
        recipients: groups.collect(),
        returned_type: ParsedReport::value(&fields(returned_header), "Content-Type")?.to_owned(),
        returned: returned.to_vec(),
        header,
    })
}

fn split(text: &[u8]) -> (&[u8], &[u8]) {
    match memmem::find(text, b"\r\n\r\n") {
        Some(at) => (&text[..at + 2], &text[at + 4..]),
        None => (text, b""),
    }
}

fn split_groups(mut text: &[u8]) -> Vec<&[u8]> {
    let mut groups = Vec::new();
    while let Some(at) = memmem::find(text, b"\r\n\r\n") {
        groups.push(&text[..at + 2]);
        text = &text[at + 4..];
    }
    groups.push(text);
    groups
}

fn fields(header: &[u8]) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    for line in String::from_utf8_lossy(header).split("\r\n").filter(|line| !line.is_empty()) {
        match (line.starts_with([' ', '\t']), fields.last_mut(), line.split_once(':')) {
            (true, Some((_, value)), _) => {
                value.push(' ');
                value.push_str(line.trim());
            }
            (_, _, Some((name, value))) => fields.push((name.to_owned(), value.trim().to_owned())),
            (_, _, None) => fields.push((line.to_owned(), String::new())),
        }
    }
    fields
}
