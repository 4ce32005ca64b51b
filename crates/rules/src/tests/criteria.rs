use super::*;

const YES: &str = "alice@example.org>smart>smart";
const NO: &str = "550 5.7.1";

/// What is tried, the test, the question, whether it holds.
type Case<'a> = (&'a str, Box<dyn Fn() -> Test>, Ask<'a>, bool);

/// Asks a policy of one rule that accepts where the criteria hold.
fn holds(site: &mut Site, criterion: Criterion, ask: &Ask) -> String {
    site.policy(vec![rule("one", vec![criterion], accept())]);
    site.says(ask)
}

fn site() -> Site {
    let mut site = Site::new();
    site.table("people", static_table(&[("carl@remote.example", &[]), ("*@wild.example", &[])]));
    site.table("domains", static_table(&[("remote.example", &[]), ("example.org", &[])]));
    site.table("at", static_table(&[("@remote.example", &[])]));
    site.table("null", static_table(&[("", &[])]));
    site.table("nets", static_table(&[("192.0.2.0/24", &[]), ("2001:db8::/32", &[])]));
    site.table("words", static_table(&[("from-mx", &[]), ("mx", &[]), ("mail.remote.example", &[])]));
    site
}

#[test]
fn each_criterion_compares_by_value_wildcard_or_table_and_can_be_turned_round() {
    let ip = |text: &str| Ask { client: Client::Ip(text.parse().unwrap()), ..Ask::default() };
    let from = |sender| Ask { sender, ..Ask::default() };
    let to = |recipient| Ask { recipient, ..Ask::default() };
    let auth = |user| Ask { user: Fact::Known(user), ..Ask::default() };
    let nets = || Source::Networks(vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()].into());
    let cases: Vec<Case> = vec![
        ("tag of the listener", Box::new(|| Test::Tagged(patterns(&["from-mx"]))), Ask::default(), true),
        (
            "tag of the session",
            Box::new(|| Test::Tagged(patterns(&["from-scan"]))),
            Ask { tags: vec!["from-scan".into()], ..Ask::default() },
            true,
        ),
        ("tag in a table", Box::new(|| Test::Tagged(table("words"))), Ask::default(), true),
        ("no such tag", Box::new(|| Test::Tagged(patterns(&["from-scan", "other*"]))), Ask::default(), false),
        ("listener", Box::new(|| Test::Listener(patterns(&["mx"]))), Ask::default(), true),
        ("listener in a table", Box::new(|| Test::Listener(table("words"))), Ask::default(), true),
        ("other listener", Box::new(|| Test::Listener(patterns(&["sub*"]))), Ask::default(), false),
        ("any source", Box::new(|| Test::Source(Source::Any)), Ask { client: Client::Unknown, ..Ask::default() }, true),
        ("in a network", Box::new(move || Test::Source(nets())), ip("192.0.2.255"), true),
        ("v4 in v6 clothes", Box::new(move || Test::Source(nets())), ip("::ffff:192.0.2.1"), true),
        ("in a v6 network", Box::new(move || Test::Source(nets())), ip("2001:db8::1"), true),
        ("outside", Box::new(move || Test::Source(nets())), ip("198.51.100.1"), false),
        (
            "a Unix peer is in no network",
            Box::new(move || Test::Source(nets())),
            Ask { client: Client::Unix, ..Ask::default() },
            false,
        ),
        ("network of a table", Box::new(|| Test::Source(Source::Table("nets".into()))), ip("192.0.2.1"), true),
        ("not in the table", Box::new(|| Test::Source(Source::Table("nets".into()))), ip("10.0.0.1"), false),
        (
            "Unix peer is local",
            Box::new(|| Test::Source(Source::Local)),
            Ask { client: Client::Unix, ..Ask::default() },
            true,
        ),
        ("loopback is not local", Box::new(|| Test::Source(Source::Local)), ip("127.0.0.1"), false),
        (
            "loopback where the listener says so",
            Box::new(|| Test::Source(Source::Local)),
            Ask { listener: "sidecar", ..ip("::1") },
            true,
        ),
        (
            "not loopback though the listener says so",
            Box::new(|| Test::Source(Source::Local)),
            Ask { listener: "sidecar", ..ip("10.0.0.1") },
            false,
        ),
        ("authenticated", Box::new(|| Test::Authenticated(None)), auth(Some("bob@example.org")), true),
        ("not authenticated", Box::new(|| Test::Authenticated(None)), auth(None), false),
        (
            "that user",
            Box::new(|| Test::Authenticated(Some(patterns(&["bob@example.org"])))),
            auth(Some("bob@example.org")),
            true,
        ),
        (
            "user by domain in a table",
            Box::new(|| Test::Authenticated(Some(table("domains")))),
            auth(Some("bob@example.org")),
            true,
        ),
        (
            "another user",
            Box::new(|| Test::Authenticated(Some(patterns(&["al*"])))),
            auth(Some("bob@example.org")),
            false,
        ),
        ("HELO", Box::new(|| Test::Helo(patterns(&["*.remote.example"]))), Ask::default(), true),
        (
            "HELO in capitals, in a table",
            Box::new(|| Test::Helo(table("words"))),
            Ask { helo: Fact::Known("MAIL.Remote.Example"), ..Ask::default() },
            true,
        ),
        ("other HELO", Box::new(|| Test::Helo(patterns(&["localhost"]))), Ask::default(), false),
        (
            "sender",
            Box::new(|| Test::Sender(patterns(&["carl@remote.example"]))),
            from(Some("Carl@Remote.Example")),
            true,
        ),
        ("sender by wildcard", Box::new(|| Test::Sender(patterns(&["*@*.example"]))), Ask::default(), true),
        ("sender by domain", Box::new(|| Test::Sender(patterns(&["remote.example"]))), Ask::default(), true),
        ("sender by @domain", Box::new(|| Test::Sender(patterns(&["@remote.example"]))), Ask::default(), true),
        (
            "sender without detail",
            Box::new(|| Test::Sender(table("people"))),
            from(Some("carl+x@remote.example")),
            true,
        ),
        ("sender by domain in a table", Box::new(|| Test::Sender(table("domains"))), Ask::default(), true),
        ("sender by @domain in a table", Box::new(|| Test::Sender(table("at"))), Ask::default(), true),
        (
            "sender by wildcard of a table",
            Box::new(|| Test::Sender(table("people"))),
            from(Some("x@wild.example")),
            true,
        ),
        (
            "a subdomain is another domain",
            Box::new(|| Test::Sender(table("domains"))),
            from(Some("carl@a.remote.example")),
            false,
        ),
        ("null sender", Box::new(|| Test::Sender(patterns(&[""]))), from(None), true),
        ("null sender in a table", Box::new(|| Test::Sender(table("null"))), from(None), true),
        ("a sender is not null", Box::new(|| Test::Sender(patterns(&[""]))), Ask::default(), false),
        ("null sender is in no domain", Box::new(|| Test::Sender(patterns(&["*@*", "@"]))), from(None), false),
        ("recipient", Box::new(|| Test::Recipient(patterns(&["alice@example.org"]))), to("alice@example.org"), true),
        ("recipient by table", Box::new(|| Test::Recipient(table("domains"))), Ask::default(), true),
        ("other recipient", Box::new(|| Test::Recipient(patterns(&["bob@*"]))), Ask::default(), false),
        (
            "a quoted @ makes no other domain",
            Box::new(|| Test::Sender(patterns(&["*@evil.example", "alice"]))),
            from(Some("\"x@evil.example\"@remote.example")),
            false,
        ),
        ("recipient domain", Box::new(|| Test::RecipientDomain(patterns(&["example.*"]))), Ask::default(), true),
        ("recipient domain in a table", Box::new(|| Test::RecipientDomain(table("domains"))), Ask::default(), true),
        (
            "other recipient domain",
            Box::new(|| Test::RecipientDomain(patterns(&["remote.example"]))),
            Ask::default(),
            false,
        ),
        ("recipient domain of ours", Box::new(|| Test::RecipientDomainIsOurs), Ask::default(), true),
    ];
    let mut site = site();
    for (name, test, ask, expected) in cases {
        let (plain, negated) = if expected { (YES, NO) } else { (NO, YES) };
        assert_eq!(holds(&mut site, is(test()), &ask), plain, "{name}");
        assert_eq!(holds(&mut site, not(test()), &ask), negated, "not {name}");
    }
}

