//! S19: messages that are bombs for whoever takes them apart.
//!
//! Ingress takes nothing apart: it bounds the header section, the fields, the lines and the size, and what it takes goes on as
//! it came. Limits of parts, depth and expansion, archives (42.zip, nested gzip) and their verdicts come with the scanner, as do
//! DMARC reports.

use std::fmt::Write;

use testkit::eventually;

use crate::documents;
use crate::kit::{Raw, accepted, mail_of, rss_kib, site, still_works};

fn parts(count: usize) -> String {
    let mut text = String::from("Subject: parts\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n");
    for n in 0..count {
        let _ = write!(text, "--b\r\n\r\n{n}\r\n");
    }
    text + "--b--\r\n"
}

fn nested(depth: usize) -> String {
    let mut text = String::from("Subject: nested\r\n");
    for n in 0..depth {
        let _ = write!(text, "Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n");
    }
    text + "\r\nx\r\n"
}

#[test]
fn s19_bombs_pass_ingress_in_flat_memory_and_arrive_as_they_came() {
    let site = site(&documents::listener_mx(""), "");
    let posthouse = site.start();
    let prefix = "Subject: prefix\r\nContent-Type: multipart/mixed; boundary=ab\r\n\r\n--a\r\n\r\nx\r\n--ab\r\n\r\ny\r\n--abc--\r\n--ab--\r\n";
    let junk = format!(
        "Subject: junk\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n",
        "QUJD!@#$%^&*()\u{fc}====QQ=\r\n".repeat(10_000)
    );
    let zip = format!(
        "Subject: zip\r\nContent-Type: application/zip\r\nContent-Transfer-Encoding: base64\r\n\r\n{}",
        "UEsDBBQAAAAIAA==\r\n".repeat(50_000)
    );
    let bombs = [
        ("parts", parts(100_000)),
        ("nested", nested(1000)),
        ("prefix", prefix.to_owned()),
        ("junk", junk),
        ("zip", zip),
    ];
    let before = rss_kib(&posthouse);
    let mut client = Raw::hello(posthouse.address("mx"));
    for (_, text) in &bombs {
        client.deliver("carol@d.test", "alice@example.org", text);
    }
    eventually("all of them", || (mail_of(&site, "alice").len() == bombs.len()).then_some(()));
    let found = mail_of(&site, "alice");
    for (subject, text) in &bombs {
        let one = found.iter().find(|found| found.contains(&format!("\nSubject: {subject}\n"))).expect(subject);
        let body = |text: &str| text.split_once("\n\n").map(|(_, body)| body.to_owned());
        assert_eq!(body(one), body(&text.replace("\r\n", "\n")), "{subject} is not what it was");
    }
    let grown = rss_kib(&posthouse).saturating_sub(before);
    println!("five bombs: {grown} KiB");
    assert!(grown < 64 << 10, "{grown} KiB for {} octets", bombs.iter().map(|(_, text)| text.len()).sum::<usize>());
}

#[test]
fn s19_header_sections_have_bounds_that_hold_while_they_arrive() {
    let site = site(&documents::listener_mx(""), "");
    let posthouse = site.start();
    let before = rss_kib(&posthouse);
    let cases = [
        // 10 MB in one field, in many lines, in one line, and without an end.
        (
            format!(
                "X: y\r\n{}\r\nx\r\n",
                " folded folded folded folded folded folded folded folded\r\n".repeat(200_000)
            ),
            "552 5.3.4",
        ),
        (format!("{}\r\nx\r\n", format!("X: {}\r\n", "y".repeat(20_000)).repeat(500)), "552 5.3.4"),
        (format!("X: {}\r\n\r\nx\r\n", "y".repeat(900_000)), "250 2.0.0"),
        (format!("X: {}\r\n\r\nx\r\n", "y".repeat(10 << 20)), "554 5.6.0"),
        (format!("{}\r\nx\r\n", "X: y\r\n".repeat(1000)), "250 2.0.0"),
        (format!("{}\r\nx\r\n", "X: y\r\n".repeat(1001)), "554 5.6.0"),
        (format!("{}\r\nx\r\n", "X: y\r\n".repeat(1_000_000)), "554 5.6.0"),
    ];
    for (text, expected) in &cases {
        let mut client = Raw::hello(posthouse.address("mx"));
        client.begin("carol@d.test", "alice@example.org");
        client.send(format!("{text}.\r\n"));
        let reply = client.reply();
        assert!(reply.starts_with(expected), "{:.60}, {} octets: {reply}, not {expected}", text, text.len());
        client.check("NOOP", "250");
    }
    let grown = rss_kib(&posthouse).saturating_sub(before);
    println!("header sections: {grown} KiB");
    assert!(grown < 32 << 10, "{grown} KiB");
    assert_eq!(accepted(&posthouse), 2);
    still_works(&site, &posthouse, "mx", "after-headers");
}
