//! The PROXY protocol header, versions 1 and 2 (haproxy.org, proxy-protocol.txt).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Section 2.1: the longest version 1 header with its CRLF.
pub const V1_OCTETS_MAX: usize = 107;
/// Bound of a version 2 header; what TLVs a proxy adds fits easily.
pub const V2_OCTETS_MAX: usize = 4096;

const V1_START: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED_OCTETS: usize = 16;
/// So many octets of a beginning tell a header from a mail client.
const TELLING_OCTETS: usize = 5;

/// What the beginning of a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyStep {
    /// More is needed.
    Incomplete,
    /// A whole header.
    Header {
        /// Octets of the header; what follows belongs to the client.
        length: usize,
        /// The client; `None` where the proxy speaks for itself or does not know.
        source: Option<SocketAddr>,
        /// Where the client connected to.
        destination: Option<SocketAddr>,
    },
    /// No header, or a faulty one: close.
    Malformed,
}

/// True where `input` starts like a header, even an incomplete one. From a peer that is not listed that closes the connection.
pub fn starts_like_header(input: &[u8]) -> bool {
    input.len() >= TELLING_OCTETS && (is_start_of(input, V1_START) || is_start_of(input, V2_SIGNATURE))
}

/// The octets that are there agree with `expected`.
fn is_start_of(input: &[u8], expected: &[u8]) -> bool {
    let common = input.len().min(expected.len());
    input[..common] == expected[..common]
}

/// Reads the header at the beginning of `input`, which may hold more.
pub fn parse(input: &[u8]) -> ProxyStep {
    if is_start_of(input, V2_SIGNATURE) {
        return if input.len() < V2_FIXED_OCTETS { check_v2_start(input) } else { parse_v2(input) };
    }
    if !is_start_of(input, V1_START) {
        return ProxyStep::Malformed;
    }
    let window = &input[..input.len().min(V1_OCTETS_MAX)];
    match window.iter().position(|byte| *byte == b'\n') {
        Some(end) => parse_v1(&input[..=end]).unwrap_or(ProxyStep::Malformed),
        None if window.len() == V1_OCTETS_MAX => ProxyStep::Malformed,
        None => ProxyStep::Incomplete,
    }
}

