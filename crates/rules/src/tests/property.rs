use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
struct Made {
    kind: u8,
    negated: bool,
    fails: bool,
    action: u8,
}

fn made() -> impl Strategy<Value = Made> {
    (0..6_u8, any::<bool>(), any::<bool>(), 0..5_u8).prop_map(|(kind, negated, fails, action)| Made {
        kind,
        negated,
        fails,
        action,
    })
}

fn site_of(rules: &[Made]) -> Site {
    let mut site = Site::new();
    site.table("fails", sqlite_table());
    site.table("empty", static_table(&[]));
    let make = |(i, made): (usize, &Made)| {
        let table_name = if made.fails { "fails" } else { "empty" };
        let test = match made.kind {
            0 => Test::Sender(table(table_name)),
            1 => Test::Recipient(table(table_name)),
            2 => Test::RecipientDomain(table(table_name)),
            3 => Test::Helo(table(table_name)),
            4 => Test::Source(Source::Table(table_name.into())),
            _ => Test::Tagged(table(table_name)),
        };
        let action = match made.action {
            0 => accept(),
            1 => Action::Deliver(Deliver::default()),
            2 => reject(),
            3 => Action::Tag(format!("t{i}")),
            _ => Action::Aliases { table: table_name.into() },
        };
        rule(&format!("r{i}"), vec![Criterion { negated: made.negated, test }], action)
    };
    site.policy(rules.iter().enumerate().map(make).collect());
    site
}

/// Asks until nothing is needed; every lookup fails. Says whether one was made.
fn failing(site: &mut Site, ask: &Ask) -> (Answer, bool) {
    let mut asked = false;
    for _ in 0..1000 {
        match site.answer(ask) {
            Ok(answer) => return (answer, asked),
            Err(need) => {
                assert_eq!(need.table, "fails");
                site.lookups.insert(need, Lookup::Failed);
                asked = true;
            }
        }
    }
    panic!("it asks for ever");
}

proptest! {
    #[test]
    fn a_lookup_that_failed_never_accepts(rules in proptest::collection::vec(made(), 1..8)) {
        let mut site = site_of(&rules);
        let (answer, asked) = failing(&mut site, &Ask::default());
        if asked {
            let Answer::Refuse(reply) = answer else { panic!("accepted: {answer:?}") };
            prop_assert_eq!(reply.code, 451);
        }
    }

    #[test]
    fn an_unknown_address_never_accepts_what_every_address_is_refused(rules in proptest::collection::vec(made(), 1..8)) {
        let mut site = site_of(&rules);
        site.table("fails", static_table(&[("192.0.2.0/24", &[])]));
        let outcome = |site: &Site, client| site.says(&Ask { client, ..Ask::default() });
        let listed = outcome(&site, Client::Ip("192.0.2.1".parse().unwrap()));
        let other = outcome(&site, Client::Ip("198.51.100.1".parse().unwrap()));
        let unknown = outcome(&site, Client::Unknown);
        if listed.starts_with('5') && other.starts_with('5') {
            prop_assert!(unknown.starts_with('5') || unknown.starts_with('4'), "{}", unknown);
        }
    }

    #[test]
    fn every_text_that_is_an_address_gets_an_answer(local in "[a-z%!@+.\"* ]{1,12}", domain in "(example\\.org|example\\.net|remote\\.example)") {
        if let Ok(recipient) = Address::parse(&format!("\"{}\"@{domain}", local.replace(['"', '\\'], ""))) {
            let text = recipient.to_string();
            let answer = Site::new().says_to(&text);
            prop_assert!(!answer.is_empty());
            if domain == "remote.example" || local.contains(['%', '!', '@']) {
                prop_assert_eq!(answer, "550 5.7.1");
            }
        }
    }
}
