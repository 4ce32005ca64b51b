//! One decision among 10,000 domains, 100,000 users and 1,000 rules of mixed kinds.
#![allow(clippy::unwrap_used, reason = "a bench")]

use std::sync::{Arc, LazyLock};

use divan::{Bencher, black_box};
use rules::*;
use types::{Address, Domain, Reply};

const DOMAINS: usize = 10_000;
const USERS_PER_DOMAIN: usize = 10;
const RULES: usize = 1_000;

static SITE: LazyLock<RuleSet> = LazyLock::new(site);

fn main() {
    divan::main();
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn patterns(texts: &[&str]) -> Matcher {
    let pattern = |text: &&str| match text.contains('*') {
        true => Pattern::Wildcard((*text).to_owned()),
        false => Pattern::Exact((*text).to_owned()),
    };
    Matcher::Patterns(texts.iter().map(pattern).collect())
}

/// A mixture of what rules ask; none of them applies to the usual mail.
fn criterion(i: usize) -> Criterion {
    let test = match i % 8 {
        0 => Test::Sender(patterns(&[&format!("bad{i}@*.example")])),
        1 => Test::Sender(patterns(&[&format!("*@spam{i}.example"), &format!("*.spam{i}.example")])),
        2 => Test::Sender(patterns(&[&format!("user{i}@exact.example")])),
        3 => Test::RecipientDomain(patterns(&[&format!("moved{i}.example")])),
        4 => Test::Source(Source::Networks(
            (0..10).map(|n| format!("10.{}.{}.0/24", i % 250, n).parse().unwrap()).collect(),
        )),
        5 => Test::Helo(patterns(&[&format!("*.dyn{i}.example")])),
        6 => Test::Recipient(Matcher::Table(format!("table{}", i % 20))),
        _ => Test::Recipient(patterns(&[&format!("list{i}@*"), &format!("*-list{i}@*")])),
    };
    Criterion { negated: false, test }
}

fn site() -> RuleSet {
    let mut set = RuleSet { relay_transport: "mx".to_owned(), ..RuleSet::default() };
    set.transports = [("box", RouteBy::Transport), ("mx", RouteBy::Domain)].map(|(n, by)| (n.to_owned(), by)).into();
    for d in 0..DOMAINS {
        let name = Domain::parse(&format!("d{d}.example")).unwrap();
        for u in 0..USERS_PER_DOMAIN {
            let user = user(address(&format!("u{u}@{name}")));
            set.users.insert(user.address.key(), Arc::new(user));
        }
        set.domains.insert(name.clone(), Arc::new(domain_rules(name)));
    }
    for t in 0..20 {
        let mut table = StaticTable::default();
        table.exact.extend((0..500).map(|n| (format!("listed{n}@t{t}.example"), Vec::new())));
        set.tables.insert(format!("table{t}"), Arc::new(Table::Static(table)));
    }
    let reject = || Action::Reject(Reply::enhanced(550, 5, 7, 1, "refused by rule"));
    let rule = |i: usize| Rule { name: format!("r{i}"), criteria: vec![criterion(i)], action: reject() };
    let mut rules: Vec<Rule> = (0..RULES).map(rule).collect();
    let ours = Criterion { negated: false, test: Test::RecipientDomainIsOurs };
    rules.push(Rule { name: "ours".to_owned(), criteria: vec![ours], action: Action::Deliver(Deliver::default()) });
    let policy = Arc::new(Policy::new("big", rules));
    let listener = ListenerRules {
        tags: vec!["from-world".to_owned()],
        policy,
        loopback_is_local: false,
        auth_required: false,
        hold_to_own_addresses: false,
    };
    set.listeners.insert("mx".to_owned(), listener);
    set
}

fn user(address: Address) -> User {
    User {
        name: address.to_string(),
        address,
        aliases: Vec::new(),
        password: None,
        forwards: Vec::new(),
        keep_copy: false,
        send_as: Vec::new(),
        transport: None,
        disabled: false,
        quota_bytes: None,
    }
}

fn domain_rules(name: Domain) -> DomainRules {
    DomainRules {
        name,
        transport: "box".to_owned(),
        catch_all: None,
        delimiters: "+".to_owned(),
        detail: Detail::Stripped,
        user_table: None,
        alias_table: None,
    }
}

#[divan::bench(args = ["u3@d77.example", "nobody@d77.example", "somebody@elsewhere.example"])]
fn decide_among_1000_rules(bencher: Bencher, recipient: &str) {
    let rules = &*SITE;
    let (sender, recipient) = (address("carl@remote.example"), address(recipient));
    let lookups = Lookups::default();
    bencher.bench(|| {
        let facts = Facts {
            listener: "mx",
            tags: &[],
            tags_open: false,
            client: Client::Ip("192.0.2.9".parse().unwrap()),
            helo: Fact::Known("mail.remote.example"),
            user: Fact::Known(None),
            sender: Some(black_box(&sender)),
            recipient: Recipient::Address(&recipient),
            internal: false,
        };
        decide(rules, &facts, &lookups, &mut NoStory)
    });
}

#[divan::bench(args = [16, 4096])]
fn a_network_among(bencher: Bencher, networks: usize) {
    let list =
        Source::Networks((0..networks).map(|n| format!("10.{}.{}.0/24", n / 256, n % 256).parse().unwrap()).collect());
    let rule = Rule {
        name: "r".to_owned(),
        criteria: vec![Criterion { negated: false, test: Test::Source(list) }],
        action: Action::Relay { transport: None },
    };
    let mut set = RuleSet { relay_transport: "mx".to_owned(), ..RuleSet::default() };
    set.transports.insert("mx".to_owned(), RouteBy::Domain);
    let listener = ListenerRules {
        tags: Vec::new(),
        policy: Arc::new(Policy::new("p", vec![rule])),
        loopback_is_local: false,
        auth_required: false,
        hold_to_own_addresses: false,
    };
    set.listeners.insert("mx".to_owned(), listener);
    let recipient = address("a@b.example");
    let facts = Facts {
        listener: "mx",
        tags: &[],
        tags_open: false,
        client: Client::Ip("192.0.2.9".parse().unwrap()),
        helo: Fact::Known("x"),
        user: Fact::Known(None),
        sender: None,
        recipient: Recipient::Address(&recipient),
        internal: false,
    };
    bencher.bench(|| decide(black_box(&set), &facts, &Lookups::default(), &mut NoStory));
}
