//! What documents become.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use resources::snapshot::{
    Auth, ClientTlsMode, Endpoint, Identity, LineEnds, LmtpTarget, Protocol, RelayTo, TlsMode, TlsVersion, Transport,
    TransportKind, Verify,
};
use resources::{Environment, Snapshot, compile, load, snapshot_from_yaml};
use rules::{Action, Criterion, Matcher, Pattern, RouteBy, Source, Table, Test};

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!("---\napiVersion: posthouse.dev/v1alpha1\nkind: {kind}\nmetadata: {{ name: {name} }}\nspec: {spec}\n")
}

fn site(more: &str) -> Snapshot {
    let base = [
        document("MailPlatform", "main", "{ hostname: mx1.example.org, postmaster: p@example.com }"),
        document("MailDomain", "d", "{ domain: example.org, aliases: [example.net], delivery: { transport: mx } }"),
    ];
    let text = format!("{}{more}", base.concat());
    snapshot_from_yaml(&text).unwrap()
}

fn transport(spec: &str) -> Transport {
    let secret =
        "---\napiVersion: v1\nkind: Secret\nmetadata: { name: s }\nstringData: { username: u, password: \"p\\n\" }\n";
    let table = document("MailTable", "hosts", "{ map: { example.com: 'mail.example.com:26' } }");
    let snapshot = site(&format!("{}{secret}{table}", document("MailTransport", "t", spec)));
    Transport::clone(&snapshot.transports["t"])
}

#[test]
fn defaults_are_those_of_the_design() {
    let snapshot = site(&document("MailListener", "mx", "{}"));
    let platform = &snapshot.platform;
    assert_eq!(platform.body_inline_max_bytes, 256 << 10);
    assert_eq!(platform.ingress_memory_max_bytes, 128 << 20);
    assert_eq!(platform.free_space_min_bytes, 256 << 20);
    assert_eq!(platform.event_retention, Duration::from_secs(7 * 86_400));
    assert_eq!(platform.auth_failure_floor, Duration::from_secs(1));
    assert_eq!(platform.drain_max, Duration::from_secs(30));
    assert_eq!((platform.auth_concurrency_max, platform.deliveries_max), (4, 100));
    assert!(platform.dns_cache && platform.sendmail_socket && platform.dovecot_passwd_file.is_none());
    assert_eq!((snapshot.rules.limits.depth_max, snapshot.rules.limits.results_max), (10, 1000));
    assert_eq!(snapshot.rules.relay_transport, "mx");
    let mx = &snapshot.listeners["mx"];
    assert_eq!(mx.protocol, Protocol::Smtp);
    assert_eq!(mx.endpoint, Endpoint::Tcp { addresses: vec!["::".parse().unwrap()], port: 25, v6_only: false });
    assert_eq!((mx.tls.mode, mx.tls.version_min), (TlsMode::Off, TlsVersion::V1_2));
    assert_eq!(mx.auth, Auth { offered: false, required: false, without_tls: false });
    assert_eq!((&mx.identity, mx.line_ends, mx.loopback_is_local), (&Identity::Direct, LineEnds::Refuse, false));
    assert_eq!(mx.hostname.as_str(), "mx1.example.org");
    assert!(mx.received_client);
    assert_eq!(mx.limits, resources::snapshot::Limits::default());
    assert_eq!(snapshot.rules.transports["mx"], RouteBy::Domain);
    let mx = &snapshot.transports["mx"];
    assert_eq!(mx.schedule.delay_first, Duration::from_secs(300));
    assert_eq!(mx.schedule.delay_max, Duration::from_secs(4 * 3600));
    assert_eq!(mx.schedule.age_max, Duration::from_secs(5 * 86_400));
    assert_eq!(mx.schedule.warn_after, Some(Duration::from_secs(4 * 3600)));
}

