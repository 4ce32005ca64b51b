use super::*;

fn virtual_rule(transport: Option<&str>) -> Rule {
    let deliver =
        Deliver { transport: transport.map(str::to_owned), virtual_table: Some("vusers".into()), alias_table: None };
    let domains = patterns(&["virtual.example", "example.org", "example.net"]);
    rule("virtual", vec![is(Test::RecipientDomain(domains))], Action::Deliver(deliver))
}

#[test]
fn forwards_replace_the_mailbox_or_copy_and_equal_results_are_delivered_once() {
    let mut site = Site::new();
    site.user(forward("away@example.org", &["away@remote.example"]));
    site.user(User { keep_copy: true, ..forward("copy@example.org", &["copy@remote.example"]) });
    site.user(forward("self@example.org", &["self@example.net", "x@remote.example"]));
    site.user(forward(
        "team@example.org",
        &["alice@example.org", "info@example.org", "bob@example.org", "Bob@Example.Org"],
    ));
    site.user(forward("chain@example.org", &["team@example.org", "alice@example.org"]));
    site.user(User { keep_copy: true, ..forward("left@example.org", &["right@example.org"]) });
    site.user(User { keep_copy: true, ..forward("right@example.org", &["left@example.org"]) });
    site.user(forward("partly@example.org", &["nobody@example.org", "alice@example.org"]));
    site.user(forward("dead@example.org", &["nobody@example.org"]));
    let (alice, bob) = ("alice@example.org>dovecot>dovecot", "bob@example.org>dovecot>dovecot");
    let cases = [
        ("away@example.org", "away@remote.example>mx>remote.example".to_owned()),
        ("copy@example.org", "copy@example.org>dovecot>dovecot copy@remote.example>mx>remote.example".to_owned()),
        ("self@example.org", "self@example.org>dovecot>dovecot x@remote.example>mx>remote.example".to_owned()),
        ("team@example.org", format!("{alice} {bob}")),
        ("chain@example.org", format!("{alice} {bob}")),
        ("left@example.org", "left@example.org>dovecot>dovecot right@example.org>dovecot>dovecot".to_owned()),
        ("partly@example.org", alice.to_owned()),
        ("dead@example.org", "550 5.1.1".to_owned()),
    ];
    for (recipient, expected) in cases {
        assert_eq!(site.says_to(recipient), expected, "{recipient}");
    }
    let Ok(Answer::Accept(accepted)) = site.answer(&Ask { recipient: "partly@example.org", ..Ask::default() }) else {
        panic!()
    };
    assert_eq!(accepted.dropped.len(), 1, "a member that takes no mail is told of");
}

#[test]
fn loops_depth_and_fan_out_end_in_554_5_4_6() {
    let mut site = Site::new();
    site.user(forward("a@example.org", &["b@example.net"]));
    site.user(User { aliases: vec![address("bee@example.org")], ..forward("b@example.org", &["c@example.org"]) });
    site.user(forward("c@example.org", &["bee@example.org"]));
    for i in 0..12 {
        site.user(forward(&format!("deep{i}@example.org"), &[&format!("deep{}@example.org", i + 1)]));
    }
    site.user(user("deep12@example.org"));
    let wide: Vec<String> = (0..1001).map(|i| format!("u{i}@remote.example")).collect();
    let wide: Vec<&str> = wide.iter().map(String::as_str).collect();
    site.user(forward("wide@example.org", &wide));
    site.user(forward("fits@example.org", &wide[1..]));
    site.user(forward("sum@example.org", &["fits@example.org", "one.more@remote.example"]));
    for recipient in [
        "a@example.org",
        "bee@example.org",
        "c@example.org",
        "deep0@example.org",
        "deep1@example.org",
        "wide@example.org",
        "sum@example.org",
    ] {
        assert_eq!(site.says_to(recipient), "554 5.4.6", "{recipient}");
    }
    // deep2 is replaced ten times.
    assert_eq!(site.says_to("deep2@example.org"), "deep12@example.org>dovecot>dovecot");
    let Ok(Answer::Accept(accepted)) = site.answer(&Ask { recipient: "fits@example.org", ..Ask::default() }) else {
        panic!()
    };
    assert_eq!(accepted.destinations.len(), 1000);
}

