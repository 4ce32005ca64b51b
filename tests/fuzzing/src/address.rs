//! Addresses, domains, paths and the commands that carry them.

use smtp::syntax::{Command, Path, PathError, Recipient, parse_command, parse_path};
use types::{Address, DOMAIN_OCTETS_MAX, Domain, EnhancedCode, MessageId, PATH_OCTETS_MAX};

/// Properties: what was parsed prints as text that parses to the same; it is bounded and holds no control; what is made of
/// it (without its detail, at another domain) is an address too; a command line holds what its path held.
pub fn address(data: &[u8]) {
    if let Ok(command) = parse_command(data) {
        check_command(command);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(domain) = Domain::parse(text) {
        check_domain(&domain);
    }
    if let Ok(address) = Address::parse(text) {
        check_address(&address);
        if let Some((base, detail)) = address.split_detail("+-") {
            check_address(&base);
            assert!(address.local().ends_with(detail));
        }
    }
    if let Ok(address) = Address::from_parts(text, Domain::parse("example.org").unwrap()) {
        assert_eq!(address.local(), text);
        check_address(&address);
    }
    if let Ok((path, rest)) = parse_path(text) {
        assert!(text.ends_with(rest));
        if let Path::Address(address) = path {
            check_address(&address);
        }
    }
    if let Ok(code) = text.parse::<EnhancedCode>() {
        assert_eq!(code.to_string().parse(), Ok(code));
    }
    if let Ok(id) = text.parse::<MessageId>() {
        assert_eq!(id.to_string(), text);
    }
}

fn check_domain(domain: &Domain) {
    let text = domain.as_str();
    assert!(text.is_ascii() && !text.is_empty() && text.len() <= DOMAIN_OCTETS_MAX);
    assert!(!text.bytes().any(|octet| octet.is_ascii_control() || octet.is_ascii_uppercase() || octet == b' '));
    assert_eq!(Domain::parse(text).as_ref(), Ok(domain));
    assert_eq!(domain.is_literal(), domain.literal().is_some());
}

pub(crate) fn check_address(address: &Address) {
    check_domain(address.domain());
    let text = address.to_string();
    assert_eq!(Address::parse(&text).as_ref(), Ok(address), "{text:?}");
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(address.local().len() + 1 + address.domain().as_str().len() <= PATH_OCTETS_MAX);
    // The text form has no other reading: a path holds the whole of it, and nothing follows. What looks like a command of a
    // shell is an address, but not one that a session takes (S6).
    let path = format!("<{text}> X");
    match parse_path(&path) {
        Ok((Path::Address(found), " X")) => assert_eq!(found, *address),
        Err(PathError::Shell) => {}
        other => panic!("{path:?} reads as {other:?}"),
    }
    assert_eq!(address.key(), address.key().to_lowercase());
}

fn check_command(command: Command<'_>) {
    match command {
        Command::Mail(mail) => {
            if let Some(sender) = &mail.sender {
                check_address(sender);
                assert!(sender.is_ascii() || mail.smtp_utf8);
            }
            assert!(mail.envid.is_none_or(|envid| envid.bytes().all(|octet| (b' '..=b'~').contains(&octet))));
            assert!(mail.auth.is_none_or(|auth| !auth.chars().any(char::is_control)));
        }
        Command::Rcpt { rcpt, needs_utf8 } => {
            if let Recipient::Address(address) = &rcpt.recipient {
                check_address(address);
                assert!(address.is_ascii() || needs_utf8);
            }
            if let Some(orcpt) = rcpt.orcpt {
                assert!(orcpt.contains(';') && !orcpt.chars().any(char::is_control), "{orcpt:?}");
            }
        }
        Command::Ehlo(name) | Command::Helo(name) | Command::Lhlo(name) => {
            assert!(!name.is_empty() && !name.chars().any(char::is_control), "{name:?}");
        }
        _ => {}
    }
}
