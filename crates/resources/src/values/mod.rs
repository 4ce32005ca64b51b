//! Values that documents write as text, parsed once.
//!
//! Each has a `format` in the schema by which the loader finds every faulty one of a document at once.

mod choice;
mod password;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use rules::Pattern;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use types::{Address, Domain};

pub use choice::{Match, TableRef, Texts};
pub use password::PasswordHash;
pub(crate) use password::check_password_hash;

/// Why a text is not the value that it should be: what is wrong and what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {remedy}")]
pub struct ValueError {
    /// One clause.
    pub what: String,
    /// One clause.
    pub remedy: &'static str,
}

impl ValueError {
    fn new(what: impl Into<String>, remedy: &'static str) -> Self {
        Self { what: what.into(), remedy }
    }
}

/// A value with a text form: a newtype with serde, a schema with a `format`, and a parser that explains itself.
macro_rules! text_value {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal, parse: $parse:path, show: $show:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name(pub $inner);

        impl $name {
            /// Name of the text form in schemas.
            pub const FORMAT: &'static str = $format;
        }

        impl FromStr for $name {
            type Err = ValueError;
            fn from_str(text: &str) -> Result<Self, ValueError> {
                $parse(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&$show(&self.0))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&$show(&self.0))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format })
            }
        }
    };
}

text_value! {
    /// A mailbox address.
    MailAddress(Address), "mail-address", parse: parse_address, show: ToString::to_string
}
text_value! {
    /// A domain name.
    DomainName(Domain), "domain", parse: parse_domain, show: ToString::to_string
}
text_value! {
    /// A network in CIDR notation, or one address.
    Network(IpNet), "network", parse: parse_network, show: ToString::to_string
}
text_value! {
    /// An IP address.
    Ip(IpAddr), "ip-address", parse: parse_ip, show: ToString::to_string
}
text_value! {
    /// An IP address and a port, as in `127.0.0.1:9090` or `[::1]:9090`.
    SocketAddress(SocketAddr), "socket-address", parse: parse_socket, show: ToString::to_string
}
text_value! {
    /// A DNS server: an IP address, with port 53 unless another is written.
    DnsServer(SocketAddr), "dns-server", parse: parse_dns_server, show: ToString::to_string
}
text_value! {
    /// A host name or address, and possibly a port, as in `smtp.example.org:587`.
    HostAndPort((String, Option<u16>)), "host-and-port", parse: parse_host_and_port, show: show_host_and_port
}
text_value! {
    /// A time such as `30s`, `5m`, `4h`, `5d` or `1h30m`.
    Span(Duration), "time-span", parse: parse_span, show: show_span
}
text_value! {
    /// An address or `*@domain`.
    AddressPattern(Pattern), "address-pattern", parse: parse_address_pattern, show: show_pattern
}
text_value! {
    /// An envelope sender: an address, or `<>` for the null reverse-path.
    ReversePath(Option<Address>), "reverse-path", parse: parse_reverse_path, show: show_reverse_path
}

/// A number of bytes: a number, or a text such as `64Ki` or `50Mi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

impl Size {
    /// Name of the text form in schemas.
    pub const FORMAT: &'static str = "byte-size";
}

impl FromStr for Size {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        parse_size(text).map(Self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)] {
            let bytes = 1u64 << shift;
            if self.0 >= bytes && self.0.is_multiple_of(bytes) {
                return write!(f, "{}{unit}", self.0 / bytes);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u64),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(bytes) => Ok(Self(bytes)),
            Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl JsonSchema for Size {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true, "format": "byte-size" })
    }
}

