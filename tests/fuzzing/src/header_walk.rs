//! The header section of a message, and the fields that we write.

use std::net::{IpAddr, Ipv6Addr};

use bytes::Bytes;
use message::{
    Client, HeaderFault, HeaderLimits, HeaderSplitter, Protocol, Received, Tls, author_addresses, delivered_to, fields,
    message_id, missing_fields, return_path,
};
use types::{Address, Domain, MessageId, Timestamp};

use crate::address::check_address;
use crate::input::{Cuts, Input, check_lines};

/// Octets of a message: what is longer says nothing new.
const MESSAGE_OCTETS_MAX: usize = 32 << 10;

/// The first two octets choose limits and cuts, what follows is a message. Properties: header section and body are the
/// same wherever the message is cut; they hold every octet of it but the empty line between them; the fields of a section
/// are all of it; authors are addresses; no text of a client breaks a line of a field that we write (S11).
pub fn header_walk(data: &[u8]) {
    let mut input = Input::new(data);
    let (limits, cuts) = (input.octet(), input.octet());
    let message = &input.rest()[..input.rest().len().min(MESSAGE_OCTETS_MAX)];
    let limits = match limits % 3 {
        0 => HeaderLimits { bytes_max: 1 << 20, fields_max: 1000, received_max: 50 },
        1 => HeaderLimits { bytes_max: 200, fields_max: 1000, received_max: 50 },
        _ => HeaderLimits { bytes_max: 1 << 20, fields_max: 4, received_max: 2 },
    };
    let whole = split(limits, message, &mut |left| left);
    let mut cuts = Cuts::new(cuts);
    let cut = split(limits, message, &mut |left| cuts.next(left));
    assert_eq!(whole.is_ok(), cut.is_ok(), "{whole:?} or {cut:?}");
    if let (Ok((header, body)), Ok(cut)) = (whole, cut) {
        assert_eq!(cut, (header.clone(), body.clone()));
        check_parts(message, &header, &body);
        walk(&header, limits);
    }
    walk_fields(message);
    write_fields(message);
}

type Parts = (Vec<u8>, Vec<u8>);

fn split(limits: HeaderLimits, message: &[u8], piece: &mut dyn FnMut(usize) -> usize) -> Result<Parts, HeaderFault> {
    let mut splitter = HeaderSplitter::new(limits);
    let (mut body, mut rest) = (Vec::new(), Bytes::copy_from_slice(message));
    while !rest.is_empty() {
        let next = rest.split_to(piece(rest.len()));
        splitter.push(next, &mut body)?;
        assert!(splitter.header_len() <= limits.bytes_max + 2);
    }
    Ok((splitter.finish(&mut body), body.concat()))
}

/// Header section, perhaps an empty line, body: nothing is lost, nothing is made up but the end of a last line.
fn check_parts(message: &[u8], header: &[u8], body: &[u8]) {
    assert!(header.is_empty() || header.ends_with(b"\r\n"));
    let plain = [header, body].concat();
    let parted = [header, b"\r\n", body].concat();
    let same = |parts: &[u8]| parts == message || (body.is_empty() && parts.strip_suffix(b"\r\n") == Some(message));
    let cut_cr = || body.is_empty() && header.strip_suffix(b"\n") == Some(message);
    assert!(
        same(&plain) || same(&parted) || cut_cr(),
        "{:?} became {:?}",
        message.escape_ascii().to_string(),
        parted.escape_ascii().to_string()
    );
}

/// A section whose lines end as they should is nothing but its fields.
fn walk(header: &[u8], limits: HeaderLimits) {
    let bare = header.iter().enumerate().any(|(at, octet)| match octet {
        b'\n' => at == 0 || header[at - 1] != b'\r',
        b'\r' => header.get(at + 1) != Some(&b'\n'),
        _ => false,
    });
    if !bare {
        let found: Vec<&[u8]> = fields(header).map(|field| field.raw()).collect();
        assert!(found.len() <= limits.fields_max);
        assert_eq!(found.concat(), header, "a line of the section belongs to no field");
    }
}

fn walk_fields(header: &[u8]) {
    for field in fields(header) {
        assert!(
            !field.name().is_empty() && field.name().iter().all(|octet| octet.is_ascii_graphic() && *octet != b':')
        );
        assert!(!field.unfolded().contains(['\r', '\n']));
    }
    if let Ok(authors) = author_addresses(header) {
        assert!(!authors.is_empty() && authors.len() <= message::AUTHORS_MAX);
        authors.iter().for_each(check_address);
    }
    if let Some(id) = message_id(header) {
        assert!(!id.chars().any(char::is_control) && id.len() <= message::LINE_OCTETS_MAX);
    }
}

/// Whatever a client says becomes part of the fields that we write.
fn write_fields(text: &[u8]) {
    let hostname = Domain::parse("mx.example.org").unwrap();
    let id = MessageId::new(1, 1_700_000_000_000, text.len() as u64);
    let at = Timestamp::from_unix_ms(text.first_chunk().map_or(0, |first| i64::from_le_bytes(*first)));
    check_lines(missing_fields(text, &hostname, id, at).as_bytes());
    let said = String::from_utf8_lossy(text);
    let (helo, user) = said.split_once('\n').unwrap_or((&said, "x"));
    let address = text.first_chunk().map(|first| IpAddr::V6(Ipv6Addr::from_bits(u128::from_le_bytes(*first))));
    let recipient = Address::parse(helo).or_else(|_| Address::from_parts(user, hostname.clone())).ok();
    for client in [Client::Host { helo, address }, Client::Local { user }, Client::Hidden] {
        let received = Received {
            client,
            hostname: &hostname,
            protocol: [Protocol::Smtp, Protocol::Esmtp, Protocol::Lmtp][text.len() % 3],
            tls: text.len().is_multiple_of(2).then_some(Tls { version: user, cipher: helo }),
            authenticated: text.len().is_multiple_of(5),
            utf8: !said.is_ascii(),
            id,
            recipient: recipient.as_ref(),
            at,
        };
        let field = received.to_field();
        check_lines(field.as_bytes());
        assert_eq!(fields(field.as_bytes()).count(), 1, "{field:?}");
    }
    if let Some(recipient) = &recipient {
        check_lines(return_path(Some(recipient)).as_bytes());
        check_lines(delivered_to(recipient).as_bytes());
    }
}
