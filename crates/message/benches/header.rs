//! The header section: cut off while the message arrives, and walked.
#![allow(clippy::unwrap_used, reason = "a bench")]

use bytes::Bytes;
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use message::{HeaderLimits, HeaderSplitter, author_addresses, fields};

const LIMITS: HeaderLimits = HeaderLimits { bytes_max: 1 << 20, fields_max: 1000, received_max: 50 };

fn main() {
    divan::main();
}

/// What passed five hops and two signers: some 4 KiB in 30 fields.
fn header() -> Vec<u8> {
    let mut header = String::new();
    for hop in 0..5 {
        header.push_str(&format!(
            "Received: from mx{hop}.example.net (mx{hop}.example.net [192.0.2.{hop}])\r\n\tby mx.example.org with ESMTPS id \
             4XyZ{hop}abcdef\r\n\tfor <alice@example.org>; Sun, 22 Nov 2026 10:00:0{hop} +0000\r\n"
        ));
    }
    for signer in 0..2 {
        header.push_str(&format!("DKIM-Signature: v=1; a=rsa-sha256; d=s{signer}.example; s=mail;\r\n"));
        for _ in 0..6 {
            header.push_str("\tb=dGhpcyBpcyBub3QgYSBzaWduYXR1cmUgYnV0IGl0IGlzIGFzIGxvbmcgYXMgb25lIGlz\r\n");
        }
    }
    for n in 0..17 {
        header.push_str(&format!("X-Field-{n}: some words that a program wrote for another one\r\n"));
    }
    header.push_str("Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@example.net>\r\nSubject: a walk\r\n");
    header.push_str("From: \"Carl Remote\" <carl@remote.example>\r\nTo: alice@example.org\r\nMIME-Version: 1.0\r\n");
    header.into_bytes()
}

#[divan::bench]
fn walk(bencher: Bencher) {
    let header = header();
    let walk = || fields(black_box(&header)).filter(|field| field.is("received")).count();
    bencher.counter(BytesCount::new(header.len())).bench(walk);
}

#[divan::bench]
fn author(bencher: Bencher) {
    let header = header();
    bencher.counter(BytesCount::new(header.len())).bench(|| author_addresses(black_box(&header)).unwrap());
}

/// In reads of 16 KiB, with a body of 10 KiB behind it, as ingress has it.
#[divan::bench]
fn split(bencher: Bencher) {
    let mut text = header();
    text.extend_from_slice(b"\r\n");
    let line = [b'x'; 76];
    while text.len() < 14 << 10 {
        text.extend_from_slice(&line);
        text.extend_from_slice(b"\r\n");
    }
    let text = Bytes::from(text);
    bencher.counter(BytesCount::new(text.len())).bench(|| {
        let mut splitter = HeaderSplitter::new(LIMITS);
        let mut body = Vec::new();
        splitter.push(black_box(text.clone()), &mut body).unwrap();
        (splitter.finish(&mut body), body)
    });
}
