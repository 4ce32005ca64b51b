//! Rules that cannot match are not tried: each rule has a guard, one of its criteria, and an index over all guards says
//! which rules are left for the facts at hand.
//!
//! The index may leave a rule in that does not match; it never leaves one out that does, that is undecided, or that would
//! ask a table outside. So a decision over what is left is the decision over all.

use crate::criteria::Subject;
use crate::decide::State;
use crate::keys::{Keys, lower};
use crate::lookups::Wildcards;
use crate::networks::NetworkIndex;
use crate::patterns::PatternIndex;
use crate::{Client, Criterion, Fact, Matcher, Pattern, Rule, Source, Table, Test};

/// Rules of a policy up to which trying each is faster. Tests go by the index always.
const TRIED_MAX: usize = if cfg!(test) { 0 } else { 16 };

/// A set of rules of one policy, by index.
#[derive(Debug, Clone, Default)]
pub(crate) struct RuleBits(Vec<u64>);

impl RuleBits {
    fn none(rules: usize) -> Self {
        Self(vec![0; rules.div_ceil(64)])
    }

    fn insert(&mut self, rule: u32) {
        if let Some(word) = self.0.get_mut(rule as usize / 64) {
            *word |= 1 << (rule % 64);
        }
    }

    fn insert_all(&mut self, others: &Self) {
        self.0.iter_mut().zip(&others.0).for_each(|(word, more)| *word |= more);
    }

    /// The first rule of the set from this index on.
    pub(crate) fn next(&self, from: usize) -> Option<usize> {
        let first = self.0.get(from / 64)? & (u64::MAX << (from % 64));
        let rest = self.0.iter().enumerate().skip(from / 64 + 1).map(|(at, word)| (at, *word));
        let (at, word) = std::iter::once((from / 64, first)).chain(rest).find(|(_, word)| *word != 0)?;
        Some(at * 64 + word.trailing_zeros() as usize)
    }
}

/// What a guard is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Subjects {
    Sender,
    Recipient,
    RecipientDomain,
    User,
    Helo,
    Listener,
    Tag,
    Source,
}

/// Patterns on one kind of fact.
#[derive(Debug, Default)]
struct Words {
    index: PatternIndex,
    /// All rules with such a guard, for a fact that comes later.
    all: RuleBits,
}

impl Words {
    fn new(rules: usize, guards: &[(u32, &Pattern)]) -> Self {
        let mut all = RuleBits::none(rules);
        guards.iter().for_each(|(rule, _)| all.insert(*rule));
        Self { index: PatternIndex::new(guards.iter().map(|(rule, pattern)| (*pattern, *rule))), all }
    }

    fn add<'t>(&self, texts: impl IntoIterator<Item = &'t str>, left: &mut RuleBits) {
        for text in texts {
            self.index.each(text, |rule| left.insert(rule));
        }
    }
}

/// Rules whose guard is a table: it is asked once for all of them.
#[derive(Debug)]
struct InTable {
    subject: Subjects,
    table: String,
    rules: RuleBits,
}

/// The index over the guards of one policy.
#[derive(Debug, Default)]
pub(crate) struct Guards {
    rules: usize,
    /// Rules without a guard.
    always: RuleBits,
    sender: Words,
    recipient: Words,
    domain: Words,
    user: Words,
    helo: Words,
    listener: Words,
    tag: Words,
    networks: NetworkIndex,
    /// Guarded by `authenticated: true`.
    authenticated: RuleBits,
    /// Guarded by `source: local`.
    local: RuleBits,
    /// Guarded by the recipient's domain being ours.
    ours: RuleBits,
    tables: Vec<InTable>,
}

/// How much is won by a guard: the fewer facts it lets pass, the better.
fn rank(criterion: &Criterion) -> Option<u8> {
    if criterion.negated {
        return None;
    }
    let of_patterns = |matcher: &Matcher| match matcher {
        Matcher::Table(_) => Some(2),
        Matcher::Patterns(patterns) => {
            let takes_all =
                |pattern: &Pattern| matches!(pattern, Pattern::Wildcard(text) if text.bytes().all(|b| b == b'*'));
            if patterns.iter().any(takes_all) {
                None
            } else {
                Some(u8::from(patterns.iter().any(|pattern| matches!(pattern, Pattern::Wildcard(_)))))
            }
        }
    };
    match &criterion.test {
        Test::Sender(matcher)
        | Test::Recipient(matcher)
        | Test::RecipientDomain(matcher)
        | Test::Helo(matcher)
        | Test::Authenticated(Some(matcher)) => of_patterns(matcher),
        Test::Source(Source::Networks(_)) => Some(0),
        Test::Source(Source::Table(_)) => Some(2),
        Test::Tagged(matcher) | Test::Listener(matcher) => of_patterns(matcher).map(|rank| rank + 3),
        Test::Authenticated(None) | Test::Source(Source::Local) | Test::RecipientDomainIsOurs => Some(6),
        Test::Source(Source::Any) => None,
    }
}

