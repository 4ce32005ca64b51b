use resources::snapshot::Credentials;
use rules::Secret;

use super::peer::{Act, Peer, say, well_behaved};
use super::*;

#[tokio::test]
async fn a_message_is_relayed_as_it_is_and_dot_stuffed() {
    let peer = Peer::start(|_, line| well_behaved(line)).await;
    let bench = Bench::new(vec![out(smart(&[&peer]))]);
    let settlement = bench.settle(delivery("out", &["a@x.example", "b@x.example"])).await;
    assert_eq!(words(&settlement), ["1 relayed 2.0.0 250 2.0.0 taken", "2 relayed 2.0.0 250 2.0.0 taken"]);
    let remote = settlement.results[0].outcome.clone().unwrap().remote;
    assert_eq!(remote, format!("[127.0.0.1]:{}", peer.address.port()));
    assert_eq!(settlement.pause, None);
    assert_eq!(
        peer.heard(),
        [
            "EHLO mx1.example.org",
            "MAIL FROM:<s@us.example>",
            "RCPT TO:<a@x.example>",
            "RCPT TO:<b@x.example>",
            "DATA",
            "text: Subject: hi\r\n\r\ntext\r\n..dot\r\n",
        ]
    );
}

#[tokio::test]
async fn dsn_parameters_are_passed_on_and_then_nothing_is_owed() {
    let peer = Peer::start(|_, line| {
        if line.starts_with("EHLO") { say("250-peer\r\n250-DSN\r\n250 SIZE 0") } else { well_behaved(line) }
    })
    .await;
    let bench = Bench::new(vec![out(smart(&[&peer]))]);
    let mut delivery = delivery("out", &["a@x.example"]);
    delivery.envid = "id+1".into();
    delivery.dsn_return = pb::DsnReturn::Full as i32;
    let recipient = delivery.recipients[0].recipient.as_mut().unwrap();
    recipient.notify = 2 | 4;
    recipient.original = "rfc822;o@us.example".into();
    assert_eq!(bench.attempt(delivery).await, ["1 passed 2.0.0 250 2.0.0 taken"]);
    assert_eq!(peer.heard_beginning("MAIL FROM:<s@us.example> SIZE=27 RET=FULL ENVID=id+2B1"), 1, "{:?}", peer.heard());
    assert_eq!(peer.heard_beginning("RCPT TO:<a@x.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;o@us.example"), 1);
}

#[tokio::test]
async fn refusals_are_kept_word_for_word() {
    let cases = [
        ("MAIL", "451 4.7.1 greylisted", "1 deferred 4.7.1 451 4.7.1 greylisted"),
        ("RCPT", "550 no such user", "1 failed 5.1.1 550 5.1.1 no such user"),
        ("RCPT", "452 full", "1 deferred 4.5.3 452 4.5.3 full"),
        ("DATA", "554 5.7.1 no", "1 failed 5.7.1 554 5.7.1 no"),
        (".", "550-5.7.1 spam\r\n550 5.7.1 see \x07there", "1 failed 5.7.1 550 5.7.1 spam\nsee ?there"),
        (".", "421 bye", "1 deferred 4.3.2 421 4.3.2 bye"),
    ];
    for (at, reply, expected) in cases {
        let peer = Peer::start(move |_, line| if line.starts_with(at) { say(reply) } else { well_behaved(line) }).await;
        let bench = Bench::new(vec![out(smart(&[&peer]))]);
        assert_eq!(bench.attempt(delivery("out", &["a@x.example"])).await, [expected]);
    }
}

