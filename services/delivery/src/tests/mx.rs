use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use testkit::dns::{FakeDns, Trouble};

use super::peer::{Peer, say, well_behaved};
use super::*;

fn mx(port: u16, refuse: &[&str]) -> Transport {
    let refuse = refuse.iter().map(|net| net.parse::<IpNet>().unwrap()).collect();
    out(relay(RelayTo::Mx { port, refuse }))
}

fn bench(dns: &FakeDns, transport: Transport) -> Bench {
    let bench = Bench::with(vec![transport], |snapshot| {
        snapshot.platform.dns_servers = vec![dns.address()];
        snapshot.platform.dns_cache = false;
    });
    let resolver = crate::resolver::Resolver::new(bench.node.snapshots().clone());
    let resolver = Arc::new(resolver.with_answer_timeout(Duration::from_millis(200)));
    let context = Context { resolver, ..bench.context.clone() };
    Bench { context, ..bench }
}

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[tokio::test]
async fn the_nearest_mail_host_that_serves_gets_the_mail() {
    let peer = Peer::start(|_, line| well_behaved(line)).await;
    let dns = FakeDns::start();
    // The nearest has no name, the next one no server (an address that nobody has), the third serves.
    dns.mx("x.example", 10, "gone.x.example.").mx("x.example", 20, "dead.x.example.").mx(
        "x.example",
        30,
        "mx.x.example.",
    );
    dns.host("dead.x.example", "127.93.7.1".parse().unwrap()).host("mx.x.example", HERE);
    let bench = bench(&dns, mx(peer.address.port(), &[]));
    let settlement = bench.settle(delivery("out", &["a@x.example"])).await;
    assert_eq!(words(&settlement), ["1 relayed 2.0.0 250 2.0.0 taken"]);
    let remote = settlement.results[0].outcome.clone().unwrap().remote;
    assert_eq!(remote, format!("mx.x.example [127.0.0.1]:{}", peer.address.port()));
    assert!(dns.names_asked().iter().all(|name| name.ends_with("x.example")), "{:?}", dns.names_asked());
    assert!(!dns.names_asked().iter().any(|name| name.contains("example.")), "no search list: {:?}", dns.names_asked());
}

#[tokio::test]
async fn a_domain_without_mx_is_its_own_mail_host() {
    let peer = Peer::start(|_, line| well_behaved(line)).await;
    let dns = FakeDns::start();
    dns.host("x.example", HERE);
    let bench = bench(&dns, mx(peer.address.port(), &[]));
    assert_eq!(bench.attempt(delivery("out", &["a@x.example"])).await, ["1 relayed 2.0.0 250 2.0.0 taken"]);
}

#[tokio::test]
async fn an_ipv6_mail_host_is_reached_and_an_ipv4_one_follows() {
    let peer = Peer::start(|_, line| well_behaved(line)).await;
    let dns = FakeDns::start();
    // Nobody listens on ::1 with this port.
    dns.mx("x.example", 10, "mx.x.example.").host("mx.x.example", "::1".parse().unwrap()).host("mx.x.example", HERE);
    let bench = bench(&dns, mx(peer.address.port(), &[]));
    assert_eq!(bench.attempt(delivery("out", &["a@x.example"])).await, ["1 relayed 2.0.0 250 2.0.0 taken"]);
}

#[tokio::test]
async fn dns_answers_mean_what_they_say() {
    let dns = FakeDns::start();
    dns.txt("empty.example", "nothing else")
        .mx("null.example", 0, ".")
        .mx("local.example", 10, "localhost.")
        .mx("loop.example", 10, "back.loop.example.")
        .host("back.loop.example", HERE)
        .mx("private.example", 10, "in.private.example.")
        .host("in.private.example", "10.1.2.3".parse().unwrap())
        .mx("mapped.example", 10, "in.mapped.example.")
        .host("in.mapped.example", "::ffff:10.1.2.3".parse().unwrap())
        .mx("us.example", 10, "mx1.example.org.")
        .mx("nobody.example", 10, "gone.nobody.example.")
        .trouble("broken.example", Trouble::ServFail)
        .trouble("refused.example", Trouble::Refused)
        .trouble("silent.example", Trouble::Silence)
        .mx("half.example", 10, "mx.half.example.")
        .trouble("mx.half.example", Trouble::ServFail);
    let bench = bench(&dns, mx(25, &["127.0.0.0/8", "::1/128", "10.0.0.0/8"]));
    let cases = [
        ("a@nowhere.example", "failed 5.1.2 domain nowhere.example does not exist"),
        ("a@empty.example", "failed 5.1.2 empty.example has neither mail hosts nor addresses"),
        ("a@null.example", "failed 5.1.10 domain null.example takes no mail"),
        ("a@local.example", "failed 5.1.10 domain local.example takes no mail"),
        ("a@loop.example", "failed 5.1.10 127.0.0.1 takes no mail"),
        ("a@[127.0.0.1]", "failed 5.1.10 127.0.0.1 takes no mail"),
        ("a@private.example", "failed 5.4.4 10.1.2.3 is in a network that is not delivered to"),
        ("a@mapped.example", "failed 5.4.4 10.1.2.3 is in a network that is not delivered to"),
        ("a@us.example", "failed 5.4.6 the mail host of the domain is this host"),
        ("a@nobody.example", "failed 5.4.4 gone.nobody.example does not exist"),
        ("a@broken.example", "deferred 4.4.3 mail hosts of broken.example cannot be looked up"),
        ("a@refused.example", "deferred 4.4.3 mail hosts of refused.example cannot be looked up"),
        ("a@silent.example", "deferred 4.4.3 mail hosts of silent.example cannot be looked up"),
        ("a@half.example", "deferred 4.4.3 mx.half.example cannot be looked up"),
    ];
    for (to, expected) in cases {
        let found = bench.attempt(delivery("out", &[to])).await;
        assert!(found[0].starts_with(&format!("1 {expected}")), "{to}: {found:?}");
    }
}

