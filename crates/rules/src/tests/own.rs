use super::*;

fn site() -> Site {
    let mut site = Site::new();
    let aliases = vec![address("info@example.org")];
    site.user(User {
        aliases,
        send_as: vec![pattern("*@lists.example"), pattern("boss@example.org")],
        ..user("alice@example.org")
    });
    site.user(user("boss@example.org"));
    site.table("people", sqlite_table());
    site.domain(&["sql.example"], DomainRules { user_table: Some("people".into()), ..domain_rules("sql.example") });
    site.found("people", "u@sql.example", &[&[("password", "p")]]);
    site.found("people", "alias@sql.example", &[&[("user", "u@sql.example"), ("password", "p")]]);
    site.found("people", "other@sql.example", &[&[("password", "p")]]);
    site.found("people", "nobody@sql.example", &[]);
    site.found("people", "u+x@sql.example", &[]);
    site
}

#[test]
fn a_user_may_send_only_as_addresses_that_are_theirs() {
    let site = site();
    let cases = [
        ("alice@example.org", "alice@example.org", true),
        ("alice@example.org", "ALICE@example.net", true),
        ("alice@example.org", "alice+shop@example.org", true),
        ("alice@example.org", "info+x@example.net", true),
        ("alice@example.org", "bob@example.org", false),
        ("bob@example.org", "info@example.org", false),
        ("alice@example.org", "any@lists.example", true),
        ("alice@example.org", "boss@example.org", true),
        ("alice@example.org", "alice@remote.example", false),
        ("alice@example.org", "\"x@lists.example\"@remote.example", false),
        ("alice@example.org", "nobody@example.org", false),
        ("u@sql.example", "u+x@sql.example", true),
        ("u@sql.example", "alias@sql.example", true),
        ("u@sql.example", "other@sql.example", false),
        ("u@sql.example", "nobody@sql.example", false),
    ];
    for (user, sender, expected) in cases {
        let own = may_send_as(&site.rules, &site.lookups, &address(user), &address(sender));
        assert_eq!(own, Ok(expected), "{user} as {sender}");
        let answer = site.says(&submitted(user, Some(sender), "x@remote.example"));
        let expected = if expected { "x@remote.example>mx>remote.example" } else { "553 5.7.1" };
        assert_eq!(answer, expected, "{user} as {sender}");
    }
    let null = site.says(&submitted("alice@example.org", None, "x@remote.example"));
    assert_eq!(null, "x@remote.example>mx>remote.example", "reports of mail programs have no sender");
    let postmaster = site.says(&submitted("alice@example.org", Some("bob@example.org"), "postmaster@example.org"));
    assert_eq!(postmaster, "553 5.7.1");
    let elsewhere =
        Ask { listener: "mx", ..submitted("alice@example.org", Some("x@remote.example"), "bob@example.org") };
    assert_eq!(site.says(&elsewhere), "bob@example.org>dovecot>dovecot", "a listener that does not hold");
}

#[test]
fn own_addresses_in_doubt_are_451() {
    let mut site = site();
    let ask = submitted("u@sql.example", Some("new@sql.example"), "x@remote.example");
    assert_eq!(site.says(&ask), "need people new@sql.example");
    site.lookups.insert(Need { table: "people".into(), key: "new@sql.example".into() }, Lookup::Failed);
    assert_eq!(site.says(&ask), "451 4.3.0");
}

#[test]
fn a_login_is_the_mailbox_or_an_alias() {
    let mut site = site();
    site.user(User { password: Some(Secret::new("h")), disabled: true, ..user("off@example.org") });
    let login = |name: &str| {
        let found = find_login(&site.rules, &site.lookups, &address(name)).unwrap();
        found.map(|login| (login.address.to_string(), login.password.map(|p| p.reveal().to_owned()), login.disabled))
    };
    let alice = Some(("alice@example.org".to_owned(), None, false));
    assert_eq!(login("alice@example.org"), alice);
    assert_eq!(login("INFO@example.net"), alice);
    assert_eq!(login("alice+x@example.org"), None, "a detail is no login");
    assert_eq!(login("nobody@example.org"), None);
    assert_eq!(login("alice@remote.example"), None);
    assert_eq!(login("off@example.org"), Some(("off@example.org".to_owned(), Some("h".to_owned()), true)));
    assert_eq!(login("alias@sql.example"), Some(("u@sql.example".to_owned(), Some("p".to_owned()), false)));
}
