//! What the compiler makes of policies, domains, users and tables: the values that decisions are made from.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ipnet::IpNet;
use types::{Address, Domain, Reply};

use crate::guards::Guards;
use crate::patterns::PatternIndex;
use crate::{NetworkList, PatternList};

/// The policy section of a snapshot: everything that a decision may look at.
#[derive(Debug, Default)]
pub struct RuleSet {
    /// Version of the snapshot it belongs to.
    pub version: String,
    /// Where postmaster mail goes (RFC 5321 section 4.5.1).
    pub postmaster: Option<Address>,
    /// By name of the MailListener.
    pub listeners: BTreeMap<String, ListenerRules>,
    /// By every name of every domain of ours, aliases included.
    pub domains: HashMap<Domain, Arc<DomainRules>>,
    /// By [`Address::key`] of every address of every MailUser, below primary domain names only.
    pub users: HashMap<String, Arc<User>>,
    /// By name of the MailTable.
    pub tables: BTreeMap<String, Arc<Table>>,
    /// How a transport groups its recipients, by name of the MailTransport.
    pub transports: BTreeMap<String, RouteBy>,
    /// Transport of mail that leaves by the built-in policy.
    pub relay_transport: String,
    /// Bounds of alias and forward expansion.
    pub limits: ExpansionLimits,
}

/// What rules know of a listener.
#[derive(Debug, Clone)]
pub struct ListenerRules {
    /// Tags that every session of the listener carries.
    pub tags: Vec<String>,
    /// Rules in order, includes flattened; nothing matches = refuse.
    pub policy: Arc<Policy>,
    /// Loopback peers count as `source: local` (Unix-socket peers always do).
    pub loopback_is_local: bool,
    /// Nothing is taken from a session that has not authenticated.
    pub auth_required: bool,
    /// Submission: header From and MAIL FROM are held to the user's own addresses.
    pub hold_to_own_addresses: bool,
}

/// An ordered list of rules; the first that matches and ends the search wins.
#[derive(Debug, Default)]
pub struct Policy {
    /// Name of the MailPolicy, or `default`.
    pub name: String,
    rules: Vec<Rule>,
    guards: Option<Box<Guards>>,
}

impl Policy {
    /// Compiles rules, in order, with an index over what they ask for.
    pub fn new(name: impl Into<String>, rules: Vec<Rule>) -> Self {
        let guards = Guards::new(&rules);
        Self { name: name.into(), rules, guards }
    }

    /// In order, includes flattened.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Which rules are left for what is known; `None`: they are so few that each is tried.
    pub(crate) fn guards(&self) -> Option<&Guards> {
        self.guards.as_deref()
    }
}

/// One rule: all criteria match -> the action is taken.
#[derive(Debug)]
pub struct Rule {
    /// For people: name or `policy/index`.
    pub name: String,
    /// All must hold; none: always.
    pub criteria: Vec<Criterion>,
    /// What is done.
    pub action: Action,
}

/// A test and whether its outcome is turned round.
#[derive(Debug)]
pub struct Criterion {
    /// `not:` in the resource.
    pub negated: bool,
    /// What is asked.
    pub test: Test,
}

/// What a criterion asks.
#[derive(Debug)]
pub enum Test {
    /// The session or the transaction carries one of the tags.
    Tagged(Matcher),
    /// Name of the listener.
    Listener(Matcher),
    /// Address of the client.
    Source(Source),
    /// `None`: anybody who authenticated; else the user's address.
    Authenticated(Option<Matcher>),
    /// Argument of HELO, EHLO or LHLO.
    Helo(Matcher),
    /// Envelope sender; the null reverse-path is the empty string.
    Sender(Matcher),
    /// Envelope recipient as it is at this rule.
    Recipient(Matcher),
    /// Domain of the recipient.
    RecipientDomain(Matcher),
    /// The recipient's domain is a MailDomain or an alias of one.
    RecipientDomainIsOurs,
}

/// A source criterion.
#[derive(Debug)]
pub enum Source {
    /// Every client, Unix-socket peers too.
    Any,
    /// A Unix-socket peer, or loopback where the listener says so.
    Local,
    /// One of these networks.
    Networks(NetworkList),
    /// Listed in a table, as an address or within a network.
    Table(String),
}

/// Compares a value with a list or a table.
#[derive(Debug)]
pub enum Matcher {
    /// One of these.
    Patterns(PatternList),
    /// A key of this table. An address is looked up as `user@domain`, without detail, `domain`, then `@domain`.
    Table(String),
}

/// One value to compare with, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// The same text.
    Exact(String),
    /// `*` stands for any run of characters, as in `*.example.org` or `*@example.org`.
    Wildcard(String),
}

/// What a rule does.
#[derive(Debug)]
pub enum Action {
    /// Ends the search: into a mailbox of ours.
    Deliver(Deliver),
    /// Ends the search: on to another server, by this transport, or by [`RuleSet::relay_transport`].
    Relay {
        /// Name of a MailTransport of kind relay.
        transport: Option<String>,
    },
    /// Ends the search with 5xx.
    Reject(Reply),
    /// Ends the search with 4xx.
    Defer(Reply),
    /// Goes on with one more tag.
    Tag(String),
    /// Goes on with another envelope sender (`None`: the null reverse-path).
    RewriteSender(Option<Address>),
    /// Goes on with the recipient replaced by what the alias table says, where it says something.
    Aliases {
        /// Name of a MailTable.
        table: String,
    },
}

