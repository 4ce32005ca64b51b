//! Documents that the tests put together.

use std::fmt::Write;

/// Password of every user of the tests.
pub const PASSWORD: &str = "change-me";
/// Its hash, as `openssl passwd -6 -salt posthouse change-me` prints it.
pub const HASH: &str =
    "$6$posthouse$GZvnUT7gwBRiMLAwDIeNKEwBXNfawg63A1P1kMUu9pnIfndbPoNx9RsE.ydW4J3ZgnpCMQ466hH.qtPLEMMUB1";

/// A message with the header fields that a mail program would write.
pub fn message(from: &str, to: &str, subject: &str) -> String {
    format!(
        "From: {from}\r\nTo: {to}\r\nSubject: {subject}\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\n\
         Message-ID: <{subject}@client.test>\r\n\r\nHello.\r\n.A line with a dot.\r\n"
    )
}

/// The platform, `mx` (smtp) and `submission` on port 0, example.org with its postmaster alice.
pub fn base(delivery: &str) -> String {
    platform("") + &listener_mx("") + &listener_submission() + &domain(delivery, "") + &user("alice", "")
}

/// The MailPlatform; `more` are further lines of its spec.
pub fn platform(more: &str) -> String {
    document(
        "MailPlatform",
        "main",
        &format!("hostname: mx.example.org\npostmaster: alice@example.org\nadmin: {{ address: 127.0.0.1:0 }}\n{more}"),
    )
}

/// A plain SMTP listener with opportunistic TLS; `more` are further lines of its spec.
pub fn listener_mx(more: &str) -> String {
    let spec = "protocol: smtp\naddress: 127.0.0.1\nport: 0\ntls: { mode: opportunistic, selfSigned: true }\n";
    document("MailListener", "mx", &format!("{spec}{more}"))
}

/// A submission listener that wants TLS and authentication.
pub fn listener_submission() -> String {
    let spec = "protocol: submission\naddress: 127.0.0.1\nport: 0\n\
                tls: { mode: required, selfSigned: true }\nauth: { required: true }\n";
    document("MailListener", "submission", spec)
}

/// example.org, delivered by the named transport.
pub fn domain(delivery: &str, more: &str) -> String {
    document(
        "MailDomain",
        "example-org",
        &format!("domain: example.org\ndelivery: {{ transport: {delivery} }}\n{more}"),
    )
}

/// A user of example.org with [`PASSWORD`].
pub fn user(name: &str, more: &str) -> String {
    document("MailUser", name, &format!("address: {name}@example.org\npasswordHash: {HASH}\n{more}"))
}

/// A transport; `spec` are the lines of its spec.
pub fn transport(name: &str, spec: &str) -> String {
    document("MailTransport", name, spec)
}

/// LMTP to a TCP address.
pub fn lmtp(name: &str, address: std::net::SocketAddr) -> String {
    transport(name, &format!("lmtp: {{ address: \"{address}\" }}\n{QUICK_RETRY}"))
}

/// A relay by one smart host without TLS.
pub fn smart_host(name: &str, address: std::net::SocketAddr, more: &str) -> String {
    let hosts = format!("relay:\n  hosts: [\"{address}\"]\n  tls: {{ mode: off }}\n");
    transport(name, &format!("{hosts}{more}"))
}

/// Retries at once, so that a test need not wait.
pub const QUICK_RETRY: &str = "retry: { delayFirst: 1s, delayMax: 1s }\n";

/// Rules that send what authenticated users and local programs write to other domains by `transport`.
pub fn relay_policy(transport: &str) -> String {
    let rules = format!(
        "rules:\n\
         \x20 - name: own users go out\n\
         \x20   match: {{ authenticated: any, not: {{ recipientDomain: example.org }} }}\n\
         \x20   action: {{ relay: {{ transport: {transport} }} }}\n\
         \x20 - name: programs of this machine go out\n\
         \x20   match: {{ source: local, not: {{ recipientDomain: example.org }} }}\n\
         \x20   action: {{ relay: {{ transport: {transport} }} }}\n\
         \x20 - include: default\n"
    );
    document("MailPolicy", "main", &rules)
}

/// One document; `spec` are the lines below `spec:`.
pub fn document(kind: &str, name: &str, spec: &str) -> String {
    let mut text = String::from("---\napiVersion: posthouse.dev/v1alpha1\n");
    let _ = write!(text, "kind: {kind}\nmetadata: {{ name: {name} }}\nspec:\n");
    for line in spec.lines() {
        let _ = writeln!(text, "  {line}");
    }
    text
}