#[tokio::test]
async fn trouble_in_the_middle_defers_whatever_it_is() {
    let long = "x".repeat(1 << 20);
    let cases: [(&str, Act, &str); 6] = [
        ("RCPT", Act::Close, "4.4.2 connection lost while waiting for the reply to RCPT"),
        (".", Act::Close, "4.4.2 connection lost while waiting for the reply to the end of the text"),
        (".", Act::Hang, "4.4.2 timed out while waiting for the reply to the end of the text"),
        ("MAIL", Act::Hang, "4.4.2 timed out while waiting for the reply to MAIL"),
        ("RCPT", say("553-\r\n250"), "4.5.0 lines of one reply have different codes"),
        ("RCPT", say(&format!("550 {long}")), "4.5.0 reply line is longer than"),
    ];
    for (at, act, expected) in cases {
        let peer =
            Peer::start(move |_, line| if line.starts_with(at) { act.clone() } else { well_behaved(line) }).await;
        let mut transport = out(smart(&[&peer]));
        transport.attempt_timeout = Duration::from_millis(700);
        let bench = Bench::new(vec![transport]);
        let found = bench.attempt(delivery("out", &["a@x.example"])).await;
        assert!(found[0].starts_with(&format!("1 deferred {expected}")), "{found:?}");
    }
}

#[tokio::test]
async fn a_route_that_cannot_be_reached_rests_and_says_why() {
    let closed = TcpPort::closed().await;
    let peer = Peer::start(|_, _| say("421 too busy")).await;
    let bench = Bench::new(vec![out(relay(RelayTo::Hosts(vec![
        HostPort { host: "127.0.0.1".into(), port: closed.0 },
        HostPort { host: "127.0.0.1".into(), port: peer.address.port() },
    ])))]);
    for seconds in [60, 120] {
        let settlement = bench.settle(delivery("out", &["a@x.example"])).await;
        assert_eq!(words(&settlement), ["1 deferred 4.3.2 421 4.3.2 too busy"]);
        let pause = settlement.pause.unwrap();
        assert_eq!((pause.seconds, pause.reason.as_str()), (seconds, "421 4.3.2 too busy"));
    }
}

/// A port that nobody listens on.
struct TcpPort(u16);

impl TcpPort {
    async fn closed() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self(listener.local_addr().unwrap().port())
    }
}

#[tokio::test]
async fn the_next_smart_host_serves_where_the_first_does_not() {
    let busy = Peer::start(|_, _| say("421 too busy")).await;
    let peer = Peer::start(|_, line| well_behaved(line)).await;
    let bench = Bench::new(vec![out(smart(&[&busy, &peer]))]);
    assert_eq!(bench.attempt(delivery("out", &["a@x.example"])).await, ["1 relayed 2.0.0 250 2.0.0 taken"]);
    assert_eq!((busy.connections(), peer.connections()), (1, 1));
}

#[tokio::test]
async fn a_greeting_that_says_no_mail_here_is_final_when_no_other_host_serves() {
    let peer = Peer::start(|_, _| say("554 no mail service")).await;
    let bench = Bench::new(vec![out(smart(&[&peer]))]);
    assert_eq!(bench.attempt(delivery("out", &["a@x.example"])).await, ["1 failed 5.3.2 554 5.3.2 no mail service"]);
}

#[tokio::test]
async fn consecutive_messages_share_a_session() {
    let peer =
        Peer::start(|_, line| if line.starts_with("RCPT TO:<bad") { say("550 no") } else { well_behaved(line) }).await;
    let bench = Bench::new(vec![out(smart(&[&peer]))]);
    for to in ["a@x.example", "bad@x.example", "c@x.example"] {
        bench.attempt(delivery("out", &[to])).await;
    }
    assert_eq!((peer.connections(), peer.heard_beginning("EHLO")), (1, 1));
    assert_eq!(peer.heard_beginning("text:"), 3, "an empty text ends the one for nobody: {:?}", peer.heard());
    assert_eq!(peer.heard_beginning("RSET"), 0, "which also ended its transaction");
}

#[tokio::test]
async fn a_session_that_ended_while_it_rested_is_replaced_without_a_deferral() {
    // The first session ends after its first message: by closing, or by saying so to the next MAIL.
    for says in [Act::Close, say("421 4.4.2 idle too long")] {
        let mails = std::sync::atomic::AtomicUsize::new(0);
        let peer = Peer::start(move |_, line| {
            if line.starts_with("MAIL") && mails.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 1 {
                return says.clone();
            }
            well_behaved(line)
        })
        .await;
        let bench = Bench::new(vec![out(smart(&[&peer]))]);
        for _ in 0..2 {
            assert_eq!(bench.attempt(delivery("out", &["a@x.example"])).await, ["1 relayed 2.0.0 250 2.0.0 taken"]);
        }
        assert_eq!(peer.connections(), 2);
    }
}

