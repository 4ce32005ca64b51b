//! Who the client is.

use std::sync::atomic::Ordering;

use resources::snapshot::Identity;

use super::*;

fn proxied(listed: &str) -> Listener {
    let mut mx = listener("mx");
    mx.identity = Identity::Proxy(vec![listed.parse().unwrap()]);
    mx.limits.proxy_timeout = Duration::from_millis(200);
    mx
}

fn v2(command: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.push(0x20 | command);
    header.push(if payload.is_empty() { 0 } else { 0x11 });
    header.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
    header.extend_from_slice(payload);
    header
}

async fn seen_by_policy(site: &Site, client: &mut Client) -> (String, bool) {
    client.expect("220 ").await;
    client.command("EHLO client", "250-").await;
    client.command("MAIL FROM:<s@a.org>", "250").await;
    client.command("RCPT TO:<alice@example.org>", "250").await;
    let session = site.policy.envelopes.lock().unwrap().pop().unwrap().session.unwrap();
    (session.client_ip, session.address_known)
}

#[tokio::test]
async fn a_listed_proxy_tells_the_client() {
    let site = Site::start(vec![proxied("127.0.0.0/8")]).await;
    let four = v2(1, &[192, 0, 2, 7, 127, 0, 0, 1, 0x10, 0, 0, 25]);
    let cases: [(&[u8], (&str, bool)); 4] = [
        (b"PROXY TCP4 192.0.2.5 127.0.0.1 4000 25\r\n", ("192.0.2.5", true)),
        (b"PROXY TCP6 2001:db8::5 ::1 4000 25\r\n", ("2001:db8::5", true)),
        (&four, ("192.0.2.7", true)),
        (&v2(0, &[]), ("127.0.0.1", false)),
    ];
    for (header, expected) in cases {
        let mut client = Client::connect(&site.address("mx")).await;
        // In two pieces, as a network may do.
        let (one, two) = header.split_at(8);
        client.send(one).await;
        client.send(two).await;
        let found = seen_by_policy(&site, &mut client).await;
        assert_eq!((found.0.as_str(), found.1), expected, "{}", String::from_utf8_lossy(header));
    }
}

#[tokio::test]
async fn a_client_that_talks_before_the_greeting_is_closed() {
    let site = Site::start(vec![proxied("127.0.0.0/8")]).await;
    let mut client = Client::connect(&site.address("mx")).await;
    client.send("PROXY TCP4 192.0.2.5 127.0.0.1 4000 25\r\nEHLO client\r\n").await;
    client.expect("554 5.5.0").await;
    client.expect_end().await;
}

#[tokio::test]
async fn a_listed_proxy_without_a_header_is_closed() {
    let site = Site::start(vec![proxied("127.0.0.0/8")]).await;
    let mut silent = Client::connect(&site.address("mx")).await;
    silent.expect_end().await;
    for text in ["EHLO client\r\n", "PROXY TCP4 nonsense\r\n"] {
        let mut client = Client::connect(&site.address("mx")).await;
        client.send(text).await;
        client.expect_end().await;
    }
}

#[tokio::test]
async fn an_unlisted_peer_is_served_under_its_own_address_and_its_header_closes_the_connection() {
    let site = Site::start(vec![proxied("192.0.2.0/24")]).await;
    let mut client = Client::connect(&site.address("mx")).await;
    assert_eq!(seen_by_policy(&site, &mut client).await, ("127.0.0.1".to_owned(), true));

    for header in [b"PROXY TCP4 192.0.2.5 127.0.0.1 4000 25\r\n".to_vec(), v2(0, &[])] {
        let mut client = site.connect("mx").await;
        // The first bytes alone do not tell yet.
        client.send(&header[..3]).await;
        client.send(&header[3..]).await;
        client.expect_end().await;
    }
}

#[tokio::test]
async fn behind_an_unknown_balancer_the_address_means_nothing() {
    let mut mx = listener("mx");
    mx.identity = Identity::Unknown;
    let site = Site::start(vec![mx]).await;
    let mut client = Client::connect(&site.address("mx")).await;
    assert_eq!(seen_by_policy(&site, &mut client).await, ("127.0.0.1".to_owned(), false));
    client.command("DATA", "354").await;
    client.send("\r\nx\r\n.\r\n").await;
    client.expect("250").await;
    assert!(site.queue.only().header().starts_with("Received: from client\r\n"));
}

#[tokio::test]
async fn one_source_has_its_share_of_the_sessions() {
    let mut mx = proxied("127.0.0.0/8");
    mx.limits.sessions_per_source_max = 1;
    let site = Site::start(vec![mx]).await;
    let open = async |address: &str| {
        let mut client = Client::connect(&site.address("mx")).await;
        client.send(format!("PROXY TCP4 {address} 127.0.0.1 4000 25\r\n")).await;
        client
    };
    let mut first = open("192.0.2.1").await;
    first.expect("220").await;
    let mut second = open("192.0.2.1").await;
    second.expect("421 4.7.0").await;
    second.expect_end().await;
    open("192.0.2.2").await.expect("220").await;
    first.command("QUIT", "221").await;
    first.expect_end().await;
    // The seat is free once the session's task has ended.
    let freed = async {
        while !open("192.0.2.1").await.reply().await.starts_with("220") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.unwrap();
}

#[tokio::test]
async fn a_session_that_policy_refuses_is_told_why() {
    let site = Site::start(vec![listener("mx")]).await;
    site.policy.refuses_sessions.store(true, Ordering::SeqCst);
    let mut client = Client::connect(&site.address("mx")).await;
    client.expect("554 5.7.1 go away").await;
    client.expect_end().await;
}

#[tokio::test]
async fn a_user_of_the_machine_submits_through_the_socket_under_the_own_name() {
    let mut snapshot = snapshot(vec![]);
    snapshot.platform.sendmail_socket = true;
    let site = Site::start_with(snapshot).await;
    let path = site.dir.path().join(crate::SENDMAIL_SOCKET);
    let mut client = Client::over(tokio::net::UnixStream::connect(path).await.unwrap());
    client.expect("220").await;
    client.command("EHLO localhost", "250-").await;
    client.message(&["alice@example.org"], "Subject: x\r\n\r\nx").await;
    let uid = rustix::process::getuid().as_raw();
    let user = crate::passwd::user_name(uid).await;
    let session = site.policy.envelopes.lock().unwrap()[0].session.clone().unwrap();
    assert_eq!((session.client_ip.as_str(), session.local_user.as_str()), ("", user.as_str()));
    let header = site.queue.only().header();
    assert!(header.starts_with(&format!("Received: from localhost (local user {user})\r\n")), "{header}");
    assert!(header.contains("\r\nDate: ") && header.contains("\r\nMessage-ID: <"), "{header}");
}
