use super::*;

#[test]
fn addresses_of_users_lead_to_their_mailbox_and_unknown_ones_are_refused() {
    let mut site = Site::new();
    site.domain(
        &["catch.example"],
        DomainRules { catch_all: Some(address("alice@example.org")), ..domain_rules("catch.example") },
    );
    site.domain(
        &["void.example"],
        DomainRules { catch_all: Some(address("nobody@example.org")), ..domain_rules("void.example") },
    );
    site.domain(
        &["out.example"],
        DomainRules { catch_all: Some(address("x@remote.example")), ..domain_rules("out.example") },
    );
    site.domain(
        &["kept.example"],
        DomainRules { detail: Detail::Kept, delimiters: "+-".into(), ..domain_rules("kept.example") },
    );
    site.domain(&["plain.example"], DomainRules { delimiters: String::new(), ..domain_rules("plain.example") });
    site.user(User { aliases: vec![address("office@kept.example")], ..user("kate@kept.example") });
    site.user(user("kate-anne@kept.example"));
    site.user(user("pat@plain.example"));
    site.user(User { disabled: true, ..user("dave@example.org") });
    site.user(User { transport: Some("maildir".into()), ..user("mary@example.org") });
    let cases = [
        ("alice@example.org", "alice@example.org>dovecot>dovecot"),
        ("ALICE@EXAMPLE.ORG", "alice@example.org>dovecot>dovecot"),
        ("\"alice\"@example.org", "alice@example.org>dovecot>dovecot"),
        ("info@example.org", "alice@example.org>dovecot>dovecot"),
        ("info@example.net", "alice@example.org>dovecot>dovecot"),
        ("alice+lists@example.org", "alice@example.org>dovecot>dovecot"),
        ("alice+@example.org", "alice@example.org>dovecot>dovecot"),
        ("alice-lists@example.org", "550 5.1.1"),
        ("+alice@example.org", "550 5.1.1"),
        ("nobody@example.org", "550 5.1.1"),
        ("alice@sub.example.org", "550 5.7.1"),
        ("kate+news@kept.example", "kate+news@kept.example>dovecot>dovecot"),
        ("kate-news@kept.example", "kate-news@kept.example>dovecot>dovecot"),
        ("kate-anne@kept.example", "kate-anne@kept.example>dovecot>dovecot"),
        ("office+x@kept.example", "kate+x@kept.example>dovecot>dovecot"),
        ("pat@plain.example", "pat@plain.example>dovecot>dovecot"),
        ("pat+x@plain.example", "550 5.1.1"),
        ("anybody@catch.example", "alice@example.org>dovecot>dovecot"),
        ("anybody@void.example", "550 5.1.1"),
        ("anybody@out.example", "x@remote.example>mx>remote.example"),
        ("dave@example.org", "550 5.2.1"),
        ("mary@example.org", "mary@example.org>maildir>maildir"),
    ];
    for (recipient, expected) in cases {
        assert_eq!(site.says_to(recipient), expected, "{recipient}");
    }
}

#[test]
fn what_was_written_to_is_remembered() {
    let Ok(Answer::Accept(accepted)) = Site::new().answer(&Ask { recipient: "Info+x@example.net", ..Ask::default() })
    else {
        panic!()
    };
    assert_eq!(accepted.destinations[0].delivered_to, address("Info+x@example.net"));
    assert_eq!(accepted.rule, "mail for us");
}

#[test]
fn a_table_of_users_has_password_user_and_forward() {
    let mut site = Site::new();
    site.table("people", sqlite_table());
    site.domain(
        &["sql.example", "sql2.example"],
        DomainRules { user_table: Some("people".into()), ..domain_rules("sql.example") },
    );
    site.user(user("yaml@sql.example"));
    site.found("people", "u@sql.example", &[&[("password", "x")]]);
    site.found("people", "u+d@sql.example", &[]);
    site.found("people", "alias@sql.example", &[&[("password", "x"), ("user", "u@sql.example")]]);
    site.found("people", "short@sql.example", &[&[("user", "u")]]);
    site.found("people", "none@sql.example", &[]);
    site.found(
        "people",
        "f@sql.example",
        &[&[("forward", "a@remote.example, alice@example.org")], &[("forward", "b@remote.example")]],
    );
    site.found("people", "k@sql.example", &[&[("forward", "a@remote.example"), ("keep_copy", "1")]]);
    site.found("people", "bad@sql.example", &[&[("forward", "not an address")]]);
    let cases = [
        ("u@sql.example", "u@sql.example>dovecot>dovecot"),
        ("u@sql2.example", "u@sql.example>dovecot>dovecot"),
        ("u+d@sql.example", "u@sql.example>dovecot>dovecot"),
        ("alias@sql.example", "u@sql.example>dovecot>dovecot"),
        ("short@sql.example", "u@sql.example>dovecot>dovecot"),
        ("yaml@sql.example", "yaml@sql.example>dovecot>dovecot"),
        ("none@sql.example", "550 5.1.1"),
        ("other@sql.example", "need people other@sql.example"),
        (
            "f@sql.example",
            "a@remote.example>mx>remote.example alice@example.org>dovecot>dovecot b@remote.example>mx>remote.example",
        ),
        ("k@sql.example", "a@remote.example>mx>remote.example k@sql.example>dovecot>dovecot"),
        ("bad@sql.example", "451 4.3.0"),
    ];
    for (recipient, expected) in cases {
        assert_eq!(site.says_to(recipient), expected, "{recipient}");
    }
    site.lookups.insert(Need { table: "people".into(), key: "other@sql.example".into() }, Lookup::Failed);
    assert_eq!(site.says_to("other@sql.example"), "451 4.3.0");
}