#[tokio::test]
async fn a_changed_transport_opens_sessions_of_its_own() {
    let peer = Peer::start(|_, line| well_behaved(line)).await;
    let bench = Bench::new(vec![out(smart(&[&peer]))]);
    bench.attempt(delivery("out", &["a@x.example"])).await;
    let mut next = testing::snapshot();
    next.transports = by_name(vec![out(smart(&[&peer]))]);
    bench.node.snapshots().replace(next);
    bench.attempt(delivery("out", &["a@x.example"])).await;
    assert_eq!(peer.connections(), 2);
}

#[tokio::test]
async fn a_large_body_is_streamed_from_the_queue_and_never_ended_half_way() {
    let peer = Peer::start(|_, line| well_behaved(line)).await;
    let bench = Bench::new(vec![out(smart(&[&peer]))]);
    let chunk = Bytes::from("a line\n".repeat(9000));
    let large = |id: &str| pb::Delivery {
        message_id: id.into(),
        body_inline: false,
        body: Bytes::new(),
        body_size_bytes: 4 * 63_000,
        ..delivery("out", &["a@x.example"])
    };
    let whole = vec![chunk.clone(); 4];
    let broken = vec![chunk.clone(), chunk, Bytes::from_static(b"trouble")];
    bench.queue.state.lock().unwrap().bodies = [("whole".to_owned(), whole), ("broken".to_owned(), broken)].into();
    assert_eq!(bench.attempt(large("whole")).await, ["1 relayed 2.0.0 250 2.0.0 taken"]);
    let text = peer.heard().pop().unwrap();
    assert_eq!(text.matches("a line\r\n").count(), 36_000);
    for (id, why) in [("broken", "lost"), ("missing", "no disk")] {
        let found = bench.attempt(large(id)).await;
        assert!(found[0].starts_with("1 deferred 4.3.0 body cannot be read") && found[0].contains(why), "{found:?}");
    }
    assert_eq!(peer.heard_beginning("text:"), 1, "no half message was ended");
}

fn with_tls(relay: Relay, mode: ClientTlsMode, verify: Verify, authorities: Option<Arc<[u8]>>) -> Relay {
    Relay { tls: ClientTls { mode, verify, authorities }, ..relay }
}

fn offers_tls(line: &str) -> Act {
    if line.starts_with("EHLO") { say("250-peer\r\n250-AUTH PLAIN\r\n250 STARTTLS") } else { well_behaved(line) }
}

#[tokio::test]
async fn tls_is_used_and_verified_as_the_transport_says() {
    use ClientTlsMode::{Off, Opportunistic, Required};
    let peer = Peer::start(|_, line| offers_tls(line)).await;
    let by_name = || relay(RelayTo::Hosts(vec![HostPort { host: "localhost".into(), port: peer.address.port() }]));
    let known = Some(peer.certificate_pem.clone());
    let taken = "1 relayed 2.0.0";
    let cases = [
        (by_name(), Off, Verify::Full, None, taken, 0),
        (by_name(), Opportunistic, Verify::Full, None, taken, 1),
        (by_name(), Required, Verify::None, None, taken, 1),
        (by_name(), Required, Verify::Full, known.clone(), taken, 1),
        (by_name(), Required, Verify::Full, None, "1 deferred 4.7.5 TLS handshake failed: invalid peer certificate", 0),
        // The certificate is for localhost, not for the address.
        (smart(&[&peer]), Required, Verify::Full, known, "1 deferred 4.7.5 TLS handshake failed", 0),
    ];
    for (relay, mode, verify, authorities, expected, handshakes) in cases {
        let before = peer.heard_beginning("<tls>");
        let bench = Bench::new(vec![out(with_tls(relay, mode, verify, authorities))]);
        let found = bench.attempt(delivery("out", &["a@x.example"])).await;
        assert!(found[0].starts_with(expected), "{mode:?} {verify:?}: {found:?}");
        if expected == taken {
            assert_eq!(peer.heard_beginning("<tls>") - before, handshakes, "{mode:?} {verify:?}");
        }
    }
}

