use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// RFC 5321 section 4.5.3.1.2: a domain name or literal of up to 255 octets.
pub const DOMAIN_OCTETS_MAX: usize = 255;
/// RFC 1035 section 2.3.4.
const LABEL_OCTETS_MAX: usize = 63;

/// A domain name in lower case A-labels without a trailing dot, or an address literal in brackets.
///
/// Equality is therefore equality of names. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Arc<str>);

/// Says why a text is not a domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// Nothing was there.
    #[error("domain is empty")]
    Empty,
    /// Longer than [`DOMAIN_OCTETS_MAX`].
    #[error("domain is longer than {DOMAIN_OCTETS_MAX} octets")]
    TooLong,
    /// A label is empty, too long, or holds something else than letters, digits and inner hyphens.
    #[error("domain has a label that is empty, longer than 63 octets or not made of letters, digits and hyphens")]
    Label,
    /// Not a valid IPv4 or IPv6 address literal (RFC 5321 section 4.1.3).
    #[error("address literal is not [IPv4] or [IPv6:...]")]
    Literal,
}

impl Domain {
    /// Parses a domain name (A-labels or U-labels) or an address literal.
    ///
    /// A trailing dot is refused: RFC 5321 has none, and `example.org.` must not be a second name of `example.org`.
    pub fn parse(text: &str) -> Result<Self, DomainError> {
        if text.is_empty() {
            return Err(DomainError::Empty);
        }
        // U-labels grow when they become A-labels, so this bound only keeps the work below small.
        if text.len() > 4 * DOMAIN_OCTETS_MAX {
            return Err(DomainError::TooLong);
        }
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(DomainError::Literal)?;
            return parse_literal(inner);
        }
        if text.is_ascii() {
            return Self::from_a_labels(text.to_ascii_lowercase());
        }
        let ascii = idna::domain_to_ascii_strict(text).map_err(|_| DomainError::Label)?;
        Self::from_a_labels(ascii)
    }

    fn from_a_labels(name: String) -> Result<Self, DomainError> {
        if name.len() > DOMAIN_OCTETS_MAX {
            return Err(DomainError::TooLong);
        }
        for label in name.split('.') {
            let bytes = label.as_bytes();
            let fits = !bytes.is_empty() && bytes.len() <= LABEL_OCTETS_MAX;
            // Underscores are not host names, but they are seen in HELO and in mail domains of old systems.
            let letters = bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-' || *b == b'_');
            if !fits || !letters || bytes.first() == Some(&b'-') || bytes.last() == Some(&b'-') {
                return Err(DomainError::Label);
            }
        }
        Ok(Self(name.into()))
    }

    /// The domain as it goes on the wire: A-labels in lower case, or the literal with its brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for `[192.0.2.1]` and `[IPv6:2001:db8::1]`.
    pub fn is_literal(&self) -> bool {
        self.0.starts_with('[')
    }

    /// The address of a literal.
    pub fn literal(&self) -> Option<std::net::IpAddr> {
        let inner = self.0.strip_prefix('[')?.strip_suffix(']')?;
        match inner.strip_prefix("ipv6:") {
            Some(six) => six.parse::<std::net::Ipv6Addr>().ok().map(Into::into),
            None => inner.parse::<std::net::Ipv4Addr>().ok().map(Into::into),
        }
    }

    /// True where `self` is `parent` or a name below it.
    pub fn is_within(&self, parent: &Domain) -> bool {
        self == parent || self.0.strip_suffix(parent.as_str()).is_some_and(|rest| rest.ends_with('.'))
    }
}

fn parse_literal(inner: &str) -> Result<Domain, DomainError> {
    let lower = inner.to_ascii_lowercase();
    let text = match lower.strip_prefix("ipv6:") {
        Some(six) => {
            let address: std::net::Ipv6Addr = six.parse().map_err(|_| DomainError::Literal)?;
            format!("[ipv6:{address}]")
        }
        None => {
            let address: std::net::Ipv4Addr = lower.parse().map_err(|_| DomainError::Literal)?;
            format!("[{address}]")
        }
    };
    Ok(Domain(text.into()))
}

impl FromStr for Domain {
    type Err = DomainError;
    fn from_str(text: &str) -> Result<Self, DomainError> {
        Self::parse(text)
    }
}

impl AsRef<str> for Domain {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Domain {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Serialize for Domain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Domain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_lower_case_a_labels_or_a_literal() {
        let long_label = "a".repeat(64);
        let long_name = format!("{}.org", vec!["abcdefghij"; 24].join("."));
        let cases: &[(&str, Result<&str, DomainError>)] = &[
            ("Example.ORG", Ok("example.org")),
            ("bücher.example", Ok("xn--bcher-kva.example")),
            ("localhost", Ok("localhost")),
            ("[192.0.2.1]", Ok("[192.0.2.1]")),
            ("[IPv6:2001:DB8::1]", Ok("[ipv6:2001:db8::1]")),
            ("", Err(DomainError::Empty)),
            ("example.org.", Err(DomainError::Label)),
            (".org", Err(DomainError::Label)),
            ("a..b", Err(DomainError::Label)),
            ("-a.org", Err(DomainError::Label)),
            ("a b.org", Err(DomainError::Label)),
            ("a\0.org", Err(DomainError::Label)),
            ("us@dom", Err(DomainError::Label)),
            (&long_label, Err(DomainError::Label)),
            (&long_name, Err(DomainError::TooLong)),
            ("[192.0.2.1", Err(DomainError::Literal)),
            ("[192.0.2.256]", Err(DomainError::Literal)),
            ("[2001:db8::1]", Err(DomainError::Literal)),
        ];
        for (text, expected) in cases {
            let found = Domain::parse(text);
            assert_eq!(found.as_ref().map(Domain::as_str), expected.as_ref().map(|s| *s), "{text:?}");
        }
    }

    #[test]
    fn a_name_is_within_itself_and_its_parents_only() {
        let parent = Domain::parse("example.org").unwrap();
        for (name, expected) in
            [("example.org", true), ("a.example.org", true), ("badexample.org", false), ("org", false)]
        {
            assert_eq!(Domain::parse(name).unwrap().is_within(&parent), expected, "{name}");
        }
    }
}