#[test]
fn the_first_rule_that_matches_wins_and_nothing_matches_refuses() {
    let mut site = site();
    site.policy(vec![]);
    assert_eq!(site.says_to("alice@example.org"), NO);
    let reply = |code, text: &str| Reply::new(code, text[..5].parse().ok(), &text[6..]);
    site.policy(vec![
        rule(
            "needs both",
            vec![is(Test::Source(Source::Any)), is(Test::Sender(patterns(&["nobody@x.example"])))],
            accept(),
        ),
        rule("own text", vec![is(Test::Sender(patterns(&["bad@*"])))], Action::Reject(reply(554, "5.7.9 go away"))),
        rule("later", vec![is(Test::Sender(patterns(&["slow@*"])))], Action::Defer(reply(450, "4.7.1 come back"))),
        rule("tag", vec![is(Test::Sender(patterns(&["carl@*"])))], Action::Tag("seen".into())),
        rule("tagged", vec![is(Test::Tagged(patterns(&["seen"])))], accept()),
        rule("never reached", vec![], reject()),
    ]);
    let says = |sender| site.answer(&Ask { sender: Some(sender), ..Ask::default() }).unwrap();
    assert_eq!(says("bad@x.example"), Answer::Refuse(reply(554, "5.7.9 go away")));
    assert_eq!(says("slow@x.example"), Answer::Refuse(reply(450, "4.7.1 come back")));
    let Answer::Accept(accepted) = says("carl@remote.example") else { panic!() };
    assert_eq!((accepted.rule.as_str(), accepted.tags), ("tagged", vec!["from-mx".to_owned(), "seen".to_owned()]));
    assert_eq!(says("other@x.example"), Answer::Refuse(Reply::enhanced(550, 5, 7, 1, "rejected by rule")));
}

