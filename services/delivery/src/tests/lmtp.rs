use resources::snapshot::LmtpTarget;

use super::peer::{Act, Peer, say, well_behaved};
use super::*;

fn lmtp(target: LmtpTarget) -> Transport {
    transport("in", TransportKind::Lmtp { target, tls: NO_TLS })
}

fn tcp(peer: &Peer) -> Transport {
    lmtp(LmtpTarget::Tcp("127.0.0.1".into(), peer.address.port()))
}

#[tokio::test]
async fn each_recipient_has_the_reply_that_is_its_own() {
    let peer = Peer::start(|_, line| match line {
        "RCPT TO:<none@x.example>" => say("550 5.1.1 who?"),
        "." => say("250 2.0.0 saved\r\n552-5.2.2 mailbox\r\n552 5.2.2 full\r\n550 5.7.1 no\r\n451 4.2.0 busy"),
        _ => well_behaved(line),
    })
    .await;
    let bench = Bench::new(vec![tcp(&peer)]);
    let to = ["a@x.example", "none@x.example", "b@x.example", "c@x.example", "d@x.example"];
    let found = bench.attempt(delivery("in", &to)).await;
    assert_eq!(
        found,
        [
            "1 delivered 2.0.0 250 2.0.0 saved",
            "2 failed 5.1.1 550 5.1.1 who?",
            "3 failed 5.2.2 552 5.2.2 mailbox\nfull",
            "4 failed 5.7.1 550 5.7.1 no",
            "5 deferred 4.2.0 451 4.2.0 busy",
        ]
    );
    assert_eq!(peer.heard_beginning("LHLO mx1.example.org"), 1);
    assert_eq!(
        peer.heard_beginning("text: Return-Path: <s@us.example>\r\nSubject: hi\r\n\r\n"),
        1,
        "{:?}",
        peer.heard()
    );
}

#[tokio::test]
async fn replies_that_came_before_the_connection_was_lost_count() {
    let peer = Peer::start(|_, line| match line {
        "." => say("250 2.0.0 saved"),
        _ => well_behaved(line),
    })
    .await;
    let mut transport = tcp(&peer);
    transport.attempt_timeout = Duration::from_millis(500);
    let bench = Bench::new(vec![transport]);
    let found = bench.attempt(delivery("in", &["a@x.example", "b@x.example"])).await;
    assert_eq!(found[0], "1 delivered 2.0.0 250 2.0.0 saved");
    assert!(found[1].starts_with("2 deferred 4.4.2 timed out"), "{found:?}");
}

#[tokio::test]
async fn a_single_recipient_is_told_where_the_mail_was_sent_to() {
    let peer = Peer::start(|_, line| well_behaved(line)).await;
    let bench = Bench::new(vec![tcp(&peer)]);
    let mut bounce = delivery("in", &["a@x.example"]);
    bounce.sender.clear();
    bench.attempt(bounce).await;
    let expected = "text: Return-Path: <>\r\nDelivered-To: outside@us.example\r\nSubject: hi\r\n\r\n";
    assert_eq!(peer.heard_beginning(expected), 1, "{:?}", peer.heard());
}

#[tokio::test]
async fn a_unix_socket_below_the_state_folder_serves_too_and_its_session_is_shared() {
    let bench = Bench::new(vec![lmtp(LmtpTarget::Unix("lmtp.sock".into()))]);
    let path = bench.node.state_dir().join("lmtp.sock");
    let found = bench.settle(delivery("in", &["a@x.example"])).await;
    assert!(words(&found)[0].starts_with("1 deferred 4.4.1 no connection"), "{found:?}");
    assert!(found.pause.is_some());
    let peer = Peer::start_unix(&path, |_, line| well_behaved(line)).await;
    for _ in 0..2 {
        let settlement = bench.settle(delivery("in", &["a@x.example"])).await;
        assert_eq!(words(&settlement), ["1 delivered 2.0.0 250 2.0.0 taken"]);
        assert_eq!(settlement.results[0].outcome.clone().unwrap().remote, path.display().to_string());
    }
    assert_eq!(peer.connections(), 1);
}

#[tokio::test]
async fn a_host_name_that_does_not_exist_is_our_mistake_and_defers() {
    let dns = testkit::dns::FakeDns::start();
    let bench = Bench::with(vec![lmtp(LmtpTarget::Tcp("nowhere.example".into(), 24))], |snapshot| {
        snapshot.platform.dns_servers = vec![dns.address()];
    });
    let found = bench.attempt(delivery("in", &["a@x.example"])).await;
    assert_eq!(found, ["1 deferred 4.4.4 nowhere.example does not exist"]);
}

#[tokio::test]
async fn a_peer_that_hangs_up_before_the_greeting_defers() {
    let peer = Peer::start(|_, _| Act::Close).await;
    let bench = Bench::new(vec![tcp(&peer)]);
    let found = bench.attempt(delivery("in", &["a@x.example"])).await;
    assert!(found[0].starts_with("1 deferred 4.4.2 connection lost while waiting for the greeting"), "{found:?}");
}
