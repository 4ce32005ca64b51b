//! The text on stdin becomes a message as SMTP carries it.

/// What is done to the text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options<'a> {
    /// A line with a single dot ends it.
    pub(super) dot_ends: bool,
    /// Recipients are those of To, Cc and Bcc too.
    pub(super) recipients_of_header: bool,
    /// Name in a From that is added.
    pub(super) full_name: Option<&'a str>,
    /// Address in a From that is added.
    pub(super) from: &'a str,
}

/// What became of the text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Prepared {
    /// CRLF line ends only, neither dot-stuffed nor with the final dot.
    pub(super) message: Vec<u8>,
    /// Of To, Cc and Bcc, as written.
    pub(super) recipients: Vec<String>,
}

/// Prepares a message. The only error is a field of recipients that cannot be read.
pub(super) fn prepare(input: &[u8], options: &Options<'_>) -> Result<Prepared, String> {
    let lines = lines(input, options.dot_ends);
    let (fields, body) = split(&lines);
    let mut recipients = Vec::new();
    if options.recipients_of_header {
        for field in recipient_fields(&fields) {
            addresses(&field.value(), &mut recipients).map_err(|why| format!("{}: {why}", field.name()))?;
        }
    }
    let mut message = Vec::with_capacity(input.len() + input.len() / 32 + 256);
    if !fields.iter().any(|field| field.is("From")) {
        message.extend_from_slice(from_field(options).as_bytes());
    }
    for field in fields.iter().filter(|field| !field.is("Bcc") && !field.is("Resent-Bcc")) {
        for line in &field.lines {
            message.extend_from_slice(line);
            message.extend_from_slice(b"\r\n");
        }
    }
    message.extend_from_slice(b"\r\n");
    for line in body {
        message.extend_from_slice(line);
        message.extend_from_slice(b"\r\n");
    }
    Ok(Prepared { message, recipients })
}

/// Lines without their ends. LF, CRLF and a lone CR each end one; programs that write CRCRLF mean one end.
fn lines(input: &[u8], dot_ends: bool) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut rest = input;
    while !rest.is_empty() {
        let length = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(rest.len());
        let line = &rest[..length];
        rest = &rest[length..];
        let returns = rest.iter().take_while(|byte| **byte == b'\r').count();
        let end = if rest.get(returns) == Some(&b'\n') { returns + 1 } else { returns.min(1) };
        rest = &rest[end..];
        if dot_ends && line == b"." {
            break;
        }
        lines.push(line);
    }
    lines
}

/// A header field: its first line and those that continue it.
#[derive(Debug)]
struct Field<'a> {
    lines: Vec<&'a [u8]>,
    name_length: usize,
}

impl Field<'_> {
    fn name(&self) -> String {
        String::from_utf8_lossy(&self.lines[0][..self.name_length]).into_owned()
    }

    fn is(&self, name: &str) -> bool {
        self.lines[0][..self.name_length].eq_ignore_ascii_case(name.as_bytes())
    }

    /// Unfolded.
    fn value(&self) -> String {
        let whole = self.lines.concat();
        let colon = whole.iter().position(|byte| *byte == b':').map_or(whole.len(), |at| at + 1);
        String::from_utf8_lossy(&whole[colon..]).into_owned()
    }
}

/// The header section ends at the first empty line, or at the first line that is no field: what programs write that know
/// of no header is all body.
fn split<'a, 'b>(lines: &'b [&'a [u8]]) -> (Vec<Field<'a>>, &'b [&'a [u8]]) {
    let mut fields: Vec<Field<'a>> = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        if line.is_empty() {
            return (fields, &lines[n + 1..]);
        }
        // The separator of mbox files is no field.
        if n == 0 && line.starts_with(b"From ") {
            continue;
        }
        if matches!(line[0], b' ' | b'\t') {
            match fields.last_mut() {
                Some(field) => field.lines.push(line),
                None => return (fields, &lines[n..]),
            }
            continue;
        }
        match name_length(line) {
            Some(name_length) => fields.push(Field { lines: vec![line], name_length }),
            None => return (fields, &lines[n..]),
        }
    }
    (fields, &[])
}

/// RFC 5322 section 3.6.8: printable, no colon; space before the colon is obsolete and seen.
fn name_length(line: &[u8]) -> Option<usize> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = line[..colon].trim_ascii_end();
    (!name.is_empty() && name.iter().all(u8::is_ascii_graphic)).then_some(name.len())
}

