//! hostile-input S14: what tries to find an open relay.

use super::*;

const PROBES: [&str; 11] = [
    "user%remote.example@example.org",
    "\"user@remote.example\"@example.org",
    "remote.example!user@example.org",
    "user%remote.example@example.net",
    "user%remote.example@EXAMPLE.ORG",
    "user@[127.0.0.1]",
    "user@[192.0.2.1]",
    "user@[IPv6:::1]",
    "user@remote.example",
    "user@EXAMPLE.ORG.example",
    "user@xn--bcher-kva.example",
];

#[test]
fn open_relay_probes_are_refused_even_where_everything_is_caught() {
    let mut plain = Site::new();
    plain.user(User { aliases: vec![address("user@example.org")], ..user("other@example.org") });
    let mut catching = Site::new();
    let table: &[(&str, &[&str])] =
        &[("*@example.org", &["alice@example.org"]), ("@example.org", &["alice@example.org"]), ("user", &["bob"])];
    catching.table("all", static_table(table));
    let rules = DomainRules {
        catch_all: Some(address("alice@example.org")),
        alias_table: Some("all".into()),
        ..domain_rules("example.org")
    };
    catching.domain(&["example.org", "example.net"], rules);
    for site in [&plain, &catching] {
        for probe in PROBES {
            for client in
                [Client::Ip("192.0.2.9".parse().unwrap()), Client::Ip("127.0.0.1".parse().unwrap()), Client::Unknown]
            {
                let answer = site.says(&Ask { recipient: probe, client, ..Ask::default() });
                assert_eq!(answer, "550 5.7.1", "{probe} from {client:?}");
            }
        }
    }
}

#[test]
fn a_hidden_route_is_not_handed_to_the_next_host_for_strangers() {
    let mut site = Site::new();
    let backup = || is(Test::RecipientDomain(patterns(&["backup.example"])));
    let from = || is(Test::Source(Source::Networks(vec!["10.0.0.0/8".parse().unwrap()].into())));
    site.policy(vec![
        rule("listed", vec![from()], accept()),
        rule("backup", vec![backup()], accept()),
        rule("users", vec![is(Test::Authenticated(None))], accept()),
    ]);
    let probe = "user%victim.example@backup.example";
    let stranger = Ask { recipient: probe, ..Ask::default() };
    assert_eq!(site.says(&stranger), "550 5.7.1");
    assert_eq!(site.says_to("user@backup.example"), "user@backup.example>smart>smart");
    let listed = Ask { client: Client::Ip("10.1.2.3".parse().unwrap()), ..stranger.clone() };
    assert_eq!(site.says(&listed), format!("{probe}>smart>smart"));
    let user = Ask { user: Fact::Known(Some("alice@example.org")), ..stranger };
    assert_eq!(site.says(&user), format!("{probe}>smart>smart"));
}

#[test]
fn the_network_alone_is_never_a_credential() {
    let site = Site::new();
    let to = |listener, client| Ask { listener, client, recipient: "x@remote.example", ..Ask::default() };
    let loopback = Client::Ip("127.0.0.1".parse().unwrap());
    let mapped = Client::Ip("::ffff:127.0.0.1".parse().unwrap());
    let world = "x@remote.example>mx>remote.example";
    for (ask, expected) in [
        (to("mx", loopback), "550 5.7.1"),
        (to("mx", Client::Unknown), "550 5.7.1"),
        (to("sidecar", Client::Unknown), "550 5.7.1"),
        (to("sidecar", Client::Ip("10.0.0.1".parse().unwrap())), "550 5.7.1"),
        (to("sidecar", loopback), world),
        (to("sidecar", mapped), world),
        (to("mx", Client::Unix), world),
        (to("submission", loopback), "530 5.7.0"),
        (to("gone", loopback), "451 4.3.5"),
        (submitted("alice@example.org", Some("alice@example.org"), "x@remote.example"), world),
    ] {
        assert_eq!(site.says(&ask), expected, "{} {:?}", ask.listener, ask.client);
    }
}