#[test]
fn a_rewritten_sender_is_what_later_rules_and_the_envelope_see() {
    let mut site = site();
    for (to, sees) in [(Some("list@example.org"), "list@example.org"), (None, "")] {
        site.policy(vec![
            rule("rewrite", vec![], Action::RewriteSender(to.map(address))),
            rule("sees it", vec![is(Test::Sender(patterns(&[sees])))], accept()),
        ]);
        let Ok(Answer::Accept(accepted)) = site.answer(&Ask::default()) else { panic!() };
        assert_eq!(accepted.destinations[0].sender, Some(to.map(address)));
    }
    site.policy(default_rules());
    let Ok(Answer::Accept(accepted)) = site.answer(&Ask::default()) else { panic!() };
    assert_eq!(accepted.destinations[0].sender, None);
}

#[test]
fn an_unknown_client_address_matches_nothing_and_fails_open_nowhere() {
    let unknown = Ask { client: Client::Unknown, listener: "sidecar", ..Ask::default() };
    let sources: Vec<fn() -> Test> = vec![
        || Test::Source(Source::Local),
        || Test::Source(Source::Networks(vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()].into())),
        || Test::Source(Source::Table("nets".into())),
    ];
    let mut site = site();
    for source in sources {
        let cases: Vec<(&str, Vec<Rule>, &str)> = vec![
            ("accept in", vec![rule("r", vec![is(source())], accept())], NO),
            ("accept not in", vec![rule("r", vec![not(source())], accept())], NO),
            ("reject not in", vec![rule("r", vec![not(source())], reject()), rule("all", vec![], accept())], NO),
            // The criterion is off: a list of bad networks cannot be applied.
            ("reject in", vec![rule("r", vec![is(source())], reject()), rule("all", vec![], accept())], YES),
            (
                "a tag that leads to a refusal",
                vec![
                    rule("t", vec![not(source())], Action::Tag("stranger".into())),
                    rule("r", vec![is(Test::Tagged(patterns(&["stranger"])))], reject()),
                    rule("all", vec![], accept()),
                ],
                NO,
            ),
            (
                "a tag that leads to a welcome",
                vec![
                    rule("t", vec![not(source())], Action::Tag("friend".into())),
                    rule("r", vec![is(Test::Tagged(patterns(&["friend"])))], accept()),
                ],
                NO,
            ),
            (
                "another criterion fails anyhow",
                vec![
                    rule("r", vec![not(source()), is(Test::Authenticated(None))], reject()),
                    rule("all", vec![], accept()),
                ],
                YES,
            ),
        ];
        for (name, rules, expected) in cases {
            site.policy(rules);
            assert_eq!(site.says(&unknown), expected, "{name}: {:?}", source());
        }
    }
}

