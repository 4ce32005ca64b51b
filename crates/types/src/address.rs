use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Domain, DomainError};

/// RFC 5321 section 4.5.3.1.1.
pub const LOCAL_PART_OCTETS_MAX: usize = 64;
/// RFC 5321 section 4.5.3.1.3: 256 octets including the angle brackets.
pub const PATH_OCTETS_MAX: usize = 254;

/// A mailbox address: a local part and a domain.
///
/// The local part is kept as it was written, without quotes that it does not need; it prints quoted where RFC 5321 section 4.1.2 asks for it.
/// Equality keeps the case of the local part; [`Address::key`] is what a directory is searched by.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    local: Arc<str>,
    domain: Domain,
}

/// Says why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no `@` outside quotes.
    #[error("address has no domain")]
    NoDomain,
    /// The local part is neither a dot-string nor a quoted string (RFC 5321 section 4.1.2).
    #[error("local part is not a dot-string or a quoted string")]
    LocalPart,
    /// The local part is longer than [`LOCAL_PART_OCTETS_MAX`].
    #[error("local part is longer than {LOCAL_PART_OCTETS_MAX} octets")]
    LocalPartTooLong,
    /// The whole address is longer than [`PATH_OCTETS_MAX`].
    #[error("address is longer than {PATH_OCTETS_MAX} octets")]
    TooLong,
    /// The domain is faulty.
    #[error(transparent)]
    Domain(#[from] DomainError),
}

impl Address {
    /// Parses `local@domain` (no angle brackets, no source route).
    ///
    /// UTF-8 is taken in both parts (RFC 6531); whether a session allows it is for the caller to ask with [`Address::is_ascii`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let at = split(text)?;
        let (local, domain) = (&text[..at], &text[at + 1..]);
        let local = parse_local(local)?;
        Self { local: local.into(), domain: Domain::parse(domain)? }.bounded()
    }

    fn bounded(self) -> Result<Self, AddressError> {
        let octets = self.local.len() + 1 + self.domain.as_str().len();
        if octets > PATH_OCTETS_MAX { Err(AddressError::TooLong) } else { Ok(self) }
    }

    /// Puts a local part and a domain together; the local part is taken unquoted.
    pub fn from_parts(local: &str, domain: Domain) -> Result<Self, AddressError> {
        // What is made here must read back from its text: that is how it travels.
        if local.is_empty() || local.chars().any(char::is_control) {
            return Err(AddressError::LocalPart);
        }
        if written_octets(local) > LOCAL_PART_OCTETS_MAX {
            return Err(AddressError::LocalPartTooLong);
        }
        Self { local: local.into(), domain }.bounded()
    }

    /// The local part without quoting.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The domain.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The form that directories and tables are searched by: both parts in lower case, unquoted.
    pub fn key(&self) -> String {
        // Sites hold hundreds of thousands of keys: they take no more room than they need.
        let mut key = String::with_capacity(self.local.len() + 1 + self.domain.as_str().len());
        if self.local.is_ascii() {
            key.push_str(&self.local);
            key.make_ascii_lowercase();
        } else {
            key.push_str(&self.local.to_lowercase());
        }
        key.push('@');
        key.push_str(self.domain.as_str());
        key
    }

    /// The address without its detail: the local part is cut at the first of `delimiters` that is not its first character.
    /// Returns the shorter address and the detail, or `None` where there is no detail.
    pub fn split_detail(&self, delimiters: &str) -> Option<(Address, &str)> {
        let (at, delimiter) =
            self.local.char_indices().skip(1).find(|(_, character)| delimiters.contains(*character))?;
        let base = Self { local: self.local[..at].into(), domain: self.domain.clone() };
        Some((base, &self.local[at + delimiter.len_utf8()..]))
    }

    /// The same local part at another domain.
    pub fn with_domain(&self, domain: Domain) -> Self {
        Self { local: self.local.clone(), domain }
    }

    /// False where SMTPUTF8 is needed to carry the address (RFC 6531).
    pub fn is_ascii(&self) -> bool {
        self.local.is_ascii()
    }
}

/// Finds the `@` that ends the local part.
fn split(text: &str) -> Result<usize, AddressError> {
    let bytes = text.as_bytes();
    if bytes.first() != Some(&b'"') {
        return memchr_at(bytes).ok_or(AddressError::NoDomain);
    }
    let mut escaped = false;
    for (i, byte) in bytes.iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' if bytes.get(i + 1) == Some(&b'@') => return Ok(i + 1),
            b'"' => return Err(AddressError::LocalPart),
            _ => {}
        }
    }
    Err(AddressError::NoDomain)
}

fn memchr_at(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|b| *b == b'@')
}

/// Octets of a local part as it prints, with the quotes that it needs.
fn written_octets(local: &str) -> usize {
    if is_dot_string(local) {
        return local.len();
    }
    local.len() + local.bytes().filter(|octet| matches!(octet, b'"' | b'\\')).count() + 2
}

