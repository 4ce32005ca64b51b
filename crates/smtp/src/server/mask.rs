use std::borrow::Cow;

/// A line of the client as people may see it: the initial response of AUTH becomes `***`.
///
/// Lines that answer a challenge are recognised by [`super::Session::masks_input`] only.
pub fn mask(line: &[u8]) -> Cow<'_, [u8]> {
    let text = line.trim_ascii_start();
    if !text.get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH")) {
        return Cow::Borrowed(line);
    }
    let mechanism = text[4..].trim_ascii_start();
    let Some(end) = mechanism.iter().position(u8::is_ascii_whitespace) else {
        return Cow::Borrowed(line);
    };
    if mechanism[end..].trim_ascii().is_empty() {
        return Cow::Borrowed(line);
    }
    let mut masked = b"AUTH ".to_vec();
    masked.extend_from_slice(&mechanism[..end]);
    masked.extend_from_slice(b" ***");
    Cow::Owned(masked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_initial_response_is_never_seen() {
        for (line, expected) in [
            ("AUTH PLAIN AGEAYg==\r\n", "AUTH PLAIN ***"),
            ("auth  login \t YQ==", "AUTH login ***"),
            ("\tAUTH PLAIN AGEAYg==", "AUTH PLAIN ***"),
            ("AUTHPLAIN AGEAYg==", "AUTH PLAIN ***"),
            ("AUTH PLAIN\r\n", "AUTH PLAIN\r\n"),
            ("AUTH", "AUTH"),
            ("MAIL FROM:<a@b> AUTH=<>", "MAIL FROM:<a@b> AUTH=<>"),
        ] {
            assert_eq!(mask(line.as_bytes()), expected.as_bytes(), "{line:?}");
        }
    }
}