/// RFC 5322 section 3.6.6: what is sent again goes to those it is sent again to.
fn recipient_fields<'a, 'b>(fields: &'b [Field<'a>]) -> Vec<&'b Field<'a>> {
    let named = |names: [&str; 3]| -> Vec<&'b Field<'a>> {
        fields.iter().filter(|field| names.iter().any(|name| field.is(name))).collect()
    };
    let resent = named(["Resent-To", "Resent-Cc", "Resent-Bcc"]);
    if resent.is_empty() { named(["To", "Cc", "Bcc"]) } else { resent }
}

fn from_field(options: &Options<'_>) -> String {
    // What comes from a command line must not be able to add fields.
    let clean = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    let from = clean(options.from);
    match options.full_name.map(clean).filter(|name| !name.is_empty()) {
        Some(name) => format!("From: \"{}\" <{from}>\r\n", name.replace('\\', "\\\\").replace('"', "\\\"")),
        None => format!("From: {from}\r\n"),
    }
}

/// The addresses of an address list (RFC 5322 section 3.4): display names, comments and group names left out.
fn addresses(value: &str, found: &mut Vec<String>) -> Result<(), String> {
    let mut current = String::new();
    let mut bracketed: Option<String> = None;
    let mut in_brackets = false;
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                let quoted = quoted(&mut chars)?;
                (if in_brackets { bracketed.get_or_insert_default() } else { &mut current }).push_str(&quoted);
            }
            '(' => comment(&mut chars)?,
            '<' if !in_brackets => {
                in_brackets = true;
                bracketed = Some(String::new());
            }
            '>' if in_brackets => in_brackets = false,
            ',' | ';' if !in_brackets => {
                take(&mut current, &mut bracketed, found);
            }
            // What was before is the name of a group.
            ':' if !in_brackets => current.clear(),
            c if in_brackets => bracketed.get_or_insert_default().push(c),
            c => current.push(c),
        }
    }
    if in_brackets {
        return Err("a `<` is not closed".to_owned());
    }
    take(&mut current, &mut bracketed, found);
    Ok(())
}

fn take(current: &mut String, bracketed: &mut Option<String>, found: &mut Vec<String>) {
    let address = bracketed.take().unwrap_or_else(|| current.clone());
    current.clear();
    let address: String = address.trim().to_owned();
    // RFC 5321 section 4.1.2: a source route is ignored.
    let address = match address.split_once(':') {
        Some((route, rest)) if route.starts_with('@') => rest.to_owned(),
        _ => address,
    };
    if !address.is_empty() {
        found.push(address);
    }
}

/// A quoted string behind its first quote, with its quotes: it may be a local part.
fn quoted(chars: &mut std::str::Chars<'_>) -> Result<String, String> {
    let mut text = String::from('"');
    while let Some(c) = chars.next() {
        text.push(c);
        match c {
            '"' => return Ok(text),
            '\\' => text.extend(chars.next()),
            _ => {}
        }
    }
    Err("a `\"` is not closed".to_owned())
}