fn asks_table(test: &Test) -> bool {
    match test {
        Test::Tagged(matcher)
        | Test::Listener(matcher)
        | Test::Authenticated(Some(matcher))
        | Test::Helo(matcher)
        | Test::Sender(matcher)
        | Test::Recipient(matcher)
        | Test::RecipientDomain(matcher) => matches!(matcher, Matcher::Table(_)),
        Test::Source(source) => matches!(source, Source::Table(_)),
        Test::Authenticated(None) | Test::RecipientDomainIsOurs => false,
    }
}

/// The criterion by which a rule is found. What stands behind the first table cannot be it: were that table one outside, it
/// would not be asked where trying the rule asks it.
fn guard(rule: &Rule) -> Option<&Test> {
    let reach = rule.criteria.iter().position(|criterion| asks_table(&criterion.test)).map_or(usize::MAX, |at| at + 1);
    let ranked = rule.criteria.iter().take(reach).filter_map(|criterion| Some((rank(criterion)?, &criterion.test)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, test)| test)
}

/// The guards on words, while they are gathered.
#[derive(Default)]
struct Gathered<'a> {
    words: [Vec<(u32, &'a Pattern)>; 7],
}

impl Guards {
    /// `None`: the policy is so short that its rules are tried one by one.
    pub(crate) fn new(rules: &[Rule]) -> Option<Box<Self>> {
        #[allow(clippy::absurd_extreme_comparisons, reason = "0 in the tests: they try the index on every policy")]
        if rules.len() <= TRIED_MAX {
            return None;
        }
        let none = || RuleBits::none(rules.len());
        let mut guards = Self {
            rules: rules.len(),
            always: none(),
            authenticated: none(),
            local: none(),
            ours: none(),
            ..Self::default()
        };
        let mut gathered = Gathered::default();
        for (rule, at) in rules.iter().zip(0..) {
            guards.add(at, guard(rule), &mut gathered);
        }
        let words = |subject: Subjects| Words::new(rules.len(), &gathered.words[subject as usize]);
        guards.sender = words(Subjects::Sender);
        guards.recipient = words(Subjects::Recipient);
        guards.domain = words(Subjects::RecipientDomain);
        guards.user = words(Subjects::User);
        guards.helo = words(Subjects::Helo);
        guards.listener = words(Subjects::Listener);
        guards.tag = words(Subjects::Tag);
        Some(Box::new(guards))
    }

    fn add<'a>(&mut self, at: u32, guard: Option<&'a Test>, gathered: &mut Gathered<'a>) {
        let (subject, matcher) = match guard {
            None | Some(Test::Source(Source::Any)) => return self.always.insert(at),
            Some(Test::Authenticated(None)) => return self.authenticated.insert(at),
            Some(Test::RecipientDomainIsOurs) => return self.ours.insert(at),
            Some(Test::Source(Source::Local)) => return self.local.insert(at),
            Some(Test::Source(Source::Networks(networks))) => {
                return networks.iter().for_each(|network| self.networks.insert(network, at));
            }
            Some(Test::Source(Source::Table(table))) => return self.add_table(Subjects::Source, table, at),
            Some(Test::Sender(matcher)) => (Subjects::Sender, matcher),
            Some(Test::Recipient(matcher)) => (Subjects::Recipient, matcher),
            Some(Test::RecipientDomain(matcher)) => (Subjects::RecipientDomain, matcher),
            Some(Test::Authenticated(Some(matcher))) => (Subjects::User, matcher),
            Some(Test::Helo(matcher)) => (Subjects::Helo, matcher),
            Some(Test::Listener(matcher)) => (Subjects::Listener, matcher),
            Some(Test::Tagged(matcher)) => (Subjects::Tag, matcher),
        };
        match matcher {
            Matcher::Table(table) => self.add_table(subject, table, at),
            Matcher::Patterns(patterns) => {
                gathered.words[subject as usize].extend(patterns.iter().map(|pattern| (at, pattern)));
            }
        }
    }

    fn add_table(&mut self, subject: Subjects, table: &str, at: u32) {
        let known = self.tables.iter().position(|known| known.subject == subject && known.table == table);
        let known = known.unwrap_or_else(|| {
            self.tables.push(InTable { subject, table: table.to_owned(), rules: RuleBits::none(self.rules) });
            self.tables.len() - 1
        });
        self.tables[known].rules.insert(at);
    }

    /// The rules that are left for what is known.
    pub(crate) fn left(&self, subject: &Subject<'_>, state: &State<'_>) -> RuleBits {
        let mut left = self.always.clone();
        self.sender.add(state.sender_keys.all(), &mut left);
        self.recipient.add(state.recipient_keys.all(), &mut left);
        self.domain.add([state.recipient.domain().as_str()], &mut left);
        self.listener.add([&*lower(subject.facts.listener)], &mut left);
        match (&subject.facts.user, &subject.user_keys) {
            (Fact::Later, _) => {
                left.insert_all(&self.user.all);
                left.insert_all(&self.authenticated);
            }
            (Fact::Known(_), Some(keys)) => {
                self.user.add(keys.all(), &mut left);
                left.insert_all(&self.authenticated);
            }
            (Fact::Known(_), None) => {}
        }
        match &subject.helo {
            Some(helo) => self.helo.add([&*lower(helo)], &mut left),
            None => left.insert_all(&self.helo.all),
        }
        if subject.tables.rules.domains.contains_key(state.recipient.domain()) {
            left.insert_all(&self.ours);
        }
        match subject.facts.client {
            Client::Ip(ip) => {
                self.networks.each(ip.to_canonical(), |rule| left.insert(rule));
                left.insert_all(&self.local);
            }
            Client::Unix => left.insert_all(&self.local),
            Client::Unknown => {}
        }
        if subject.facts.tags_open {
            left.insert_all(&self.tag.all);
        }
        for tag in subject.tags(state) {
            self.tag.add([&*lower(tag)], &mut left);
        }
        for guard in &self.tables {
            if guard.may_hold(subject, state) {
                left.insert_all(&guard.rules);
            }
        }
        left
    }

    /// One more tag: more rules may match, none fewer.
    pub(crate) fn add_tag(&self, tag: &str, subject: &Subject<'_>, left: &mut RuleBits) {
        self.tag.add([&*lower(tag)], left);
        for guard in self.tables.iter().filter(|guard| guard.subject == Subjects::Tag) {
            if guard.holds_word(subject, tag) {
                left.insert_all(&guard.rules);
            }
        }
    }
}

