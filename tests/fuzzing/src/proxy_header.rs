//! The PROXY protocol header at the beginning of a connection.

use smtp::proxy::{ProxyStep, V1_OCTETS_MAX, V2_OCTETS_MAX, parse, starts_like_header};

/// Properties: what a prefix decided stands, whatever follows; a header is whole and bounded, and reading it again alone
/// gives the same; its text form, where there is one, reads back.
pub fn proxy_header(data: &[u8]) {
    let whole = parse(data);
    if let ProxyStep::Header { length, source, destination } = whole {
        assert!(length <= data.len() && length <= V2_OCTETS_MAX);
        assert!(starts_like_header(data));
        assert_eq!(parse(&data[..length]), whole, "what follows a header changed it");
        assert_eq!(source.is_some(), destination.is_some());
        if let (Some(source), Some(destination)) = (source, destination) {
            assert_eq!(source.is_ipv4(), destination.is_ipv4());
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.ip(), destination.ip());
            let line = format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port());
            assert!(line.len() <= V1_OCTETS_MAX);
            assert_eq!(
                parse(line.as_bytes()),
                ProxyStep::Header { length: line.len(), source: Some(source), destination: Some(destination) }
            );
        }
    }
    for end in 0..data.len().min(V2_OCTETS_MAX + 1) {
        match parse(&data[..end]) {
            ProxyStep::Incomplete => assert!(end < V2_OCTETS_MAX, "nothing is awaited behind the longest header"),
            decided => assert_eq!(decided, whole, "{end} octets decided, the rest changed it"),
        }
    }
    if data.len() >= V2_OCTETS_MAX {
        assert_ne!(whole, ProxyStep::Incomplete);
    }
}
