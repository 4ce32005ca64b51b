//! Tables of cases over a small site.

mod criteria;
mod directory;
mod expansion;
mod guards;
mod open;
mod own;
mod property;
mod size;

use std::collections::HashMap;
use std::sync::Arc;

use types::{Address, Domain, Reply};

use crate::*;

pub(crate) fn address(text: &str) -> Address {
    Address::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub(crate) fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

pub(crate) fn pattern(text: &str) -> Pattern {
    if text.contains('*') { Pattern::Wildcard(text.to_owned()) } else { Pattern::Exact(text.to_owned()) }
}

pub(crate) fn patterns(texts: &[&str]) -> Matcher {
    Matcher::Patterns(texts.iter().map(|text| pattern(text)).collect())
}

pub(crate) fn table(name: &str) -> Matcher {
    Matcher::Table(name.to_owned())
}

pub(crate) fn user(text: &str) -> User {
    User {
        name: text.replace('@', "-"),
        address: address(text),
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

pub(crate) fn forward(from: &str, to: &[&str]) -> User {
    User { forwards: to.iter().map(|to| address(to)).collect(), ..user(from) }
}

pub(crate) fn static_table(rows: &[(&str, &[&str])]) -> Table {
    let (mut exact, mut wildcards, mut networks) = (HashMap::new(), Vec::new(), Vec::new());
    for (key, values) in rows {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        if let Ok(network) = key.parse() {
            networks.push(network);
        } else if key.contains('*') {
            wildcards.push((pattern(key), values));
        } else {
            exact.insert((*key).to_owned(), values);
        }
    }
    Table::Static(StaticTable::new(exact, wildcards, networks))
}

pub(crate) fn sqlite_table() -> Table {
    Table::Sqlite(SqliteTable { path: "/nowhere".into(), query: "SELECT 1 WHERE '%u' = ''".to_owned() })
}

pub(crate) fn domain_rules(name: &str) -> DomainRules {
    DomainRules {
        name: domain(name),
        transport: "dovecot".to_owned(),
        catch_all: None,
        delimiters: "+".to_owned(),
        detail: Detail::Stripped,
        user_table: None,
        alias_table: None,
    }
}

pub(crate) fn is(test: Test) -> Criterion {
    Criterion { negated: false, test }
}

pub(crate) fn not(test: Test) -> Criterion {
    Criterion { negated: true, test }
}

pub(crate) fn rule(name: &str, criteria: Vec<Criterion>, action: Action) -> Rule {
    Rule { name: name.to_owned(), criteria, action }
}

pub(crate) fn accept() -> Action {
    Action::Relay { transport: Some("smart".to_owned()) }
}

pub(crate) fn reject() -> Action {
    Action::Reject(Reply::enhanced(550, 5, 7, 1, "rejected by rule"))
}

/// What the compiler makes of no MailPolicy at all.
pub(crate) fn default_rules() -> Vec<Rule> {
    vec![
        rule("mail for us", vec![is(Test::RecipientDomainIsOurs)], Action::Deliver(Deliver::default())),
        rule("users write to the world", vec![is(Test::Authenticated(None))], Action::Relay { transport: None }),
        rule(
            "this machine writes to the world",
            vec![is(Test::Source(Source::Local))],
            Action::Relay { transport: None },
        ),
    ]
}

pub(crate) struct Site {
    pub(crate) rules: RuleSet,
    pub(crate) lookups: Lookups,
}

impl Site {
    /// example.org with alice (also info) and bob; its other name is example.net.
    pub(crate) fn new() -> Self {
        let mut rules = RuleSet { version: "1".to_owned(), relay_transport: "mx".to_owned(), ..RuleSet::default() };
        rules.postmaster = Some(address("postmaster@example.org"));
        let transports = [
            ("dovecot", RouteBy::Transport),
            ("maildir", RouteBy::Transport),
            ("smart", RouteBy::Transport),
            ("mx", RouteBy::Domain),
        ];
        rules.transports = transports.into_iter().map(|(name, by)| (name.to_owned(), by)).collect();
        let mut site = Self { rules, lookups: Lookups::default() };
        site.domain(&["example.org", "example.net"], domain_rules("example.org"));
        site.user(User { aliases: vec![address("info@example.org")], ..user("alice@example.org") });
        site.user(user("bob@example.org"));
        site.policy(default_rules());
        site
    }

    pub(crate) fn domain(&mut self, names: &[&str], rules: DomainRules) {
        let rules = Arc::new(rules);
        for name in names {
            self.rules.domains.insert(domain(name), Arc::clone(&rules));
        }
    }

    pub(crate) fn user(&mut self, user: User) {
        let user = Arc::new(user);
        for address in std::iter::once(&user.address).chain(&user.aliases) {
            self.rules.users.insert(address.key(), Arc::clone(&user));
        }
    }

    pub(crate) fn table(&mut self, name: &str, table: Table) {
        self.rules.tables.insert(name.to_owned(), Arc::new(table));
    }

    /// Rules of the listeners mx (25), submission (587, held to own addresses) and sidecar (loopback is local).
    pub(crate) fn policy(&mut self, rules: Vec<Rule>) {
        let policy = Arc::new(Policy::new("test", rules));
        let listener = |submission: bool, loopback_is_local: bool, tag: &str| ListenerRules {
            tags: vec![tag.to_owned()],
            policy: Arc::clone(&policy),
            loopback_is_local,
            auth_required: submission,
            hold_to_own_addresses: submission,
        };
        let listeners = [
            ("mx", listener(false, false, "from-mx")),
            ("submission", listener(true, false, "from-users")),
            ("sidecar", listener(false, true, "from-sidecar")),
        ];
        self.rules.listeners = listeners.into_iter().map(|(name, rules)| (name.to_owned(), rules)).collect();
    }

    pub(crate) fn found(&mut self, table: &str, key: &str, rows: &[&[(&str, &str)]]) {
        let row = |columns: &&[(&str, &str)]| Row {
            columns: columns.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        let rows: Vec<Row> = rows.iter().map(row).collect();
        let need = Need { table: table.to_owned(), key: key.to_owned() };
        self.lookups.insert(need, Lookup::Found(rows.into()));
    }

    pub(crate) fn answer(&self, ask: &Ask) -> Result<Answer, Need> {
        let (told, story) = self.tell(ask);
        let sender = ask.sender.map(address);
        let quiet = ask.with_facts(sender.as_ref(), |facts| decide(&self.rules, facts, &self.lookups, &mut NoStory));
        assert_eq!(quiet, told, "a listener does not change the decision: {story:?}");
        quiet
    }

    pub(crate) fn tell(&self, ask: &Ask) -> (Result<Answer, Need>, Vec<Step>) {
        let sender = ask.sender.map(address);
        let mut story = Vec::new();
        let answer = ask.with_facts(sender.as_ref(), |facts| decide(&self.rules, facts, &self.lookups, &mut story));
        (answer, story)
    }

    /// `550 5.1.1` or `address>transport>route ...`, sorted.
    pub(crate) fn says(&self, ask: &Ask) -> String {
        match self.answer(ask) {
            Err(need) => format!("need {} {}", need.table, need.key),
            Ok(Answer::Refuse(reply)) => {
                format!("{} {}", reply.code, reply.enhanced.map(|code| code.to_string()).unwrap_or_default())
            }
            Ok(Answer::Accept(accepted)) => {
                let one = |d: &Destination| format!("{}>{}>{}", d.address, d.transport, d.route);
                let mut all: Vec<String> = accepted.destinations.iter().map(one).collect();
                all.sort();
                all.join(" ")
            }
        }
    }

    /// What the mx listener says to an unknown client.
    pub(crate) fn says_to(&self, recipient: &str) -> String {
        self.says(&Ask { recipient, ..Ask::default() })
    }
}

/// The facts of a question, with defaults of a stranger on port 25.
#[derive(Clone)]
pub(crate) struct Ask<'a> {
    pub(crate) listener: &'a str,
    pub(crate) tags: Vec<String>,
    pub(crate) tags_open: bool,
    pub(crate) client: Client,
    pub(crate) helo: Fact<&'a str>,
    pub(crate) user: Fact<Option<&'a str>>,
    pub(crate) sender: Option<&'a str>,
    pub(crate) recipient: &'a str,
    pub(crate) internal: bool,
}

impl Default for Ask<'_> {
    fn default() -> Self {
        Self {
            listener: "mx",
            tags: Vec::new(),
            tags_open: false,
            client: Client::Ip("192.0.2.9".parse().unwrap()),
            helo: Fact::Known("mail.remote.example"),
            user: Fact::Known(None),
            sender: Some("carl@remote.example"),
            recipient: "alice@example.org",
            internal: false,
        }
    }
}

impl Ask<'_> {
    fn with_facts<T>(&self, sender: Option<&Address>, ask: impl FnOnce(&Facts<'_>) -> T) -> T {
        let recipient = (self.recipient != "postmaster").then(|| address(self.recipient));
        let user = match self.user {
            Fact::Known(user) => Fact::Known(user.map(address)),
            Fact::Later => Fact::Later,
        };
        ask(&Facts {
            listener: self.listener,
            tags: &self.tags,
            tags_open: self.tags_open,
            client: self.client,
            helo: self.helo,
            user: match &user {
                Fact::Known(user) => Fact::Known(user.as_ref()),
                Fact::Later => Fact::Later,
            },
            sender,
            recipient: recipient.as_ref().map_or(Recipient::Postmaster, Recipient::Address),
            internal: self.internal,
        })
    }
}

/// An authenticated user on the submission listener.
pub(crate) fn submitted<'a>(user: &'a str, sender: Option<&'a str>, recipient: &'a str) -> Ask<'a> {
    Ask { listener: "submission", user: Fact::Known(Some(user)), sender, recipient, ..Ask::default() }
}