#[test]
fn a_listener_is_what_its_document_says() {
    let spec = "{ protocol: submission, addresses: [127.0.0.1, '::1'], tls: { mode: implicit, selfSigned: true, minVersion: '1.3' },
        clientIdentity: { mode: proxyProtocol, trusted: [10.1.2.3/8, 192.0.2.1] }, loopbackIsLocal: true, hostname: in.example.org,
        tags: [Trusted], lineEnds: normalise, receivedClient: false, limits: { messageMax: 1Mi, proxyTimeout: 250ms } }";
    let snapshot = site(&document("MailListener", "in", spec));
    let listener = &snapshot.listeners["in"];
    let addresses = vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    assert_eq!(listener.endpoint, Endpoint::Tcp { addresses, port: 465, v6_only: false });
    assert_eq!((listener.tls.mode, listener.tls.version_min), (TlsMode::Implicit, TlsVersion::V1_3));
    assert_eq!(listener.auth, Auth { offered: true, required: true, without_tls: false });
    let networks = ["10.0.0.0/8", "192.0.2.1/32"].map(|network| network.parse().unwrap());
    assert_eq!(listener.identity, Identity::Proxy(networks.to_vec()));
    assert_eq!((listener.line_ends, listener.received_client), (LineEnds::Normalise, false));
    assert_eq!((listener.hostname.as_str(), listener.tags[0].as_str()), ("in.example.org", "trusted"));
    assert_eq!(listener.limits.message_max_bytes, 1 << 20);
    assert_eq!(listener.limits.proxy_timeout, Duration::from_millis(250));
    assert_eq!(listener.limits.sessions_max, 10_000);
    let rules = &snapshot.rules.listeners["in"];
    assert!(rules.auth_required && rules.hold_to_own_addresses && rules.loopback_is_local);
    assert_eq!(rules.policy.name, "default");

    let socket = site(&document("MailListener", "l", "{ protocol: lmtp, socket: lmtp.sock }"));
    assert_eq!(socket.listeners["l"].endpoint, Endpoint::Unix("lmtp.sock".into()));
}

#[test]
fn the_built_in_policy_delivers_ours_and_relays_for_those_who_may() {
    let snapshot = site(&document("MailListener", "mx", "{}"));
    let policy = &snapshot.rules.listeners["mx"].policy;
    let [ours, users, local] = policy.rules() else { panic!("{policy:?}") };
    assert!(matches!(ours.criteria[..], [Criterion { negated: false, test: Test::RecipientDomainIsOurs }]));
    assert!(matches!(&ours.action, Action::Deliver(deliver) if deliver.transport.is_none()));
    assert!(matches!(users.criteria[..], [Criterion { negated: false, test: Test::Authenticated(None) }]));
    assert!(matches!(local.criteria[..], [Criterion { negated: false, test: Test::Source(Source::Local) }]));
    assert!(matches!((&users.action, &local.action), (Action::Relay { transport: None }, Action::Relay { .. })));
}

#[test]
fn includes_are_flattened_where_they_stand() {
    let outer = "{ rules: [{ name: first, action: { tag: a } }, { include: inner }, { include: default }] }";
    let inner = "{ rules: [{ action: { defer: { code: 451, text: 4.3.0 wait } } }, { include: default }] }";
    let listeners = document("MailListener", "a", "{ policyRef: outer }")
        + &document("MailListener", "b", "{ port: 26, policyRef: default }");
    let policies = document("MailPolicy", "outer", outer) + &document("MailPolicy", "inner", inner);
    let snapshot = site(&(listeners + &policies));
    let names: Vec<&str> =
        snapshot.rules.listeners["a"].policy.rules().iter().map(|rule| rule.name.split(':').next().unwrap()).collect();
    let default = ["default"; 3];
    assert_eq!(names, [&["first", "inner/1"][..], &default, &default].concat());
    assert_eq!(snapshot.rules.listeners["b"].policy.name, "default");
    let Action::Defer(reply) = &snapshot.rules.listeners["a"].policy.rules()[1].action else { panic!() };
    assert_eq!(reply.to_string(), "451 4.3.0 wait");
}