#[test]
fn what_is_not_known_yet_refuses_only_if_every_way_refuses() {
    let open = Ask { tags_open: true, ..Ask::default() };
    let spam = || Test::Tagged(patterns(&["spam"]));
    let defer = || Action::Defer(Reply::enhanced(451, 4, 7, 1, "later"));
    let cases: Vec<(&str, Vec<Rule>, &str, bool)> = vec![
        ("reject if, else accept", vec![rule("r", vec![is(spam())], reject()), rule("a", vec![], accept())], YES, true),
        ("accept if, else refuse", vec![rule("a", vec![is(spam())], accept())], YES, true),
        ("accept unless, else refuse", vec![rule("a", vec![not(spam())], accept())], YES, true),
        ("reject if, else refuse", vec![rule("r", vec![is(spam())], reject())], NO, false),
        (
            "reject if, else defer",
            vec![rule("r", vec![is(spam())], reject()), rule("d", vec![], defer())],
            "451 4.7.1",
            false,
        ),
        (
            "a known criterion fails anyhow",
            vec![rule("r", vec![is(spam()), is(Test::Authenticated(None))], accept())],
            NO,
            false,
        ),
        (
            "a tag on the way",
            vec![
                rule("t", vec![is(spam())], Action::Tag("bad".into())),
                rule("r", vec![not(Test::Tagged(patterns(&["bad"])))], reject()),
                rule("a", vec![is(Test::Tagged(patterns(&["bad"])))], accept()),
            ],
            YES,
            true,
        ),
        (
            "decided before it matters",
            vec![rule("a", vec![], accept()), rule("r", vec![is(spam())], reject())],
            YES,
            false,
        ),
    ];
    let mut site = site();
    for (name, rules, expected, undecided) in cases {
        site.policy(rules);
        assert_eq!(site.says(&open), expected, "{name}");
        if let Ok(Answer::Accept(accepted)) = site.answer(&open) {
            assert_eq!(accepted.undecided, undecided, "{name}");
        }
    }
    site.policy(vec![rule("a", vec![is(Test::Helo(patterns(&["x"])))], accept())]);
    assert_eq!(site.says(&Ask { helo: Fact::Later, ..Ask::default() }), YES);
    site.policy(vec![rule("a", vec![is(Test::Authenticated(None))], accept())]);
    assert_eq!(site.says(&Ask { user: Fact::Later, ..Ask::default() }), YES);
}

#[test]
fn too_many_undecided_ways_are_deferred_instead_of_followed() {
    let mut site = site();
    let mut rules: Vec<Rule> = (0..40)
        .map(|i| {
            rule(&format!("t{i}"), vec![is(Test::Tagged(patterns(&[&format!("x{i}")])))], Action::Tag(format!("y{i}")))
        })
        .collect();
    rules.push(rule("no", vec![], reject()));
    site.policy(rules);
    assert_eq!(site.says(&Ask { tags_open: true, ..Ask::default() }), "451 4.3.5");
}

#[test]
fn a_table_outside_is_asked_for_key_by_key_and_a_failure_is_451() {
    let mut site = Site::new();
    site.table("outside", sqlite_table());
    site.policy(vec![rule("r", vec![is(Test::Sender(table("outside")))], accept())]);
    let keys = ["carl+x@remote.example", "carl@remote.example", "remote.example", "@remote.example"];
    let ask = Ask { sender: Some("carl+x@remote.example"), ..Ask::default() };
    for key in keys {
        assert_eq!(site.says(&ask), format!("need outside {key}"));
        site.found("outside", key, &[]);
    }
    assert_eq!(site.says(&ask), NO);
    site.found("outside", "remote.example", &[&[("x", "1")]]);
    assert_eq!(site.says(&ask), YES);
    for negated in [false, true] {
        for action in [accept(), reject(), Action::Tag("t".into())] {
            let mut site = Site::new();
            site.table("outside", sqlite_table());
            let test = Test::Sender(table("outside"));
            site.policy(vec![rule("r", vec![Criterion { negated, test }], action), rule("all", vec![], accept())]);
            site.lookups.insert(Need { table: "outside".into(), key: "carl@remote.example".into() }, Lookup::Failed);
            assert_eq!(site.says(&Ask::default()), "451 4.3.0");
        }
    }
    site.policy(vec![rule("r", vec![not(Test::Sender(table("gone")))], accept())]);
    assert_eq!(site.says(&Ask::default()), "451 4.3.0", "a table that is not there is no empty table");
}

#[test]
fn the_story_says_of_every_rule_why_it_matched_or_not() {
    let mut site = site();
    site.policy(vec![
        rule("listed", vec![is(Test::Sender(table("null")))], reject()),
        rule("not local", vec![not(Test::Source(Source::Local)), not(Test::Sender(patterns(&["carl@*"])))], reject()),
        rule("tagged", vec![is(Test::Tagged(patterns(&["from-scan"])))], reject()),
        rule("mail for us", vec![is(Test::RecipientDomainIsOurs)], Action::Deliver(Deliver::default())),
        rule("never tried", vec![], reject()),
    ]);
    let (_, story) = site.tell(&Ask { recipient: "info+x@example.net", ..Ask::default() });
    let told: Vec<String> = story.iter().map(|s| format!("{} {}: {}", s.rule, s.matched, s.reason)).collect();
    assert_eq!(
        told,
        [
            "listed false: sender <carl@remote.example> is not in table null",
            "not local false: sender <carl@remote.example> is carl@*",
            "tagged false: tags [from-mx] do not hold from-scan",
            "mail for us true: recipient domain example.net is one of ours",
            "directory true: info+x@example.net is user alice@example.org",
            "answer true: accept: to alice@example.org by transport dovecot, route dovecot",
        ]
    );
}
