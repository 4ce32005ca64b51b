//! What the index over the guards leaves out would not have mattered. `Site::answer` decides twice: by the index, and, with
//! a listener, rule by rule; both must be the same, lookups that are asked for included.

use proptest::prelude::*;

use super::*;

const WORDS: &[&str] = &[
    "a@x.example",
    "b+d@x.example",
    "x.example",
    "@x.example",
    "*@x.example",
    "*.example",
    "a@*",
    "*",
    "b@*.example",
    "",
    "tag1",
    "tag2",
    "mx",
    "submission",
    "helo.example",
    "*.org",
    "alice@example.org",
    "example.org",
    "@example.net",
    "*b*x*",
    "HELO.example",
];
const NETWORKS: &[&str] = &["192.0.2.0/24", "192.0.2.9/32", "0.0.0.0/0", "10.0.0.0/8", "2001:db8::/32", "::/0"];

fn matcher() -> impl Strategy<Value = Option<Vec<usize>>> {
    proptest::option::weighted(0.8, proptest::collection::vec(0..WORDS.len(), 1..12))
}

/// Kind of test, its patterns (or a table), negated.
type Made = (u8, Option<Vec<usize>>, u8, bool);

fn criterion() -> impl Strategy<Value = Made> {
    (0..12_u8, matcher(), 0..3_u8, proptest::bool::weighted(0.2))
}

fn test(made: &Made) -> Criterion {
    let (kind, words, table_at, negated) = made;
    let table_name = ["static", "outside", "missing"][usize::from(*table_at)];
    let matcher = || match words {
        Some(words) => patterns(
            &words
                .iter()
                .map(|at| WORDS[*at])
                .map(str::to_owned)
                .map(|w| w.to_lowercase())
                .collect::<Vec<_>>()
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
        ),
        None => table(table_name),
    };
    let networks = || match words {
        Some(words) => {
            Source::Networks(words.iter().map(|at| NETWORKS[at % NETWORKS.len()].parse().unwrap()).collect())
        }
        None => Source::Table(table_name.to_owned()),
    };
    let test = match kind {
        0 | 1 => Test::Sender(matcher()),
        2 | 3 => Test::Recipient(matcher()),
        4 => Test::RecipientDomain(matcher()),
        5 => Test::Helo(matcher()),
        6 => Test::Authenticated(words.is_some().then(matcher)),
        7 => Test::Tagged(matcher()),
        8 => Test::Listener(matcher()),
        9 => Test::Source(networks()),
        10 => Test::Source(if words.is_some() { Source::Local } else { Source::Any }),
        _ => Test::RecipientDomainIsOurs,
    };
    Criterion { negated: *negated, test }
}

fn action(kind: u8) -> Action {
    match kind {
        0 => accept(),
        1 => Action::Deliver(Deliver::default()),
        2 => reject(),
        3 => Action::Tag("tag1".to_owned()),
        4 => Action::Tag("Tag2".to_owned()),
        5 => Action::RewriteSender(Some(address("a@x.example"))),
        6 => Action::RewriteSender(None),
        _ => Action::Aliases { table: "static".to_owned() },
    }
}

fn site(rules: &[(Vec<Made>, u8)]) -> Site {
    let mut site = Site::new();
    let rows: &[(&str, &[&str])] = &[
        ("alice@example.org", &["bob@example.org", "a@x.example"]),
        ("x.example", &[]),
        ("*.example", &[]),
        ("tag2", &[]),
        ("192.0.2.0/24", &[]),
    ];
    site.table("static", static_table(rows));
    site.table("outside", sqlite_table());
    let rule = |(at, (criteria, kind)): (usize, &(Vec<Made>, u8))| {
        rule(&format!("r{at}"), criteria.iter().map(test).collect(), action(*kind))
    };
    site.policy(rules.iter().enumerate().map(rule).collect());
    site
}

/// Answers every need in turn, by a row or by nothing, as the key's length has it.
fn decide_to_the_end(site: &mut Site, ask: &Ask<'_>) -> Answer {
    for _ in 0..1000 {
        match site.answer(ask) {
            Ok(answer) => return answer,
            Err(need) => {
                let rows: Vec<Row> = (need.key.len() % 2 == 0).then(Row::default).into_iter().collect();
                site.lookups.insert(need, Lookup::Found(rows.into()));
            }
        }
    }
    panic!("it asks for ever");
}

proptest! {
    #[test]
    fn a_decision_by_the_index_is_the_decision_rule_by_rule(
        rules in proptest::collection::vec((proptest::collection::vec(criterion(), 0..4), 0..8_u8), 1..80),
        client in 0..4_usize,
        user in 0..3_usize,
        sender in 0..4_usize,
        recipient in 0..4_usize,
        helo in 0..3_usize,
        tags_open: bool,
        is_submission: bool,
    ) {
        let mut site = site(&rules);
        let sender = [None, Some("a@x.example"), Some("b+d@x.example"), Some("c@other.org")][sender];
        let ask = Ask {
            listener: if is_submission { "sidecar" } else { "mx" },
            tags: vec!["TAG2".to_owned()],
            tags_open,
            client: [Client::Ip("192.0.2.9".parse().unwrap()), Client::Ip("::1".parse().unwrap()), Client::Unix, Client::Unknown][client],
            helo: [Fact::Known("HELO.Example"), Fact::Known("mail.some.org"), Fact::Later][helo],
            user: [Fact::Known(None), Fact::Known(Some("alice@example.org")), Fact::Later][user],
            sender,
            recipient: ["alice@example.org", "b@x.example", "bob@example.net", "who@far.away"][recipient],
            internal: false,
        };
        decide_to_the_end(&mut site, &ask);
    }
}