fn comment(chars: &mut std::str::Chars<'_>) -> Result<(), String> {
    let mut depth = 1usize;
    while let Some(c) = chars.next() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            '\\' => drop(chars.next()),
            _ => {}
        }
        if depth == 0 {
            return Ok(());
        }
    }
    Err("a `(` is not closed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: Options<'static> =
        Options { dot_ends: true, recipients_of_header: true, full_name: None, from: "root@mx.example.org" };

    #[track_caller]
    fn check(input: &str, options: Options<'_>, message: &str, recipients: &[&str]) {
        let prepared = prepare(input.as_bytes(), &options).unwrap();
        assert_eq!(String::from_utf8_lossy(&prepared.message), message, "{input:?}");
        assert_eq!(prepared.recipients, recipients, "{input:?}");
    }

    #[test]
    fn line_ends_become_crlf() {
        let cases = [
            ("From: a\n\nx\ny\n", "From: a\r\n\r\nx\r\ny\r\n"),
            ("From: a\r\n\r\nx\r\n", "From: a\r\n\r\nx\r\n"),
            ("From: a\n\nx", "From: a\r\n\r\nx\r\n"),
            ("From: a\n\nx\ry\r\r\nz\n", "From: a\r\n\r\nx\r\ny\r\nz\r\n"),
            ("From: a\n\n\n\n", "From: a\r\n\r\n\r\n\r\n"),
            ("From: a\n", "From: a\r\n\r\n"),
        ];
        for (input, message) in cases {
            check(input, OPTIONS, message, &[]);
        }
    }

    #[test]
    fn a_single_dot_ends_the_text_unless_dots_are_ignored() {
        let input = "From: a\n\nx\n.\n..\ny\n";
        check(input, OPTIONS, "From: a\r\n\r\nx\r\n", &[]);
        check(input, Options { dot_ends: false, ..OPTIONS }, "From: a\r\n\r\nx\r\n.\r\n..\r\ny\r\n", &[]);
    }

    #[test]
    fn a_missing_from_is_added_and_cannot_be_abused() {
        let named = |full_name| Options { full_name: Some(full_name), ..OPTIONS };
        check("Subject: s\n\nx\n", OPTIONS, "From: root@mx.example.org\r\nSubject: s\r\n\r\nx\r\n", &[]);
        check(
            "\nx\n",
            named("Cron \"Daemon\""),
            "From: \"Cron \\\"Daemon\\\"\" <root@mx.example.org>\r\n\r\nx\r\n",
            &[],
        );
        check("\nx\n", named("a\r\nBcc: b"), "From: \"aBcc: b\" <root@mx.example.org>\r\n\r\nx\r\n", &[]);
        check("FROM : a\n\nx\n", named("n"), "FROM : a\r\n\r\nx\r\n", &[]);
    }

    #[test]
    fn a_text_without_header_is_all_body() {
        let from = "From: root@mx.example.org\r\n\r\n";
        check("hello world\nSubject: x\n", OPTIONS, &format!("{from}hello world\r\nSubject: x\r\n"), &[]);
        check(" indented\n", OPTIONS, &format!("{from} indented\r\n"), &[]);
        check("", OPTIONS, from, &[]);
        // An mbox separator is dropped; a line in the header that is no field begins the body.
        check("From a Mon\nFrom: a\noops\n\nx\n", OPTIONS, "From: a\r\n\r\noops\r\n\r\nx\r\n", &[]);
    }

    #[test]
    fn recipients_come_from_the_header_and_bcc_goes() {
        check(
            "From: a\nTo: b@x, \"Doe, J\" <c@x>\nCc: (c, d) e@x\nBcc: hidden@x,\n more@x\nSubject: s\n\nx\n",
            OPTIONS,
            "From: a\r\nTo: b@x, \"Doe, J\" <c@x>\r\nCc: (c, d) e@x\r\nSubject: s\r\n\r\nx\r\n",
            &["b@x", "c@x", "e@x", "hidden@x", "more@x"],
        );
        let only_given = Options { recipients_of_header: false, ..OPTIONS };
        check("From: a\nTo: b@x\nBcc: c@x\n\nx\n", only_given, "From: a\r\nTo: b@x\r\n\r\nx\r\n", &[]);
        check(
            "From: a\nTo: b@x\nResent-To: c@x\n\n",
            OPTIONS,
            "From: a\r\nTo: b@x\r\nResent-To: c@x\r\n\r\n",
            &["c@x"],
        );
    }

    #[test]
    fn address_lists_are_read() {
        let cases: [(&str, &[&str]); 9] = [
            ("a@x", &["a@x"]),
            ("a@x,, b@x ,", &["a@x", "b@x"]),
            ("root", &["root"]),
            ("Friends: a@x, B <b@x>; c@x", &["a@x", "b@x", "c@x"]),
            ("undisclosed-recipients:;", &[]),
            ("\"odd local\"@x", &["\"odd local\"@x"]),
            ("<\"odd local\"@x>", &["\"odd local\"@x"]),
            ("<@relay:a@x>", &["a@x"]),
            ("N (nested (c) \\) d) <a@x> (e)", &["a@x"]),
        ];
        for (value, expected) in cases {
            let mut found = Vec::new();
            addresses(value, &mut found).unwrap();
            assert_eq!(found, expected, "{value}");
        }
        for value in ["<a@x", "\"a", "(a"] {
            assert!(addresses(value, &mut Vec::new()).is_err(), "{value}");
        }
    }

    #[test]
    fn octets_that_are_no_text_survive() {
        let prepared = prepare(b"From: a\n\n\xff\xfe\n", &OPTIONS).unwrap();
        assert_eq!(prepared.message, b"From: a\r\n\r\n\xff\xfe\r\n");
    }
}
