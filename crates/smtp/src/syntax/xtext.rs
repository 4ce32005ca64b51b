use std::fmt::Write;

/// The text is not xtext, or what it encodes may not be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not xtext of printable characters (RFC 3461 section 4)")]
pub struct XtextError;

/// Decodes xtext (RFC 3461 section 4): `+` and two upper-case hexadecimal digits stand for an octet.
///
/// The result is UTF-8 without controls: it ends up in headers of reports, where CR LF would begin another field.
pub fn decode_xtext(text: &str) -> Result<String, XtextError> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => {
                let (high, low) = (bytes.next().and_then(digit), bytes.next().and_then(digit));
                let (Some(high), Some(low)) = (high, low) else {
                    return Err(XtextError);
                };
                decoded.push(high << 4 | low);
            }
            b'=' | 0..=b' ' | 0x7f => return Err(XtextError),
            other => decoded.push(other),
        }
    }
    let decoded = String::from_utf8(decoded).map_err(|_| XtextError)?;
    if decoded.chars().any(char::is_control) { Err(XtextError) } else { Ok(decoded) }
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Encodes as xtext: the result is printable ASCII without space.
pub fn encode_xtext(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'+' | b'=' | 0..=b' ' | 0x7f.. => {
                // Writing into a String cannot fail.
                let _ = write!(encoded, "+{byte:02X}");
            }
            plain => encoded.push(char::from(plain)),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn xtext_is_decoded_strictly() {
        for (text, expected) in [
            ("abc", Some("abc")),
            ("a+2Bb", Some("a+b")),
            ("a+3Db+20c", Some("a=b c")),
            ("+C3+BC", Some("ü")),
            ("a+2bb", None),
            ("a+2", None),
            ("a+", None),
            ("a=b", None),
            ("a b", None),
            ("+0D+0ABcc:", None),
            ("a+00", None),
            ("+FF", None),
            ("+C2+85", None),
        ] {
            assert_eq!(decode_xtext(text).ok().as_deref(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(text in "\\PC{0,40}") {
            let encoded = encode_xtext(&text);
            prop_assert!(encoded.bytes().all(|b| (b'!'..=b'~').contains(&b)));
            prop_assert_eq!(decode_xtext(&encoded).ok(), Some(text));
        }
    }
}