#[test]
fn criteria_are_values_lists_wildcards_and_tables_each_negatable() {
    let table = document("MailTable", "t", "{ list: [x] }") + &document("MailListener", "l", "{ policyRef: p }");
    let criterion = |text: &str| {
        let rules = format!("{{ rules: [{{ match: {text}, action: {{ accept: {{}} }} }}] }}");
        let snapshot = site(&(table.clone() + &document("MailPolicy", "p", &rules)));
        format!("{:?}", snapshot.rules.listeners["l"].policy.rules()[0].criteria)
    };
    let expected = |negated, test| format!("{:?}", [Criterion { negated, test }]);
    let exact = |text: &str| Pattern::Exact(text.to_owned());
    let one = |text: &str| Matcher::Patterns(vec![exact(text)].into());
    let wild = |text: &str| Matcher::Patterns(vec![Pattern::Wildcard(text.to_owned())].into());
    for (text, negated, test) in [
        ("{ tagged: Scan }", false, Test::Tagged(one("scan"))),
        ("{ listener: l }", false, Test::Listener(one("l"))),
        ("{ source: any }", false, Test::Source(Source::Any)),
        ("{ source: local }", false, Test::Source(Source::Local)),
        ("{ source: 10.1.1.1/8 }", false, Test::Source(Source::Networks(vec!["10.0.0.0/8".parse().unwrap()].into()))),
        ("{ source: { table: t } }", false, Test::Source(Source::Table("t".into()))),
        ("{ authenticated: true }", false, Test::Authenticated(None)),
        ("{ authenticated: any }", false, Test::Authenticated(None)),
        ("{ authenticated: false }", true, Test::Authenticated(None)),
        ("{ not: { authenticated: true } }", true, Test::Authenticated(None)),
        ("{ not: { authenticated: false } }", false, Test::Authenticated(None)),
        ("{ authenticated: Bob@example.org }", false, Test::Authenticated(Some(one("bob@example.org")))),
        ("{ helo: '*.Example.org' }", false, Test::Helo(wild("*.example.org"))),
        ("{ sender: <> }", false, Test::Sender(one(""))),
        ("{ sender: '@bücher.example' }", false, Test::Sender(one("@xn--bcher-kva.example"))),
        (
            "{ sender: [a@b.example, '*@c.example'] }",
            false,
            Test::Sender(Matcher::Patterns(vec![exact("a@b.example"), Pattern::Wildcard("*@c.example".into())].into())),
        ),
        ("{ not: { recipient: { table: t } } }", true, Test::Recipient(Matcher::Table("t".into()))),
        ("{ recipientDomain: Example.COM }", false, Test::RecipientDomain(one("example.com"))),
        ("{ recipientDomainIsOurs: true }", false, Test::RecipientDomainIsOurs),
        ("{ recipientDomainIsOurs: false }", true, Test::RecipientDomainIsOurs),
        ("{ not: { recipientDomainIsOurs: true } }", true, Test::RecipientDomainIsOurs),
    ] {
        assert_eq!(criterion(text), expected(negated, test), "{text}");
    }
}

