//! The service over an in-process wire, with real SQLite files.

mod auth;
mod calls;
mod dovecot;
mod passwords;
mod sqlite;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use node::{Clock, Node, Peer, Snapshots, Wire};
use posthouse_proto::policy::v1 as proto;
use posthouse_proto::policy::v1::policy_client::PolicyClient;
use resources::Snapshot;
use resources::snapshot::Platform;
use rules::*;
use tempfile::TempDir;
use types::{Address, Domain};

pub(crate) fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

pub(crate) fn user(text: &str, password: Option<&str>) -> User {
    User {
        name: text.replace('@', "-"),
        address: address(text),
        aliases: Vec::new(),
        password: password.map(Secret::new),
        forwards: Vec::new(),
        keep_copy: false,
        send_as: Vec::new(),
        transport: None,
        disabled: false,
        quota_bytes: None,
    }
}

/// example.org (also example.net) with a directory; mx takes mail for it, submission is for users.
pub(crate) struct Site {
    pub(crate) rules: RuleSet,
    pub(crate) platform: Platform,
}

impl Site {
    pub(crate) fn new() -> Self {
        let mut rules = RuleSet { version: "v1".to_owned(), relay_transport: "mx".to_owned(), ..RuleSet::default() };
        rules.postmaster = Some(address("postmaster@example.org"));
        rules.transports.insert("dovecot".to_owned(), RouteBy::Transport);
        rules.transports.insert("mx".to_owned(), RouteBy::Domain);
        let mut site = Self { rules, platform: platform() };
        site.domain("example.org", None);
        let our_rules = vec![
            rule("mail for us", vec![Test::RecipientDomainIsOurs], Action::Deliver(Deliver::default())),
            rule("users", vec![Test::Authenticated(None)], Action::Relay { transport: None }),
            rule("local", vec![Test::Source(Source::Local)], Action::Relay { transport: None }),
        ];
        site.policy(our_rules);
        site
    }

    pub(crate) fn domain(&mut self, name: &str, user_table: Option<&str>) {
        let rules = Arc::new(DomainRules {
            name: Domain::parse(name).unwrap(),
            transport: "dovecot".to_owned(),
            catch_all: None,
            delimiters: "+".to_owned(),
            detail: Detail::Stripped,
            user_table: user_table.map(str::to_owned),
            alias_table: None,
        });
        self.rules.domains.insert(rules.name.clone(), Arc::clone(&rules));
        if name == "example.org" {
            self.rules.domains.insert(Domain::parse("example.net").unwrap(), rules);
        }
    }

    pub(crate) fn policy(&mut self, rules: Vec<Rule>) {
        let policy = Arc::new(Policy::new("test", rules));
        for (name, submission) in [("mx", false), ("submission", true), ("sendmail", false)] {
            let rules = ListenerRules {
                tags: vec![format!("from-{name}")],
                policy: Arc::clone(&policy),
                loopback_is_local: false,
                auth_required: submission,
                hold_to_own_addresses: submission,
            };
            self.rules.listeners.insert(name.to_owned(), rules);
        }
    }

    pub(crate) fn user(&mut self, user: User) {
        let user = Arc::new(user);
        for address in std::iter::once(&user.address).chain(&user.aliases) {
            self.rules.users.insert(address.key(), Arc::clone(&user));
        }
    }

    pub(crate) fn sqlite(&mut self, name: &str, path: &std::path::Path, query: &str) {
        let table = SqliteTable { path: path.to_owned(), query: query.to_owned() };
        self.rules.tables.insert(name.to_owned(), Arc::new(Table::Sqlite(table)));
    }

    pub(crate) fn snapshot(self) -> Snapshot {
        Snapshot {
            version: self.rules.version.clone(),
            resources: 1,
            platform: self.platform,
            listeners: BTreeMap::new(),
            transports: BTreeMap::new(),
            certificates: BTreeMap::new(),
            rules: Arc::new(self.rules),
            demo_passwords: Default::default(),
            files: Vec::new(),
        }
    }

    pub(crate) async fn start(self) -> Running {
        let folder = TempDir::new().unwrap();
        let node = Node::new(Snapshots::new(self.snapshot()), folder.path().to_owned(), Clock::system());
        crate::start(&node).await.unwrap();
        let client = PolicyClient::new(node.wire(Peer::Policy));
        Running { folder, node, client }
    }
}

pub(crate) fn rule(name: &str, tests: Vec<Test>, action: Action) -> Rule {
    let criteria = tests.into_iter().map(|test| Criterion { negated: false, test }).collect();
    Rule { name: name.to_owned(), criteria, action }
}

fn platform() -> Platform {
    Platform {
        name: "main".to_owned(),
        hostname: Domain::parse("mx.example.org").unwrap(),
        admin: None,
        dns_servers: Vec::new(),
        dns_cache: true,
        body_inline_max_bytes: 256 << 10,
        ingress_memory_max_bytes: 128 << 20,
        free_space_min_bytes: 0,
        event_retention: Duration::from_secs(60),
        dovecot_passwd_file: None,
        auth_failure_floor: Duration::ZERO,
        auth_concurrency_max: 2,
        auth_failures: resources::snapshot::AuthFailures::default(),
        drain_max: Duration::from_secs(30),
        deliveries_max: 1,
        sendmail_socket: false,
    }
}

pub(crate) struct Running {
    pub(crate) folder: TempDir,
    pub(crate) node: Node,
    pub(crate) client: PolicyClient<Wire>,
}

impl Running {
    /// `550 5.1.1` or the addresses that a stranger's mail from carl@remote.example is delivered to.
    pub(crate) async fn says_to(&mut self, recipient: &str) -> String {
        self.says(envelope("mx", "", "carl@remote.example", &[recipient])).await.remove(0)
    }

    pub(crate) async fn says(&mut self, request: proto::EnvelopeRequest) -> Vec<String> {
        let response = self.client.envelope(request).await.unwrap().into_inner();
        response.answers.iter().map(text).collect()
    }
}

pub(crate) fn text(answer: &proto::Answer) -> String {
    match answer.answer.as_ref().unwrap() {
        proto::answer::Answer::Refuse(reply) => format!("{} {}", reply.code, reply.enhanced_code),
        proto::answer::Answer::Accepted(accepted) => {
            let mut all: Vec<&str> = accepted.destinations.iter().map(|d| d.address.as_str()).collect();
            all.sort_unstable();
            all.join(" ")
        }
    }
}

pub(crate) fn envelope(listener: &str, user: &str, sender: &str, recipients: &[&str]) -> proto::EnvelopeRequest {
    proto::EnvelopeRequest {
        session: Some(session(listener, user)),
        sender: sender.to_owned(),
        recipients: recipients.iter().map(|recipient| (*recipient).to_owned()).collect(),
    }
}

pub(crate) fn session(listener: &str, user: &str) -> proto::Session {
    proto::Session {
        listener: listener.to_owned(),
        client_ip: "192.0.2.9".to_owned(),
        address_known: true,
        helo: "client.example".to_owned(),
        user: user.to_owned(),
        ..proto::Session::default()
    }
}
