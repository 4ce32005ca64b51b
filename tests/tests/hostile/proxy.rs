//! S17: who says where a client comes from, and is not asked.

use crate::documents;
use crate::kit::{Raw, site, still_works};

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2: command and family, announced length, what follows.
fn v2(command: u8, family: u8, length: u16, rest: &[u8]) -> Vec<u8> {
    [V2, &[command, family], &length.to_be_bytes(), rest].concat()
}

const ADDRESSES: [u8; 12] = [192, 0, 2, 7, 127, 0, 0, 1, 0x30, 0x39, 0, 25];

#[test]
fn s17_a_header_from_a_stranger_or_a_broken_one_closes_and_is_counted() {
    let listener = |name: &str, trusted: &str| {
        let identity = format!(
            "clientIdentity: {{ mode: proxyProtocol, trusted: [{trusted}] }}\nlimits: {{ proxyTimeout: 1s }}\n"
        );
        documents::listener_mx(&identity).replace("name: mx", &format!("name: {name}"))
    };
    let more =
        documents::listener_mx("") + &listener("trusted", "127.0.0.0/8") + &listener("strange", "198.51.100.0/24");
    let site = site(&more, "");
    let posthouse = site.start();
    let tlv = |kind: u8, announced: u16, octets: usize| {
        let rest = [&ADDRESSES[..], &[kind], &announced.to_be_bytes(), &vec![b'x'; octets]].concat();
        v2(0x21, 0x11, u16::try_from(rest.len()).unwrap(), &rest)
    };
    let broken: Vec<Vec<u8>> = vec![
        b"PROXY TCP4 nonsense\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 127.0.0.1 5555\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 127.0.0.1 5555 99999\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.777 127.0.0.1 5555 25\r\n".to_vec(),
        b"PROXY TCP4 2001:db8::1 ::1 5555 25\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 127.0.0.1 5555 25\n".to_vec(),
        [b"PROXY TCP4 ", &[b'1'; 200][..], b"\r\n"].concat(),
        b"PROXY\r\n".to_vec(),
        b"proxy TCP4 192.0.2.7 127.0.0.1 5555 25\r\n".to_vec(),
        // Required, and not there.
        b"EHLO client.test\r\n".to_vec(),
        b"".to_vec(),
        // Half of one, and then nothing.
        b"PROXY TCP4 192.0.2".to_vec(),
        V2[..7].to_vec(),
        v2(0x21, 0x11, 12, &ADDRESSES[..5]),
        // A wrong version, command and family, no room for the addresses, one that is too long.
        v2(0x11, 0x11, 12, &ADDRESSES),
        v2(0x2f, 0x11, 12, &ADDRESSES),
        v2(0x21, 0x11, 4, &ADDRESSES),
        v2(0x21, 0x21, 12, &ADDRESSES),
        v2(0x21, 0x11, 65535, &[&ADDRESSES[..], &vec![b'x'; 65523]].concat()),
    ];
    std::thread::scope(|scope| {
        for header in &broken {
            let address = posthouse.address("trusted");
            scope.spawn(move || {
                let mut client = Raw::connect(address);
                client.send(header);
                client.send(b"");
                let said = client.rest();
                assert!(said.is_empty(), "{}: {}", header.escape_ascii(), said.escape_ascii());
            });
        }
    });
    assert_eq!(
        posthouse.metric("posthouse_proxy_refused_total", &["trusted"]) as usize,
        broken.len(),
        "each is counted"
    );
    // TLVs that lie about their length are the proxy's business: the addresses are whole, the session is served or closed.
    for header in [tlv(0x20, 1000, 3), tlv(0xea, 3, 3), tlv(0, 0, 0)] {
        let mut client = Raw::connect(posthouse.address("trusted"));
        client.send(&header);
        let reply = client.reply();
        assert!(reply.starts_with("220 ") || reply == "closed", "{reply}");
    }
    // From somebody who is not listed, and on a port that expects none.
    let good =
        [b"PROXY TCP4 192.0.2.7 127.0.0.1 5555 25\r\n".to_vec(), v2(0x21, 0x11, 12, &ADDRESSES), v2(0x20, 0, 0, b"")];
    for listener in ["strange", "mx"] {
        for header in &good {
            let mut client = Raw::connect(posthouse.address(listener));
            client.send(header);
            client.send("EHLO client.test\r\nMAIL FROM:<a@b.test>\r\n");
            let said = String::from_utf8_lossy(&client.rest()).into_owned();
            let after = said.split_once("220 ").map_or(said.as_str(), |(_, rest)| rest);
            assert!(!after.contains("\r\n250"), "{listener}, {}: {said}", header.escape_ascii());
        }
    }
    for listener in ["\"strange\"", "\"mx\""] {
        assert_eq!(posthouse.metric("posthouse_proxy_refused_total", &[listener]) as usize, good.len(), "{listener}");
    }
    // XCLIENT and XFORWARD are no commands here, whoever says them.
    for line in ["XCLIENT ADDR=127.0.0.1 LOGIN=alice@example.org", "XFORWARD ADDR=127.0.0.1"] {
        let mut client = Raw::hello(posthouse.address("mx"));
        client.check(line, "500 5.5.1");
        client.check("MAIL FROM:<c@d.test>", "250");
        client.check("RCPT TO:<x@world.test>", "550 5.7.1");
    }
    // Probes have a port of their own, which knows no PROXY header.
    assert_eq!(posthouse.get("/livez").0, 200);
    assert_eq!(posthouse.get("/readyz").0, 200);
    still_works(&site, &posthouse, "mx", "after-proxy");
}