#[test]
fn actions_become_what_they_say() {
    let map = document("MailTable", "t", "{ map: { root: alice@example.org } }")
        + &document("MailListener", "l", "{ policyRef: p }");
    for (text, expected) in [
        ("{ accept: {} }", "Deliver(Deliver { transport: None, virtual_table: None, alias_table: None })"),
        (
            "{ deliver: { transport: mx, virtual: { table: t }, aliases: { table: t } } }",
            r#"Deliver(Deliver { transport: Some("mx"), virtual_table: Some("t"), alias_table: Some("t") })"#,
        ),
        ("{ relay: { transport: mx } }", r#"Relay { transport: Some("mx") }"#),
        ("{ tag: Seen }", r#"Tag("seen")"#),
        ("{ rewriteSender: <> }", "RewriteSender(None)"),
        ("{ aliases: { table: t } }", r#"Aliases { table: "t" }"#),
    ] {
        let policy = document("MailPolicy", "p", &format!("{{ rules: [{{ action: {text} }}] }}"));
        let snapshot = site(&format!("{map}{policy}"));
        assert_eq!(format!("{:?}", snapshot.rules.listeners["l"].policy.rules()[0].action), expected, "{text}");
    }
    for (text, expected) in [
        ("{ reject: {} }", "550 5.7.1 not accepted here"),
        ("{ reject: { code: 554, text: go away } }", "554 5.7.1 go away"),
        ("{ reject: { text: 5.1.1 who } }", "550 5.1.1 who"),
        ("{ defer: {} }", "450 4.7.1 try again later"),
    ] {
        let policy = document("MailPolicy", "p", &format!("{{ rules: [{{ action: {text} }}] }}"));
        let snapshot = site(&format!("{map}{policy}"));
        let (Action::Reject(reply) | Action::Defer(reply)) = &snapshot.rules.listeners["l"].policy.rules()[0].action
        else {
            panic!("{text}")
        };
        assert_eq!(reply.to_string(), expected, "{text}");
    }
}

#[test]
fn users_are_known_below_the_primary_name_of_their_domain() {
    let spec = "{ address: Alice@example.net, aliases: [info@example.org], sendAs: ['*@example.org', Boss@Example.com],
        forwards: [a@example.com], keepCopy: true, quota: 1Gi, disabled: true, transport: mx }";
    let snapshot = site(&document("MailUser", "alice", spec));
    let mut keys: Vec<&str> = snapshot.rules.users.keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["alice@example.org", "info@example.org"]);
    let user = &snapshot.rules.users["alice@example.org"];
    assert_eq!(user.address.to_string(), "Alice@example.org");
    assert_eq!(user.send_as, [Pattern::Wildcard("*@example.org".into()), Pattern::Exact("boss@example.com".into())]);
    assert!(user.keep_copy && user.disabled && user.password.is_none());
    assert_eq!((user.quota_bytes, user.transport.as_deref()), (Some(1 << 30), Some("mx")));
    assert_eq!(snapshot.rules.domains.len(), 2);
}

#[test]
fn transports_have_sensible_defaults() {
    let relay = |spec: &str| match transport(&format!("{{ relay: {spec} }}")).kind {
        TransportKind::Relay(relay) => relay,
        other => panic!("{other:?}"),
    };
    let smarthost = relay("{ hosts: [a.example, 'b.example:26'], authSecretRef: { name: s } }");
    let RelayTo::Hosts(hosts) = &smarthost.to else { panic!() };
    let hosts: Vec<_> = hosts.iter().map(|host| (host.host.as_str(), host.port)).collect();
    assert_eq!(hosts, [("a.example", 587), ("b.example", 26)]);
    assert_eq!((smarthost.tls.mode, smarthost.tls.verify), (ClientTlsMode::Required, Verify::Full));
    let auth = smarthost.auth.unwrap();
    assert_eq!((auth.user.as_str(), auth.password.reveal()), ("u", "p"));

    let open = relay("{ hosts: [a.example] }");
    assert_eq!((open.tls.mode, open.tls.verify), (ClientTlsMode::Opportunistic, Verify::None));
    assert!(matches!(&open.to, RelayTo::Hosts(hosts) if hosts[0].port == 25));
    let implicit = relay("{ hosts: [a.example], tls: { mode: implicit } }");
    assert!(matches!(&implicit.to, RelayTo::Hosts(hosts) if hosts[0].port == 465));
    let mx = relay("{ mx: { port: 2525, refuse: [192.0.2.0/24] } }");
    assert!(matches!(&mx.to, RelayTo::Mx { port: 2525, refuse } if refuse.len() == 1));
    let table = relay("{ hostTable: hosts }");
    assert!(
        matches!(&table.to, RelayTo::HostTable { table, mx_port: 25, refuse } if table == "hosts" && refuse.len() == 17)
    );

    let lmtp = transport("{ lmtp: { address: dovecot }, limits: { recipientsMax: 7 }, retry: { warnAfter: 0s } }");
    assert!(matches!(&lmtp.kind, TransportKind::Lmtp { target: LmtpTarget::Tcp(host, 24), tls }
        if host == "dovecot" && tls.mode == ClientTlsMode::Off));
    assert_eq!((lmtp.recipients_max, lmtp.route_concurrency_max, lmtp.schedule.warn_after), (7, 10, None));
    let mbox = transport("{ mbox: { path: m/%u } }");
    assert_eq!((mbox.recipients_max, mbox.route_concurrency_max), (1, 1));
    let program = transport("{ program: { argv: [/bin/cat, '%u'], variables: { A: b } } }");
    assert!(matches!(&program.kind, TransportKind::Program(program)
        if program.timeout == Duration::from_secs(300) && program.output_max_bytes == 4096));
}

#[test]
fn root_may_write_as_another_user() {
    let text = document("MailPlatform", "main", "{ hostname: mx1.example.org, postmaster: p@example.com }")
        + &document("MailTransport", "t", "{ maildir: { path: /var/mail/%u, asUser: vmail } }");
    let (objects, faults) = load(&[(PathBuf::from("a.yaml"), text)]);
    assert_eq!(faults, []);
    for (is_root, expected) in [(true, 0), (false, 1)] {
        let environment = Environment { is_root, state_dir: "/state".into(), working_dir: "/".into() };
        let (_, faults) = compile(objects.clone(), &environment, &|_: &Path| Err("no".to_owned()));
        assert_eq!(faults.len(), expected, "{faults:?}");
    }
}

#[test]
fn tables_come_from_files_secrets_and_config_maps() {
    let text = document("MailPlatform", "main", "{ hostname: mx1.example.org, postmaster: p@example.com }")
        + &document("MailTable", "file", "{ file: { path: lists/a } }")
        + &document("MailTable", "map", "{ configMapRef: { name: c, key: a.txt } }")
        + &document("MailTable", "secret", "{ secretRef: { name: s, key: a } }")
        + &document("MailTable", "query", "{ sqlite: { path: u.sqlite, query: \"SELECT a FROM b WHERE c = '%u';\" } }")
        + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: { name: c }\ndata:\n  a.txt: |\n    Root: alice, bob\n    192.0.2.0/24\n    '*.example.org'\n"
        + "---\napiVersion: v1\nkind: Secret\nmetadata: { name: s }\ndata: { a: \"YSBiCg==\" }\n";
    let (objects, faults) = load(&[(PathBuf::from("site/a.yaml"), text.replace("'*.example.org'", "*.example.org"))]);
    assert_eq!(faults, []);
    let environment = Environment { is_root: false, state_dir: "/state".into(), working_dir: PathBuf::from("/srv") };
    let read = |content: &'static str| {
        move |path: &Path| {
            assert_eq!(path, Path::new("/srv/site/lists/a"));
            Ok(content.as_bytes().to_vec())
        }
    };
    let (snapshot, faults) = compile(objects.clone(), &environment, &read("x y\n"));
    assert_eq!(faults, []);
    let snapshot = snapshot.unwrap();
    let rows = |name: &str| match &*snapshot.rules.tables[name] {
        Table::Static(rows) => rows,
        other => panic!("{other:?}"),
    };
    assert_eq!(rows("file").exact["x"], ["y"]);
    assert_eq!(rows("map").exact["root"], ["alice", "bob"]);
    assert_eq!(rows("map").networks().iter().count(), 1);
    assert_eq!(rows("map").wildcards()[0].0, Pattern::Wildcard("*.example.org".into()));
    assert_eq!(rows("secret").exact["a"], ["b"]);
    let Table::Sqlite(query) = &*snapshot.rules.tables["query"] else { panic!() };
    assert_eq!(
        (query.path.as_path(), query.query.as_str()),
        (Path::new("/srv/site/u.sqlite"), "SELECT a FROM b WHERE c = '%u'")
    );
    // A file that changes makes another version, as a document does.
    let (other, _) = compile(objects, &environment, &read("x z\n"));
    assert_ne!(other.unwrap().version, snapshot.version);
}