/// Checks a text against the `format` of a schema; formats that are not ours are taken.
pub(crate) fn check_format(format: &str, text: &str) -> Result<(), ValueError> {
    match format {
        MailAddress::FORMAT => text.parse::<MailAddress>().map(drop),
        DomainName::FORMAT => text.parse::<DomainName>().map(drop),
        Network::FORMAT => text.parse::<Network>().map(drop),
        Ip::FORMAT => text.parse::<Ip>().map(drop),
        SocketAddress::FORMAT => text.parse::<SocketAddress>().map(drop),
        DnsServer::FORMAT => text.parse::<DnsServer>().map(drop),
        HostAndPort::FORMAT => text.parse::<HostAndPort>().map(drop),
        Span::FORMAT => text.parse::<Span>().map(drop),
        AddressPattern::FORMAT => text.parse::<AddressPattern>().map(drop),
        ReversePath::FORMAT => text.parse::<ReversePath>().map(drop),
        PasswordHash::FORMAT => check_password_hash(text),
        Size::FORMAT => text.parse::<Size>().map(drop),
        _ => Ok(()),
    }
}

fn parse_address(text: &str) -> Result<Address, ValueError> {
    Address::parse(text).map_err(|error| {
        ValueError::new(
            format!("{text:?} is no mail address: {error}"),
            "write local-part@domain, as in alice@example.org",
        )
    })
}

fn parse_domain(text: &str) -> Result<Domain, ValueError> {
    Domain::parse(text).map_err(|error| {
        ValueError::new(
            format!("{text:?} is no domain: {error}"),
            "write a name such as example.org, without a dot at the end",
        )
    })
}

fn parse_network(text: &str) -> Result<IpNet, ValueError> {
    text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map(|net| net.trunc()).map_err(|_| {
        ValueError::new(
            format!("{text:?} is no network"),
            "write an address or a CIDR, as in 192.0.2.0/24 or 2001:db8::/32",
        )
    })
}

fn parse_ip(text: &str) -> Result<IpAddr, ValueError> {
    text.parse().map_err(|_| {
        ValueError::new(
            format!("{text:?} is no IP address"),
            "write an address such as 192.0.2.1 or ::1, without port or name",
        )
    })
}

fn parse_socket(text: &str) -> Result<SocketAddr, ValueError> {
    text.parse().map_err(|_| {
        ValueError::new(
            format!("{text:?} is no address with a port"),
            "write address:port, as in 127.0.0.1:9090 or [::1]:9090",
        )
    })
}

fn parse_dns_server(text: &str) -> Result<SocketAddr, ValueError> {
    text.parse::<SocketAddr>().or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53))).map_err(|_| {
        ValueError::new(format!("{text:?} is no DNS server"), "write an IP address, with a port where it is not 53")
    })
}

fn parse_host_and_port(text: &str) -> Result<(String, Option<u16>), ValueError> {
    let fault = || {
        ValueError::new(
            format!("{text:?} is no host with a port"),
            "write host:port, as in smtp.example.org:587 or [2001:db8::1]:25",
        )
    };
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok((ip.to_string(), None));
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (inner, rest) = rest.split_once(']').ok_or_else(fault)?;
            let ip: std::net::Ipv6Addr = inner.parse().map_err(|_| fault())?;
            let port = match rest.strip_prefix(':') {
                Some(port) => Some(port),
                None if rest.is_empty() => None,
                None => return Err(fault()),
            };
            (ip.to_string(), port)
        }
        None => {
            let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
            let name = match host.parse::<std::net::Ipv4Addr>() {
                Ok(ip) => ip.to_string(),
                Err(_) => Domain::parse(host).map_err(|_| fault())?.to_string(),
            };
            (name, port)
        }
    };
    let port = port.map(|port| port.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(fault)).transpose()?;
    Ok((host, port))
}

fn show_host_and_port((host, port): &(String, Option<u16>)) -> String {
    match port {
        Some(port) if host.contains(':') => format!("[{host}]:{port}"),
        Some(port) => format!("{host}:{port}"),
        None => host.clone(),
    }
}

const SPAN_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
/// Longer times are slips of the pen.
const SPAN_MAX: Duration = Duration::from_secs(3650 * 86_400);