#[test]
fn lists_of_lists_of_the_same_people_are_walked_once() {
    let mut site = Site::new();
    for level in 0..9 {
        let next: Vec<String> = (0..10).map(|i| format!("l{}x{i}@example.org", level + 1)).collect();
        let next: Vec<&str> = next.iter().map(String::as_str).collect();
        for i in 0..10 {
            site.user(forward(&format!("l{level}x{i}@example.org"), &next));
        }
    }
    for i in 0..10 {
        site.user(user(&format!("l9x{i}@example.org")));
    }
    let Ok(Answer::Accept(accepted)) = site.answer(&Ask { recipient: "l0x0@example.org", ..Ask::default() }) else {
        panic!()
    };
    assert_eq!(accepted.destinations.len(), 10, "ten to the ninth ways");
}

#[test]
fn alias_tables_come_before_users() {
    let mut site = Site::new();
    let own: &[(&str, &[&str])] = &[
        ("root", &["alice"]),
        ("sales@example.org", &["alice@example.org, bob@example.org"]),
        ("bob@example.org", &["bob@example.org", "archive@remote.example"]),
        ("ping@example.org", &["pong@example.org"]),
        ("pong@example.org", &["ping@example.org"]),
        ("*-list@example.org", &["bob@example.org"]),
        ("faulty", &["two words"]),
        ("shell", &["|/bin/sh"]),
    ];
    site.table("aliases", static_table(own));
    site.domain(
        &["example.org", "example.net"],
        DomainRules { alias_table: Some("aliases".into()), ..domain_rules("example.org") },
    );
    let (alice, bob) = ("alice@example.org>dovecot>dovecot", "bob@example.org>dovecot>dovecot");
    let archive = "archive@remote.example>mx>remote.example";
    let cases = [
        ("root@example.org", alice.to_owned()),
        ("root+x@example.net", alice.to_owned()),
        ("sales@example.net", format!("{alice} {archive} {bob}")),
        ("bob@example.org", format!("{archive} {bob}")),
        ("dev-list@example.org", format!("{archive} {bob}")),
        ("ping@example.org", "554 5.4.6".to_owned()),
        ("faulty@example.org", "451 4.3.0".to_owned()),
        ("shell@example.org", "550 5.1.1".to_owned()),
        ("alice@example.org", alice.to_owned()),
        ("nobody@example.org", "550 5.1.1".to_owned()),
    ];
    for (recipient, expected) in &cases {
        let mut found: Vec<String> = site.says_to(recipient).split(' ').map(str::to_owned).collect();
        let mut expected: Vec<String> = expected.split(' ').map(str::to_owned).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{recipient}");
    }
    // The same table named by the rule instead of by the domain.
    site.domain(&["example.org", "example.net"], domain_rules("example.org"));
    let deliver =
        Deliver { alias_table: Some("aliases".into()), transport: Some("maildir".into()), virtual_table: None };
    site.policy(vec![rule("r", vec![is(Test::RecipientDomainIsOurs)], Action::Deliver(deliver))]);
    assert_eq!(site.says_to("root@example.org"), "alice@example.org>maildir>maildir");
}