#[tokio::test]
async fn implicit_tls_comes_before_the_greeting_and_never_falls_back() {
    use ClientTlsMode::Implicit;
    let peer = Peer::start_tls(|_, line| offers_tls(line)).await;
    let by_name = || relay(RelayTo::Hosts(vec![HostPort { host: "localhost".into(), port: peer.address.port() }]));
    let login = || Some(Credentials { user: "u".into(), password: Secret::new("p") });
    let known = Some(peer.certificate_pem.clone());
    let secure = Relay { auth: login(), ..with_tls(by_name(), Implicit, Verify::Full, known) };
    let bench = Bench::new(vec![out(secure)]);
    assert_eq!(bench.attempt(delivery("out", &["a@x.example"])).await, ["1 relayed 2.0.0 250 2.0.0 taken"]);
    let heard = peer.heard();
    assert_eq!(heard[0], "<tls>", "nothing is said in the clear: {heard:?}");
    assert!(peer.heard_beginning("AUTH PLAIN") == 1 && peer.heard_beginning("STARTTLS") == 0, "{heard:?}");

    let strange = Bench::new(vec![out(with_tls(by_name(), Implicit, Verify::Full, None))]);
    let found = strange.attempt(delivery("out", &["a@x.example"])).await;
    assert!(found[0].starts_with("1 deferred 4.7.5 TLS handshake failed"), "{found:?}");
    let clear = Peer::start(|_, line| well_behaved(line)).await;
    let bench = Bench::new(vec![out(with_tls(smart(&[&clear]), Implicit, Verify::None, None))]);
    let found = bench.attempt(delivery("out", &["a@x.example"])).await;
    assert!(found[0].starts_with("1 deferred 4.7.5 TLS handshake failed"), "{found:?}");
    assert_eq!(clear.heard_beginning("EHLO"), 0);
}

#[tokio::test]
async fn broken_tls_is_gone_around_only_where_it_is_opportunistic() {
    for (mode, expected) in
        [(ClientTlsMode::Opportunistic, "1 relayed"), (ClientTlsMode::Required, "1 deferred 4.7.5 TLS")]
    {
        let peer = Peer::start(|_, line| match line {
            "STARTTLS" => say("220 go\r\nthis is no handshake"),
            _ => offers_tls(line),
        })
        .await;
        let bench = Bench::new(vec![out(with_tls(smart(&[&peer]), mode, Verify::None, None))]);
        let found = bench.attempt(delivery("out", &["a@x.example"])).await;
        assert!(found[0].starts_with(expected), "{found:?}");
    }
}

#[tokio::test]
async fn a_login_never_travels_in_the_clear_unless_it_may() {
    let login = || Some(Credentials { user: "u".into(), password: Secret::new("p") });
    let peer =
        Peer::start(
            |_, line| if line.starts_with("EHLO") { say("250-peer\r\n250 AUTH PLAIN") } else { well_behaved(line) },
        )
        .await;
    let home = Bench::new(vec![out(Relay { auth: login(), ..smart(&[&peer]) })]);
    let found = home.attempt(delivery("out", &["a@x.example"])).await;
    assert!(found[0].starts_with("1 deferred 4.7.11 there is no TLS"), "{found:?}");
    assert_eq!(peer.heard_beginning("AUTH"), 0);
    let away = Bench::new(vec![out(Relay { auth: login(), auth_without_tls: true, ..smart(&[&peer]) })]);
    assert_eq!(away.attempt(delivery("out", &["a@x.example"])).await, ["1 relayed 2.0.0 250 2.0.0 taken"]);
    assert_eq!(peer.heard_beginning("AUTH PLAIN AHUAcA=="), 1);

    let secure = Peer::start(|_, line| offers_tls(line)).await;
    let relay = with_tls(smart(&[&secure]), ClientTlsMode::Required, Verify::None, None);
    let bench = Bench::new(vec![out(Relay { auth: login(), ..relay })]);
    assert_eq!(bench.attempt(delivery("out", &["a@x.example"])).await, ["1 relayed 2.0.0 250 2.0.0 taken"]);
    let heard = secure.heard();
    let (tls, auth) = (heard.iter().position(|l| l == "<tls>"), heard.iter().position(|l| l.starts_with("AUTH")));
    assert!(tls < auth && tls.is_some(), "{heard:?}");
}