#[tokio::test]
async fn a_mail_host_that_is_one_of_our_listeners_is_a_loop() {
    let peer = Peer::start(|_, line| well_behaved(line)).await;
    let port = peer.address.port();
    let dns = FakeDns::start();
    dns.mx("x.example", 10, "mx.x.example.").host("mx.x.example", HERE);
    let ours = resources::snapshot_from_yaml(&format!(
        "apiVersion: posthouse.dev/v1alpha1\nkind: MailPlatform\nmetadata: {{ name: main }}\n\
         spec: {{ hostname: mx1.example.org, postmaster: p@example.org }}\n---\n\
         apiVersion: posthouse.dev/v1alpha1\nkind: MailListener\nmetadata: {{ name: mx }}\n\
         spec: {{ protocol: smtp, address: 127.0.0.1, port: {port} }}\n"
    ))
    .unwrap();
    let bench = Bench::with(vec![mx(port, &[])], |snapshot| {
        snapshot.platform.dns_servers = vec![dns.address()];
        snapshot.listeners = ours.listeners;
    });
    let found = bench.attempt(delivery("out", &["a@x.example"])).await;
    assert!(found[0].starts_with("1 failed 5.4.6"), "{found:?}");
    assert_eq!(peer.connections(), 0);
}

#[tokio::test]
async fn recipients_of_several_domains_go_their_own_ways() {
    let (one, dns) = (Peer::start(|_, line| well_behaved(line)).await, FakeDns::start());
    dns.host("x.example", HERE);
    let bench = bench(&dns, mx(one.address.port(), &[]));
    let mut found = bench.attempt(delivery("out", &["a@x.example", "b@y.example", "c@x.example"])).await;
    found.sort();
    assert_eq!(
        found,
        [
            "1 relayed 2.0.0 250 2.0.0 taken",
            "2 failed 5.1.2 domain y.example does not exist",
            "3 relayed 2.0.0 250 2.0.0 taken"
        ]
    );
    assert_eq!(one.heard_beginning("text:"), 1);
}

#[tokio::test]
async fn the_dns_servers_and_the_cache_follow_the_snapshot() {
    let (first, second) = (FakeDns::start(), FakeDns::start());
    first.mx("x.example", 0, ".");
    second.mx("x.example", 0, ".");
    let bench = bench(&first, mx(25, &[]));
    for expected in [1, 2] {
        bench.attempt(delivery("out", &["a@x.example"])).await;
        assert_eq!(first.queries("x.example"), expected, "the cache is off");
    }
    let mut next = testing::snapshot();
    next.platform.dns_servers = vec![second.address()];
    next.platform.dns_cache = true;
    next.transports = by_name(vec![mx(25, &[])]);
    bench.node.snapshots().replace(next);
    for _ in 0..3 {
        bench.attempt(delivery("out", &["a@x.example"])).await;
    }
    assert_eq!((first.queries("x.example"), second.queries("x.example")), (2, 1));
}

#[tokio::test]
async fn a_busy_mail_host_sends_us_to_its_equal() {
    let busy = Peer::start(|_, _| say("421 busy")).await;
    let dns = FakeDns::start();
    dns.mx("x.example", 10, "a.x.example.").mx("x.example", 10, "b.x.example.");
    dns.host("a.x.example", HERE).host("b.x.example", HERE);
    let bench = bench(&dns, mx(busy.address.port(), &[]));
    let settlement = bench.settle(delivery("out", &["a@x.example"])).await;
    assert_eq!(words(&settlement), ["1 deferred 4.3.2 421 4.3.2 busy"]);
    assert_eq!(busy.connections(), 2);
    assert!(settlement.pause.is_some());
}