fn parse_local(text: &str) -> Result<String, AddressError> {
    let local = match text.strip_prefix('"') {
        Some(rest) => unquote(rest.strip_suffix('"').ok_or(AddressError::LocalPart)?)?,
        None if is_dot_string(text) => text.to_owned(),
        None => return Err(AddressError::LocalPart),
    };
    if local.is_empty() {
        return Err(AddressError::LocalPart);
    }
    if text.len() > LOCAL_PART_OCTETS_MAX {
        return Err(AddressError::LocalPartTooLong);
    }
    Ok(local)
}

fn is_dot_string(text: &str) -> bool {
    !text.is_empty() && text.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

/// RFC 5322 section 3.2.3, with the UTF-8 of RFC 6532 section 3.2.
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || (!c.is_ascii() && !c.is_control())
}

fn unquote(text: &str) -> Result<String, AddressError> {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        let c = match c {
            '\\' => characters.next().ok_or(AddressError::LocalPart)?,
            '"' => return Err(AddressError::LocalPart),
            other => other,
        };
        // RFC 5321 section 4.1.2: quoted text is printable; no control may hide in it.
        if c.is_control() {
            return Err(AddressError::LocalPart);
        }
        out.push(c);
    }
    Ok(out)
}

impl FromStr for Address {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_dot_string(&self.local) {
            return write!(f, "{}@{}", self.local, self.domain);
        }
        f.write_str("\"")?;
        for c in self.local.chars() {
            if c == '"' || c == '\\' {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        write!(f, "\"@{}", self.domain)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{self}>")
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_parse_and_print_as_rfc_5321_says() {
        let long = format!("{}@example.org", "a".repeat(65));
        let cases: &[(&str, Option<&str>)] = &[
            ("Alice@Example.ORG", Some("Alice@example.org")),
            ("a.b+c@example.org", Some("a.b+c@example.org")),
            ("\"a b\"@example.org", Some("\"a b\"@example.org")),
            ("\"plain\"@example.org", Some("plain@example.org")),
            ("\"a\\\"b\"@example.org", Some("\"a\\\"b\"@example.org")),
            ("\"a@b\"@example.org", Some("\"a@b\"@example.org")),
            ("user@[192.0.2.1]", Some("user@[192.0.2.1]")),
            ("üser@bücher.example", Some("üser@xn--bcher-kva.example")),
            ("user%dom@us", Some("user%dom@us")),
            ("dom!user@us", Some("dom!user@us")),
            ("user", None),
            ("@example.org", None),
            ("\"\"@example.org", None),
            ("a..b@example.org", None),
            (".a@example.org", None),
            ("a b@example.org", None),
            ("a@", None),
            ("a@b@c", None),
            ("a@example.org.", None),
            ("a\0b@example.org", None),
            ("\"a\nb\"@example.org", None),
            ("@us:user@dom", None),
            (";sleep 66;", None),
            (&long, None),
        ];
        for (text, expected) in cases {
            let found = Address::parse(text).ok().map(|a| a.to_string());
            assert_eq!(found.as_deref(), *expected, "{text:?}");
        }
    }

    #[test]
    fn an_address_is_bounded_however_it_was_made() {
        let domain = Domain::parse(&vec!["a".repeat(60); 4].join(".")).unwrap();
        let local = "a".repeat(20);
        assert_eq!(Address::from_parts(&local, domain.clone()), Err(AddressError::TooLong));
        let short = Domain::parse("example.org").unwrap();
        // Quoted it has 66 octets, and its text would not read back.
        let spaced = format!("a {}", "b".repeat(62));
        assert_eq!(Address::from_parts(&spaced, short.clone()), Err(AddressError::LocalPartTooLong));
        assert_eq!(Address::from_parts("a\u{85}b", short), Err(AddressError::LocalPart));
        assert_eq!(Address::parse(&format!("{local}@{domain}")), Err(AddressError::TooLong));
        assert!(Address::from_parts("a", domain).is_ok());
    }

    #[test]
    fn the_detail_is_what_follows_the_first_delimiter() {
        let cases = [
            ("alice+tag@a.b", Some(("alice@a.b", "tag"))),
            ("alice+x+y@a.b", Some(("alice@a.b", "x+y"))),
            ("+alice@a.b", None),
            ("alice@a.b", None),
        ];
        for (text, expected) in cases {
            let address = Address::parse(text).unwrap();
            let found = address.split_detail("+").map(|(base, detail)| (base.to_string(), detail.to_owned()));
            assert_eq!(found, expected.map(|(b, d)| (b.to_owned(), d.to_owned())), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_prints_to_something_that_parses_to_the_same(text in "\\PC{0,80}") {
            if let Ok(address) = Address::parse(&text) {
                prop_assert_eq!(Address::parse(&address.to_string()).unwrap(), address);
            }
        }
    }
}