#[tokio::test]
async fn a_refused_login_is_our_trouble_and_defers() {
    let peer = Peer::start(|_, line| {
        if line.starts_with("AUTH") {
            say("535 5.7.8 who?")
        } else if line.starts_with("EHLO") {
            say("250-peer\r\n250 AUTH PLAIN")
        } else {
            well_behaved(line)
        }
    })
    .await;
    let auth = Some(Credentials { user: "u".into(), password: Secret::new("p") });
    let bench = Bench::new(vec![out(Relay { auth, auth_without_tls: true, ..smart(&[&peer]) })]);
    assert_eq!(bench.attempt(delivery("out", &["a@x.example"])).await, ["1 deferred 4.7.8 535 4.7.8 who?"]);
}

#[tokio::test]
async fn eight_bit_text_goes_only_where_it_is_understood() {
    let plain =
        Peer::start(|_, line| if line.starts_with("EHLO") { say("250 peer") } else { well_behaved(line) }).await;
    let eight = Peer::start(|_, line| well_behaved(line)).await;
    let bench = Bench::new(vec![out(smart(&[&plain])), transport("eight", TransportKind::Relay(smart(&[&eight])))]);
    let mut message = delivery("out", &["a@x.example"]);
    message.body_type = pb::BodyType::BodyType8bitmime as i32;
    // Declared 8-bit, and plain ASCII.
    assert_eq!(bench.attempt(message.clone()).await, ["1 relayed 2.0.0 250 2.0.0 taken"]);
    message.body = Bytes::from_static("grüße\r\n".as_bytes());
    let found = bench.attempt(message.clone()).await;
    assert!(found[0].starts_with("1 failed 5.6.3"), "{found:?}");
    message.transport = "eight".into();
    assert_eq!(bench.attempt(message).await, ["1 relayed 2.0.0 250 2.0.0 taken"]);
    assert_eq!(eight.heard_beginning("MAIL FROM:<s@us.example> BODY=8BITMIME"), 1);
}

#[tokio::test]
async fn a_transport_that_is_gone_defers_and_a_damaged_row_stays() {
    let bench = Bench::new(vec![]);
    assert_eq!(
        bench.attempt(delivery("out", &["a@x.example"])).await,
        ["1 deferred 4.3.5 transport out is not configured"]
    );
    let peer = Peer::start(|_, line| well_behaved(line)).await;
    let bench = Bench::new(vec![out(smart(&[&peer]))]);
    let found = bench.attempt(delivery("out", &["not an address", "a@x.example"])).await;
    assert_eq!(
        found,
        ["1 deferred 4.3.0 the recipient in the queue is not an address", "2 relayed 2.0.0 250 2.0.0 taken"]
    );
}

#[tokio::test]
async fn a_host_table_names_the_hosts_of_a_domain_and_a_missing_table_defers() {
    let peer = Peer::start(|_, line| well_behaved(line)).await;
    let to = || RelayTo::HostTable { table: "hosts".into(), mx_port: 25, refuse: Vec::new() };
    let row = ("x.example".to_owned(), vec![format!("127.0.0.1:{}", peer.address.port())]);
    let table = rules::StaticTable::new([row].into(), Vec::new(), Vec::new());
    let tables = [("hosts".to_owned(), Arc::new(rules::Table::Static(table)))].into();
    let bench = Bench::with(vec![out(relay(to()))], |snapshot| {
        snapshot.rules = Arc::new(rules::RuleSet { tables, ..Default::default() });
    });
    assert_eq!(bench.attempt(delivery("out", &["a@x.example"])).await, ["1 relayed 2.0.0 250 2.0.0 taken"]);
    let bench = Bench::new(vec![out(relay(to()))]);
    let found = bench.attempt(delivery("out", &["a@x.example"])).await;
    assert_eq!(found, ["1 deferred 4.3.5 host table hosts is not there"]);
}