#[test]
fn a_virtual_map_says_who_there_is() {
    let mut site = Site::new();
    let map: &[(&str, &[&str])] = &[
        ("mia@virtual.example", &["mia@virtual.example"]),
        ("info@virtual.example", &["mia@virtual.example"]),
        ("box@virtual.example", &["store@virtual.example"]),
        ("both@virtual.example", &["mia@virtual.example", "alice@example.org", "x@remote.example"]),
        ("@wild.example", &["mia@virtual.example"]),
        ("a@virtual.example", &["b@virtual.example"]),
        ("b@virtual.example", &["a@virtual.example"]),
        ("info@example.org", &["bob@example.org"]),
    ];
    site.table("vusers", static_table(map));
    site.policy(vec![virtual_rule(Some("maildir"))]);
    let mia = "mia@virtual.example>maildir>maildir";
    let cases = [
        ("mia@virtual.example", mia.to_owned()),
        ("Mia+x@virtual.example", mia.to_owned()),
        ("info@virtual.example", mia.to_owned()),
        ("box@virtual.example", "store@virtual.example>maildir>maildir".to_owned()),
        ("both@virtual.example", format!("alice@example.org>dovecot>dovecot {mia} x@remote.example>mx>remote.example")),
        ("store@virtual.example", "550 5.1.1".to_owned()),
        ("nobody@virtual.example", "550 5.1.1".to_owned()),
        ("a@virtual.example", "554 5.4.6".to_owned()),
        ("info@example.net", "bob@example.org>maildir>maildir".to_owned()),
        ("alice@example.org", "550 5.1.1".to_owned()),
    ];
    for (recipient, expected) in &cases {
        assert_eq!(site.says_to(recipient), *expected, "{recipient}");
    }
    // Without a transport of its own, a domain that is not ours has none.
    site.policy(vec![virtual_rule(None)]);
    assert_eq!(site.says_to("mia@virtual.example"), "451 4.3.5");
    let wild = Deliver { transport: Some("maildir".into()), virtual_table: Some("vusers".into()), alias_table: None };
    site.policy(vec![rule("wild", vec![], Action::Deliver(wild))]);
    assert_eq!(site.says_to("anybody@wild.example"), mia);
    assert_eq!(site.says_to("any%body@wild.example"), "550 5.7.1");
}

#[test]
fn an_alias_rule_replaces_the_recipient_for_the_rules_behind_it() {
    let mut site = Site::new();
    let aliases: &[(&str, &[&str])] = &[
        ("old@gone.example", &["alice@example.org"]),
        ("mixed@example.org", &["alice@example.org", "friend@remote.example", "mixed@example.org"]),
        ("bad@example.org", &["nobody@example.org"]),
        ("x@example.org", &["y@example.org"]),
    ];
    site.table("aliases", static_table(aliases));
    let back: &[(&str, &[&str])] = &[("y@example.org", &["x@example.org"])];
    site.table("back", static_table(back));
    site.user(user("mixed@example.org"));
    let mut rules = vec![
        rule("aliases", vec![], Action::Aliases { table: "aliases".into() }),
        rule("back", vec![], Action::Aliases { table: "back".into() }),
    ];
    rules.extend(default_rules());
    site.policy(rules);
    let alice = "alice@example.org>dovecot>dovecot";
    for (recipient, expected) in [
        ("old@gone.example", alice.to_owned()),
        (
            "mixed@example.org",
            format!("{alice} friend@remote.example>mx>remote.example mixed@example.org>dovecot>dovecot"),
        ),
        ("bad@example.org", "550 5.1.1".to_owned()),
        ("bob@example.org", "bob@example.org>dovecot>dovecot".to_owned()),
        ("x@example.org", "554 5.4.6".to_owned()),
        ("other@gone.example", "550 5.7.1".to_owned()),
    ] {
        assert_eq!(site.says_to(recipient), expected, "{recipient}");
    }
}

#[test]
fn an_alias_in_a_database_leads_on_and_its_failure_is_451() {
    let mut site = Site::new();
    site.table("aliases", sqlite_table());
    site.domain(&["example.org"], DomainRules { alias_table: Some("aliases".into()), ..domain_rules("example.org") });
    for key in ["team@example.org", "team"] {
        assert_eq!(site.says_to("team@example.org"), format!("need aliases {key}"));
        site.found(
            "aliases",
            key,
            if key == "team" { &[&[("to", "alice")], &[("to", "bob@example.org")]] } else { &[] },
        );
    }
    for key in ["alice@example.org", "alice", "bob@example.org"] {
        assert_eq!(site.says_to("team@example.org"), format!("need aliases {key}"));
        site.found("aliases", key, &[]);
    }
    site.lookups.insert(Need { table: "aliases".into(), key: "bob".into() }, Lookup::Failed);
    assert_eq!(site.says_to("team@example.org"), "451 4.3.0", "one member in doubt, all in doubt");
    site.found("aliases", "bob", &[]);
    assert_eq!(site.says_to("team@example.org"), "alice@example.org>dovecot>dovecot bob@example.org>dovecot>dovecot");
}
