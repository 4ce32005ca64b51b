use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A SASL mechanism that is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// Widespread, never standardised: two challenges, user name and password.
    Login,
}

impl Mechanism {
    /// As in `AUTH PLAIN`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }

    /// By name in any case.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Plain, Self::Login].into_iter().find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }
}

/// A SASL response cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SaslError {
    /// RFC 4648 section 4: alphabet, padding and length are exact.
    #[error("response is not base64")]
    Base64,
    /// RFC 4616: `[authzid] NUL authcid NUL passwd`.
    #[error("response is not three fields in UTF-8, the last two not empty and without controls in the names")]
    Fields,
}

/// What a PLAIN response says.
#[derive(Clone, PartialEq, Eq)]
pub struct PlainResponse {
    /// Empty: the user itself.
    pub authorization_id: String,
    /// Not empty.
    pub user: String,
    /// Not empty, no NUL.
    pub password: Vec<u8>,
}

/// Decodes strict base64: no white space, no missing or wrong padding, no stray bits.
pub fn decode_base64(text: &[u8]) -> Result<Vec<u8>, SaslError> {
    STANDARD.decode(text).map_err(|_| SaslError::Base64)
}

/// Reads the decoded response of PLAIN (RFC 4616 section 2).
pub fn parse_plain(message: &[u8]) -> Result<PlainResponse, SaslError> {
    let mut fields = message.split(|byte| *byte == 0);
    let (Some(authorization_id), Some(user), Some(password), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(SaslError::Fields);
    };
    if password.is_empty() {
        return Err(SaslError::Fields);
    }
    let authorization_id = match authorization_id {
        b"" => String::new(),
        named => parse_name(named)?,
    };
    Ok(PlainResponse { authorization_id, user: parse_name(user)?, password: password.to_vec() })
}

/// A user name: UTF-8, not empty, and without controls: it may end up in line protocols and logs.
pub fn parse_name(bytes: &[u8]) -> Result<String, SaslError> {
    let name = std::str::from_utf8(bytes).map_err(|_| SaslError::Fields)?;
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(SaslError::Fields);
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_strict() {
        for (text, expected) in [
            ("", Some("")),
            ("YQ==", Some("a")),
            ("YWI=", Some("ab")),
            ("YWJj", Some("abc")),
            ("YWJjZA", None),
            ("YWJjZ", None),
            ("YQ=", None),
            ("YR==", None),
            ("YQ==YQ==", None),
            ("YWJ j", None),
            ("=", None),
            ("YW-_", None),
        ] {
            let found = decode_base64(text.as_bytes()).ok();
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{text}");
        }
    }

    #[test]
    fn plain_has_three_fields_and_names_without_controls() {
        for (message, expected) in [
            ("\0alice\0secret", Some(("", "alice", "secret"))),
            ("bob\0alice\0secret", Some(("bob", "alice", "secret"))),
            ("\0älice\0geheim", Some(("", "älice", "geheim"))),
            ("\0a\nb\0secret", None),
            ("a\nb\0alice\0secret", None),
            ("\0a\u{85}b\0secret", None),
            ("\0\0secret", None),
            ("\0alice\0", None),
            ("\0alice", None),
            ("alice", None),
            ("", None),
            ("\0alice\0secret\0", None),
        ] {
            let found = parse_plain(message.as_bytes()).ok();
            let found = found.as_ref().map(|p| (&*p.authorization_id, &*p.user, &*p.password));
            assert_eq!(found, expected.map(|(z, u, p)| (z, u, p.as_bytes())), "{message:?}");
        }
        assert!(parse_plain(b"\0\xff\0secret").is_err());
    }
}