/// How recipients of ours become deliveries.
#[derive(Debug, Default)]
pub struct Deliver {
    /// Name of a MailTransport; `None`: the one of the recipient's domain.
    pub transport: Option<String>,
    /// `None`: the directory (MailDomain, MailUser). Else a virtual map: `user@domain`, `user@domain` without detail,
    /// `@domain`; its values are addresses. What the map does not hold is an unknown user.
    pub virtual_table: Option<String>,
    /// Looked up before the directory: local aliases.
    pub alias_table: Option<String>,
}

/// One domain of ours.
#[derive(Debug)]
pub struct DomainRules {
    /// The primary name; aliases are rewritten to it.
    pub name: Domain,
    /// Name of the MailTransport of its mailboxes.
    pub transport: String,
    /// Takes what no user has.
    pub catch_all: Option<Address>,
    /// Characters that begin a detail; empty: none.
    pub delimiters: String,
    /// What a final transport sees as recipient.
    pub detail: Detail,
    /// Users that are not MailUser documents: a table whose rows hold `password`, and may hold `user`, `forward`.
    pub user_table: Option<String>,
    /// Addresses -> addresses, before users.
    pub alias_table: Option<String>,
}

/// What becomes of the detail of `user+detail@domain` when the mail is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Detail {
    /// The mailbox is given to the transport.
    #[default]
    Stripped,
    /// `user+detail@domain` is given to the transport.
    Kept,
}

/// One MailUser.
#[derive(Debug, Clone)]
pub struct User {
    /// Name of the resource.
    pub name: String,
    /// The mailbox: what LMTP sees.
    pub address: Address,
    /// Other addresses of the same mailbox.
    pub aliases: Vec<Address>,
    /// crypt(3) form, with or without Dovecot's `{SCHEME}`; `None`: cannot log in.
    pub password: Option<Secret>,
    /// Where mail is sent on to.
    pub forwards: Vec<Address>,
    /// With forwards: the mailbox gets a copy too.
    pub keep_copy: bool,
    /// May send as these too: addresses, or `*@domain`.
    pub send_as: Vec<Pattern>,
    /// Overrides the transport of the domain.
    pub transport: Option<String>,
    /// Cannot log in, gets no mail (550 5.2.1) while true.
    pub disabled: bool,
    /// Bytes, for `export dovecot`.
    pub quota_bytes: Option<u64>,
}

/// A text that does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself: for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// A named list or map.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "tables are few, and each lies behind an Arc")]
pub enum Table {
    /// Held in the snapshot.
    Static(StaticTable),
    /// Asked for by [`crate::Need`]; the shell looks it up.
    Sqlite(SqliteTable),
}

/// Rows of an inline, file, Secret or ConfigMap table. A list is a map without values.
#[derive(Debug, Default)]
pub struct StaticTable {
    /// Keys in lower case.
    pub exact: HashMap<String, Vec<String>>,
    wildcards: Vec<(Pattern, Vec<String>)>,
    networks: NetworkList,
    wildcard_index: PatternIndex,
}

impl StaticTable {
    /// Compiles rows: keys in lower case, keys with `*`, and those of the former that are addresses or networks.
    pub fn new(
        exact: HashMap<String, Vec<String>>,
        wildcards: Vec<(Pattern, Vec<String>)>,
        networks: Vec<IpNet>,
    ) -> Self {
        let wildcard_index = PatternIndex::new(wildcards.iter().map(|(pattern, _)| pattern).zip(0..));
        Self { exact, wildcards, networks: networks.into(), wildcard_index }
    }

    /// Rows whose keys have a `*`, in order.
    pub fn wildcards(&self) -> &[(Pattern, Vec<String>)] {
        &self.wildcards
    }

    /// Keys that are addresses or networks.
    pub fn networks(&self) -> &NetworkList {
        &self.networks
    }

    /// What the first wildcard says that matches one of the keys.
    pub(crate) fn find_wildcard(&self, keys: &[&str]) -> Option<&[String]> {
        let first = self.wildcard_index.first(keys.iter().copied())?;
        self.wildcards.get(first as usize).map(|(_, values)| values.as_slice())
    }
}

/// A query on a SQLite file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteTable {
    /// Absolute path.
    pub path: std::path::PathBuf,
    /// With Dovecot's variables: `%u` the whole key, `%n` before the `@`, `%d` behind it; they are bound, never pasted.
    pub query: String,
}

/// How a transport groups its recipients into routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteBy {
    /// One route: the transport's name.
    Transport,
    /// One route for each recipient domain.
    Domain,
}

/// Bounds of alias and forward expansion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpansionLimits {
    /// How often an address may be replaced: a longer chain is a loop.
    pub depth_max: usize,
    /// How many addresses one recipient may become: more is a mistake or an attack.
    pub results_max: usize,
}

impl Default for ExpansionLimits {
    fn default() -> Self {
        Self { depth_max: 10, results_max: 1000 }
    }
}
