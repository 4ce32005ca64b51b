//! Where a mailbox lies: templates of paths, filled in by addresses that anybody may have made up.

use types::Address;

/// NAME_MAX of the file systems in use.
const NAME_OCTETS_MAX: usize = 255;

/// Why an address is not put into a path or an argument: the recipient's fault, 5.1.3.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the address has characters that cannot stand in the path of a mailbox")]
pub(crate) struct UnsafeAddress;

/// Fills `%u` (address), `%n` (local part), `%d` (domain) in, in lower case; `%%` is a percent sign.
///
/// What is filled in stays within one name: it has no slash, no control, no dot in front, and a length that names have.
pub(crate) fn expand(template: &str, address: &Address) -> Result<String, UnsafeAddress> {
    let key = address.key();
    let local = address.local().to_lowercase();
    let mut out = String::with_capacity(template.len() + key.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let value = match after.bytes().next() {
            Some(b'u') => checked(&key)?,
            Some(b'n') => checked(&local)?,
            Some(b'd') => checked(address.domain().as_str())?,
            Some(b'%') => "%",
            _ => {
                out.push('%');
                rest = after;
                continue;
            }
        };
        out.push_str(value);
        rest = &after[1..];
    }
    out.push_str(rest);
    // A long value beside other text may still make a name that is too long.
    match out.split('/').all(|name| name.len() <= NAME_OCTETS_MAX) {
        true => Ok(out),
        false => Err(UnsafeAddress),
    }
}

fn checked(value: &str) -> Result<&str, UnsafeAddress> {
    let safe = !value.is_empty() && !value.starts_with('.') && !value.contains(|c: char| c == '/' || c.is_control());
    if safe { Ok(value) } else { Err(UnsafeAddress) }
}

#[cfg(test)]
mod tests {
    use types::Domain;

    use super::*;

    fn address(local: &str) -> Address {
        Address::from_parts(local, Domain::parse("Example.ORG").unwrap()).unwrap()
    }

    #[test]
    fn templates_are_filled_in_lower_case() {
        let alice = address("Alice");
        for (template, expected) in [
            ("/mail/%d/%n", "/mail/example.org/alice"),
            ("mail/%u/Maildir", "mail/alice@example.org/Maildir"),
            ("/m/%%n/%x/100%", "/m/%n/%x/100%"),
            ("plain", "plain"),
        ] {
            assert_eq!(expand(template, &alice).as_deref(), Ok(expected), "{template}");
        }
        assert_eq!(expand("/m/%n", &address("%d")).as_deref(), Ok("/m/%d"), "a value is not a template");
    }

    #[test]
    fn no_address_leaves_its_folder() {
        for local in ["../../x", ".", "..", ".hidden", "a/b", "/etc/passwd", "a/../b"] {
            for template in ["/m/%n", "/m/%u/x"] {
                assert_eq!(expand(template, &address(local)), Err(UnsafeAddress), "{template} {local}");
            }
        }
        // NUL never gets into an Address; the check does not rely on it.
        assert!(Address::from_parts("a\0b", Domain::parse("example.org").unwrap()).is_err());
        assert_eq!(checked("a\0b"), Err(UnsafeAddress));
        assert_eq!(checked(""), Err(UnsafeAddress));
    }

    #[test]
    fn a_name_that_is_too_long_is_refused() {
        let domain = Domain::parse(&format!("{0}.{0}.{0}", "a".repeat(60))).unwrap();
        let long = Address::from_parts(&"b".repeat(64), domain).unwrap();
        assert!(expand("/m/%d/%n", &long).is_ok());
        assert!(expand("/m/xxxxxxxxxx%u", &long).is_err());
    }
}