fn parse_v1(line: &[u8]) -> Option<ProxyStep> {
    let text = std::str::from_utf8(line).ok()?.strip_suffix("\r\n")?;
    let rest = text.strip_prefix("PROXY ")?;
    let length = line.len();
    // Section 2.1: whatever follows UNKNOWN is ignored.
    if rest == "UNKNOWN" || rest.starts_with("UNKNOWN ") {
        return Some(ProxyStep::Header { length, source: None, destination: None });
    }
    let words: Vec<&str> = rest.splitn(6, ' ').collect();
    let [family, source, destination, source_port, destination_port] = words.as_slice() else {
        return None;
    };
    let address = |text: &str| -> Option<IpAddr> {
        match *family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let source = SocketAddr::new(address(source)?, port(source_port)?);
    let destination = SocketAddr::new(address(destination)?, port(destination_port)?);
    Some(ProxyStep::Header { length, source: Some(source), destination: Some(destination) })
}

fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !(text.len() > 1 && text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

/// A version 2 header whose fixed part is not whole: what is there must be right already.
fn check_v2_start(input: &[u8]) -> ProxyStep {
    let version = input.get(12).is_none_or(|byte| matches!(byte, 0x20 | 0x21));
    if version { ProxyStep::Incomplete } else { ProxyStep::Malformed }
}

fn parse_v2(input: &[u8]) -> ProxyStep {
    let (command, family) = (input[12], input[13]);
    let length = V2_FIXED_OCTETS + usize::from(u16::from_be_bytes([input[14], input[15]]));
    if !matches!(command, 0x20 | 0x21) || length > V2_OCTETS_MAX {
        return ProxyStep::Malformed;
    }
    let Some(body) = input.get(V2_FIXED_OCTETS..length) else {
        return ProxyStep::Incomplete;
    };
    let unknown = ProxyStep::Header { length, source: None, destination: None };
    // Section 2.2: with LOCAL the proxy speaks for itself, and everything behind is to be skipped.
    if command == 0x20 {
        return unknown;
    }
    let addresses = match family {
        // AF_UNSPEC: nothing is known of what follows.
        0x00 => return unknown,
        0x11 => parse_v2_addresses::<4>(body),
        0x21 => parse_v2_addresses::<16>(body),
        // AF_UNIX, stream: two paths of 108 octets.
        0x31 => body.get(216..).map(|tlvs| (None, tlvs)),
        // Datagrams do not carry SMTP; other families do not exist.
        _ => None,
    };
    match addresses {
        Some((pair, tlvs)) if tlvs_are_whole(tlvs) => {
            let (source, destination) = pair.unzip();
            ProxyStep::Header { length, source, destination }
        }
        _ => ProxyStep::Malformed,
    }
}

type Pair = Option<(SocketAddr, SocketAddr)>;

/// Two addresses of `N` octets, two ports, and what follows.
fn parse_v2_addresses<const N: usize>(body: &[u8]) -> Option<(Pair, &[u8])>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = body.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk::<2>()?;
    let (destination_port, rest) = rest.split_first_chunk::<2>()?;
    let socket = |address: &[u8; N], port: &[u8; 2]| SocketAddr::new(IpAddr::from(*address), u16::from_be_bytes(*port));
    Some((Some((socket(source, source_port), socket(destination, destination_port))), rest))
}

/// Section 2.2.1: a type, a length of two octets, a value; the last one ends with the header.
fn tlvs_are_whole(mut tlvs: &[u8]) -> bool {
    while let Some(([_, high, low], rest)) = tlvs.split_first_chunk::<3>() {
        match rest.get(usize::from(u16::from_be_bytes([*high, *low]))..) {
            Some(next) => tlvs = next,
            None => return false,
        }
    }
    tlvs.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut header = V2_SIGNATURE.to_vec();
        header.extend_from_slice(&[command, family]);
        header.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
        header.extend_from_slice(body);
        header
    }

    const FOUR: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xdb, 0xba, 0, 25];

    fn six() -> Vec<u8> {
        let mut body = "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets().to_vec();
        body.extend("2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
        body.extend([0xdb, 0xba, 0, 25]);
        body
    }

    fn with(body: &[u8], more: &[u8]) -> Vec<u8> {
        [body, more].concat()
    }

    /// `source > destination`, `unknown`, or `malformed`; whole and cut at every octet, with more behind it.
    fn check(header: &[u8], expected: &str) {
        let whole = parse(&with(header, b"EHLO x\r\n"));
        let found = match whole {
            ProxyStep::Incomplete => "incomplete".to_owned(),
            ProxyStep::Malformed => "malformed".to_owned(),
            ProxyStep::Header { length, source, destination } => {
                assert_eq!(length, header.len());
                assert_eq!(parse(header), whole);
                match source.zip(destination) {
                    Some((source, destination)) => format!("{source} > {destination}"),
                    None => "unknown".to_owned(),
                }
            }
        };
        assert_eq!(found, expected, "{header:?}");
        let mut malformed = false;
        for cut in 0..header.len() {
            let step = parse(&header[..cut]);
            match expected {
                "malformed" => {
                    assert!(!matches!(step, ProxyStep::Header { .. }), "{header:?} cut at {cut}");
                    assert!(!malformed || step == ProxyStep::Malformed, "{header:?} cut at {cut}: more made it better");
                    malformed |= step == ProxyStep::Malformed;
                }
                _ => assert_eq!(step, ProxyStep::Incomplete, "{header:?} cut at {cut}"),
            }
        }
    }

    #[test]
    fn version_1_is_one_line() {
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.2 56250 25\r\n", "192.0.2.1:56250 > 198.51.100.2:25"),
            ("PROXY TCP6 2001:db8::1 2001:db8::2 56250 25\r\n", "[2001:db8::1]:56250 > [2001:db8::2]:25"),
            ("PROXY UNKNOWN\r\n", "unknown"),
            ("PROXY UNKNOWN ffff::1 whatever 1 2\r\n", "unknown"),
            ("PROXY UNKNOWNS\r\n", "malformed"),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 56250 25\n", "malformed"),
            ("PROXY TCP4 2001:db8::1 198.51.100.2 56250 25\r\n", "malformed"),
            ("PROXY TCP6 192.0.2.1 198.51.100.2 56250 25\r\n", "malformed"),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 56250\r\n", "malformed"),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 56250 25 \r\n", "malformed"),
            ("PROXY TCP4  192.0.2.1 198.51.100.2 56250 25\r\n", "malformed"),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 65536 25\r\n", "malformed"),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 +5 25\r\n", "malformed"),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 05 25\r\n", "malformed"),
            ("PROXY TCP4 192.0.2.01 198.51.100.2 5 25\r\n", "malformed"),
            ("PROXY UDP4 192.0.2.1 198.51.100.2 5 25\r\n", "malformed"),
            ("proxy TCP4 192.0.2.1 198.51.100.2 5 25\r\n", "malformed"),
            ("EHLO x\r\n", "malformed"),
        ] {
            check(line.as_bytes(), expected);
        }
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_OCTETS_MAX - 16));
        check(longest.as_bytes(), "unknown");
        check(format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_OCTETS_MAX - 15)).as_bytes(), "malformed");
    }

    #[test]
    fn version_2_is_binary_and_its_tlvs_are_skipped() {
        let four = "192.0.2.1:56250 > 198.51.100.2:25";
        let mut unix = vec![b'x'; 216];
        unix.extend([4, 0, 0]);
        let largest = with(&FOUR, &with(&[4, 0x0f, 0xe1], &[0; 4065]));
        let cases = [
            (v2(0x21, 0x11, &FOUR), four),
            (v2(0x21, 0x21, &six()), "[2001:db8::1]:56250 > [2001:db8::2]:25"),
            (v2(0x21, 0x11, &with(&FOUR, &[4, 0, 0])), four),
            (v2(0x21, 0x11, &with(&FOUR, &[5, 0, 2, 1, 2, 4, 0, 1, 9])), four),
            (v2(0x21, 0x11, &largest), four),
            (v2(0x20, 0x11, &FOUR), "unknown"),
            (v2(0x20, 0x00, &[]), "unknown"),
            (v2(0x20, 0xff, &[1, 2, 3]), "unknown"),
            (v2(0x21, 0x00, &[1, 2, 3]), "unknown"),
            (v2(0x21, 0x31, &unix), "unknown"),
            (v2(0x21, 0x31, &unix[..215]), "malformed"),
            (v2(0x21, 0x11, &FOUR[..11]), "malformed"),
            (v2(0x21, 0x21, &six()[..35]), "malformed"),
            (v2(0x21, 0x12, &FOUR), "malformed"),
            (v2(0x21, 0x41, &FOUR), "malformed"),
            (v2(0x22, 0x11, &FOUR), "malformed"),
            (v2(0x11, 0x11, &FOUR), "malformed"),
            (v2(0x21, 0x11, &with(&FOUR, &[5, 0, 3, 1, 2])), "malformed"),
            (v2(0x21, 0x11, &with(&FOUR, &[5, 0xff, 0xff, 1])), "malformed"),
            (v2(0x21, 0x11, &with(&FOUR, &[5, 0])), "malformed"),
            (v2(0x21, 0x11, &with(&largest, &[4, 0, 0])), "malformed"),
        ];
        for (header, expected) in cases {
            check(&header, expected);
        }
    }

    #[test]
    fn a_header_from_an_unlisted_peer_is_recognised_early() {
        for (input, expected) in [
            (&b"PROXY"[..], true),
            (b"PROXY TCP4 1.2.3.4", true),
            (V2_SIGNATURE, true),
            (b"\r\n\r\n\0", true),
            (b"PROX", false),
            (b"PROXYING", false),
            (b"\r\n\r\nQUIT\r\n", false),
            (b"EHLO x\r\n", false),
            (b"", false),
        ] {
            assert_eq!(starts_like_header(input), expected, "{input:?}");
        }
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic_or_read_beyond_its_bounds(
            start in 0usize..3, tail in proptest::collection::vec(any::<u8>(), 0..300)
        ) {
            let input = match start {
                0 => tail,
                1 => with(V1_START, &tail),
                _ => with(V2_SIGNATURE, &tail),
            };
            if let ProxyStep::Header { length, .. } = parse(&input) {
                prop_assert!(length <= input.len() && length <= V2_OCTETS_MAX);
            }
        }
    }
}
