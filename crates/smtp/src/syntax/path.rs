use types::{Address, AddressError, Domain};

/// A reverse-path or forward-path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// `<>`.
    Null,
    /// `<postmaster>` in any case (RFC 5321 section 4.1.1.3).
    Postmaster,
    /// A mailbox.
    Address(Address),
}

/// Says why a text does not begin with a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// RFC 5321 section 4.1.2 asks for angle brackets.
    #[error("path is not in angle brackets")]
    Brackets,
    /// A source route that is no list of `@domain`.
    #[error("source route is not a list of @domain")]
    Route,
    /// The mailbox is faulty.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Its local part reads as a command of a shell.
    #[error("local part begins with |, or holds ` or $(")]
    Shell,
}

/// Takes a path off the front of `text`; returns it and what follows the closing bracket.
///
/// A source route is checked and dropped (RFC 5321 section 4.1.1.3 and appendix C): the mailbox behind it is what counts.
pub fn parse_path(text: &str) -> Result<(Path, &str), PathError> {
    let inner = text.strip_prefix('<').ok_or(PathError::Brackets)?;
    let end = closing_bracket(inner).ok_or(PathError::Brackets)?;
    let (inner, rest) = (&inner[..end], &inner[end + 1..]);
    if inner.is_empty() {
        return Ok((Path::Null, rest));
    }
    if inner.eq_ignore_ascii_case("postmaster") {
        return Ok((Path::Postmaster, rest));
    }
    let address = Address::parse(without_route(inner)?)?;
    if reads_as_a_command(address.local()) { Err(PathError::Shell) } else { Ok((Path::Address(address), rest)) }
}

/// `|command`, `` `command` ``, `$(command)`: some are addresses by RFC 5321, nobody has one, and what mail passes through behind us (a
/// program, a script over a mailbox, another server's aliases) may hold it for a command.
fn reads_as_a_command(local: &str) -> bool {
    local.starts_with('|') || local.contains('`') || local.contains("$(")
}

/// The first `>` outside a quoted string.
fn closing_bracket(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

fn without_route(text: &str) -> Result<&str, PathError> {
    if !text.starts_with('@') {
        return Ok(text);
    }
    let (route, mailbox) = text.split_once(':').ok_or(PathError::Route)?;
    for hop in route.split(',') {
        hop.strip_prefix('@').and_then(|domain| Domain::parse(domain).ok()).ok_or(PathError::Route)?;
    }
    Ok(mailbox)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_in_brackets_and_lose_their_source_route() {
        for (text, expected) in [
            ("<>", Some(("<>", ""))),
            ("<> SIZE=1", Some(("<>", " SIZE=1"))),
            ("<PostMaster>", Some(("postmaster", ""))),
            ("<a@b> X", Some(("a@b", " X"))),
            ("<@x,@y.example:a@b>", Some(("a@b", ""))),
            ("<@us:user@dom>", Some(("user@dom", ""))),
            ("<\"a>b\"@c>", Some(("\"a>b\"@c", ""))),
            ("<\"a\\\">b\"@c>", Some(("\"a\\\">b\"@c", ""))),
            ("<a@[127.0.0.1]>", Some(("a@[127.0.0.1]", ""))),
            ("a@b", None),
            ("<a@b", None),
            ("a@b>", None),
            ("<a@b\">", None),
            ("<a>", None),
            ("<@x:>", None),
            ("<@x,y:a@b>", None),
            ("<@:a@b>", None),
            ("<@x>", None),
            ("<a@b@c>", None),
            ("< a@b>", None),
            ("<a@b.>", None),
            ("<|id@b>", None),
            ("<\"|id\"@b>", None),
            ("<`id`@b>", None),
            ("<\"$(id)\"@b>", None),
            ("<a|b@c>", Some(("a|b@c", ""))),
            ("<${run{/bin/id}}@c>", Some(("${run{/bin/id}}@c", ""))),
            ("<a@>", None),
            ("", None),
        ] {
            let found = parse_path(text).ok().map(|(path, rest)| {
                let path = match path {
                    Path::Null => "<>".to_owned(),
                    Path::Postmaster => "postmaster".to_owned(),
                    Path::Address(address) => address.to_string(),
                };
                (path, rest)
            });
            assert_eq!(found.as_ref().map(|(p, r)| (&**p, *r)), expected, "{text:?}");
        }
    }
}
