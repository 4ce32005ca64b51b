use super::*;

/// 10,000 domains, 100,000 users, 1,000 rules: a decision looks things up by hash and walks the rules; it clones none of them.
#[test]
fn a_big_site_is_decided_without_walking_its_users_and_domains() {
    let mut site = Site::new();
    for d in 0..10_000 {
        let name = format!("d{d}.example");
        site.domain(&[&name], domain_rules(&name));
        for u in 0..10 {
            site.user(user(&format!("u{u}@{name}")));
        }
    }
    let mut rules: Vec<Rule> = (0..1000)
        .map(|i| rule(&format!("r{i}"), vec![is(Test::Sender(patterns(&[&format!("bad{i}@*.example")])))], reject()))
        .collect();
    rules.extend(default_rules());
    site.policy(rules);
    let sender = address("carl@remote.example");
    let mut accepted = 0;
    for i in 0..1000 {
        let recipient = address(&format!("u{}@d{}.example", i % 10, i * 7));
        let facts = Facts {
            listener: "mx",
            tags: &[],
            tags_open: false,
            client: Client::Ip("192.0.2.9".parse().unwrap()),
            helo: Fact::Known("x"),
            user: Fact::Known(None),
            sender: Some(&sender),
            recipient: Recipient::Address(&recipient),
            internal: false,
        };
        let answer = decide(&site.rules, &facts, &site.lookups, &mut NoStory);
        accepted += usize::from(matches!(answer, Ok(Answer::Accept(_))));
    }
    assert_eq!(accepted, 1000);
}