fn parse_span(text: &str) -> Result<Duration, ValueError> {
    let fault = || {
        ValueError::new(
            format!("{text:?} is no time span"),
            "write a number and ms, s, m, h or d, as in 30s, 5m, 4h, 5d or 1h30m (ten years at most)",
        )
    };
    let mut rest = text;
    let mut total_ms = 0u64;
    if text.is_empty() {
        return Err(fault());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| fault())?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (_, unit_ms) = SPAN_UNITS.iter().find(|(unit, _)| *unit == &rest[..letters]).ok_or_else(fault)?;
        rest = &rest[letters..];
        total_ms = number.checked_mul(*unit_ms).and_then(|ms| total_ms.checked_add(ms)).ok_or_else(fault)?;
    }
    let span = Duration::from_millis(total_ms);
    if span > SPAN_MAX { Err(fault()) } else { Ok(span) }
}

fn show_span(span: &Duration) -> String {
    let mut rest = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, unit_ms) in SPAN_UNITS {
        if rest >= unit_ms {
            text.push_str(&format!("{}{unit}", rest / unit_ms));
            rest %= unit_ms;
        }
    }
    text
}

fn parse_size(text: &str) -> Result<u64, ValueError> {
    let fault = || {
        ValueError::new(
            format!("{text:?} is no size"),
            "write a number of bytes, possibly with Ki, Mi, Gi or Ti, as in 50Mi",
        )
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().map_err(|_| fault())?;
    let factor = match &text[digits..] {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1u64 << 40,
        _ => return Err(fault()),
    };
    // Stores count in signed 64-bit numbers.
    number.checked_mul(factor).filter(|bytes| i64::try_from(*bytes).is_ok()).ok_or_else(fault)
}

fn parse_address_pattern(text: &str) -> Result<Pattern, ValueError> {
    if let Some(domain) = text.strip_prefix("*@") {
        return Ok(Pattern::Wildcard(format!("*@{}", parse_domain(domain)?)));
    }
    Ok(Pattern::Exact(parse_address(text)?.key()))
}

fn show_pattern(pattern: &Pattern) -> String {
    match pattern {
        Pattern::Exact(text) | Pattern::Wildcard(text) => text.clone(),
    }
}

fn parse_reverse_path(text: &str) -> Result<Option<Address>, ValueError> {
    if text == "<>" || text.is_empty() { Ok(None) } else { parse_address(text).map(Some) }
}

fn show_reverse_path(path: &Option<Address>) -> String {
    path.as_ref().map_or_else(|| "<>".to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_are_read_and_shown() {
        for (text, ms) in
            [("30s", 30_000), ("5m", 300_000), ("1h30m", 5_400_000), ("5d", 432_000_000), ("250ms", 250), ("0s", 0)]
        {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.0.as_millis(), ms, "{text}");
            assert_eq!(span.to_string(), text);
        }
        for text in ["", "5", "m", "5 m", "-5m", "5w", "5m5", "99999999999999999999d", "36500d", "1.5h"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        for (text, bytes, shown) in
            [("50Mi", 50 << 20, "50Mi"), ("64Ki", 65_536, "64Ki"), ("1000", 1000, "1000"), ("1k", 1000, "1000")]
        {
            let size: Size = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, shown), "{text}");
        }
        for text in ["", "Mi", "5MB", "5 Mi", "-1", "99999999Ti"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_are_names_or_addresses_with_a_port_where_one_is_written() {
        for (text, expected) in [
            ("smtp.example.org:587", Some(("smtp.example.org", Some(587)))),
            ("smtp.example.org", Some(("smtp.example.org", None))),
            ("192.0.2.1:25", Some(("192.0.2.1", Some(25)))),
            ("[2001:db8::1]:25", Some(("2001:db8::1", Some(25)))),
            ("2001:db8::1", Some(("2001:db8::1", None))),
            ("[2001:db8::1]25", None),
            ("host:0", None),
            ("host:port", None),
            (":25", None),
            ("a b:25", None),
            ("", None),
        ] {
            let found = text.parse::<HostAndPort>().ok();
            let expected = expected.map(|(host, port)| HostAndPort((host.to_owned(), port)));
            assert_eq!(found, expected, "{text}");
        }
    }
}