#[test]
fn postmaster_and_abuse_are_always_taken_before_all_rules() {
    let mut site = Site::new();
    site.policy(vec![rule("no", vec![], reject())]);
    let everybody = [
        "postmaster",
        "postmaster@example.org",
        "PostMaster@Example.NET",
        "abuse@example.org",
        "postmaster+x@example.org",
    ];
    let mailbox = "postmaster@example.org>dovecot>dovecot";
    for recipient in everybody {
        assert_eq!(site.says_to(recipient), mailbox, "nobody is postmaster: {recipient}");
    }
    assert_eq!(site.says_to("postmaster@remote.example"), "550 5.7.1");
    site.rules.postmaster = Some(address("info@example.net"));
    for recipient in everybody {
        assert_eq!(site.says_to(recipient), "alice@example.org>dovecot>dovecot", "{recipient}");
    }
    site.rules.postmaster = Some(address("ops@remote.example"));
    assert_eq!(site.says_to("postmaster"), "ops@remote.example>mx>remote.example");
    site.user(User { disabled: true, ..user("root@example.org") });
    site.rules.postmaster = Some(address("root@example.org"));
    assert_eq!(site.says_to("postmaster"), "root@example.org>dovecot>dovecot", "disabled, and still taken");
    site.user(forward("root@example.org", &["abuse@example.org"]));
    site.user(forward("abuse@example.org", &["root@example.org"]));
    assert_eq!(site.says_to("abuse@example.org"), "root@example.org>dovecot>dovecot", "a loop, and still taken");
    site.user(user("abuse@example.org"));
    site.rules.postmaster = Some(address("alice@example.org"));
    assert_eq!(site.says_to("abuse@example.org"), "abuse@example.org>dovecot>dovecot", "a user of that name");
    assert_eq!(site.says_to("postmaster@example.org"), "alice@example.org>dovecot>dovecot");
    site.rules.postmaster = None;
    assert_eq!(site.says_to("postmaster@example.org"), mailbox);
    assert_eq!(site.says_to("postmaster"), "451 4.3.5");
}

#[test]
fn postmaster_mail_waits_while_the_directory_cannot_be_read() {
    let mut site = Site::new();
    site.table("people", sqlite_table());
    site.domain(&["sql.example"], DomainRules { user_table: Some("people".into()), ..domain_rules("sql.example") });
    site.rules.postmaster = Some(address("root@sql.example"));
    assert_eq!(site.says_to("postmaster"), "need people root@sql.example");
    site.lookups.insert(Need { table: "people".into(), key: "root@sql.example".into() }, Lookup::Failed);
    assert_eq!(site.says_to("postmaster"), "451 4.3.0");
}

#[test]
fn a_report_of_ours_is_routed_without_rules() {
    let mut site = Site::new();
    site.policy(vec![rule("no", vec![], reject())]);
    let report = |recipient| Ask {
        internal: true,
        listener: "",
        sender: None,
        client: Client::Unknown,
        recipient,
        ..Ask::default()
    };
    for (recipient, expected) in [
        ("info@example.net", "alice@example.org>dovecot>dovecot"),
        ("carl@remote.example", "carl@remote.example>mx>remote.example"),
        ("nobody@example.org", "550 5.1.1"),
        ("postmaster", "postmaster@example.org>dovecot>dovecot"),
    ] {
        assert_eq!(site.says(&report(recipient)), expected, "{recipient}");
    }
}