impl InTable {
    /// False only where the table is in the snapshot and does not hold what is asked for.
    fn may_hold(&self, subject: &Subject<'_>, state: &State<'_>) -> bool {
        match self.subject {
            Subjects::Sender => self.holds_address(subject, &state.sender_keys),
            Subjects::Recipient => self.holds_address(subject, &state.recipient_keys),
            Subjects::RecipientDomain => self.holds_word(subject, state.recipient.domain().as_str()),
            Subjects::User => match (&subject.facts.user, &subject.user_keys) {
                (Fact::Later, _) => true,
                (Fact::Known(_), Some(keys)) => self.holds_address(subject, keys),
                (Fact::Known(_), None) => false,
            },
            Subjects::Helo => subject.helo.as_ref().is_none_or(|helo| self.holds_word(subject, helo)),
            Subjects::Listener => self.holds_word(subject, subject.facts.listener),
            Subjects::Tag => subject.facts.tags_open || subject.tags(state).any(|tag| self.holds_word(subject, tag)),
            Subjects::Source => match subject.facts.client {
                Client::Ip(ip) => {
                    !self.is_static(subject) || subject.tables.holds_ip(&self.table, ip.to_canonical()).unwrap_or(true)
                }
                Client::Unix | Client::Unknown => false,
            },
        }
    }

    fn is_static(&self, subject: &Subject<'_>) -> bool {
        let table = subject.tables.rules.tables.get(&self.table);
        table.is_some_and(|table| matches!(&**table, Table::Static(_)))
    }

    fn holds_address(&self, subject: &Subject<'_>, keys: &Keys) -> bool {
        let keys: Vec<&str> = keys.all().collect();
        self.holds(subject, &keys)
    }

    fn holds_word(&self, subject: &Subject<'_>, word: &str) -> bool {
        self.holds(subject, &[&word.to_lowercase()])
    }

    fn holds(&self, subject: &Subject<'_>, keys: &[&str]) -> bool {
        let found = || subject.tables.find(&self.table, keys, Wildcards::Tried);
        !self.is_static(subject) || found().map_or(true, |found| found.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_rule_is_found_across_words() {
        let mut bits = RuleBits::none(200);
        for rule in [0, 63, 64, 199] {
            bits.insert(rule);
        }
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(at) = bits.next(from) {
            found.push(at);
            from = at + 1;
        }
        assert_eq!(found, [0, 63, 64, 199]);
        assert_eq!(bits.next(200), None);
        assert_eq!(RuleBits::none(0).next(0), None);
    }
}
