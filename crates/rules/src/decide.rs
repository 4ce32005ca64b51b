//! The decision on one recipient: built-in steps, then rules in order.

use types::{Address, Class, Reply};

use crate::criteria::{Subject, Truth};
use crate::directory::may_send_as;
use crate::guards::RuleBits;
use crate::keys::{Keys, delimiters};
use crate::lookups::{Halt, Tables};
use crate::resolve::{Expansion, Foreign, Hop};
use crate::{
    Accepted, Action, Answer, Client, Deliver, Destination, Fact, Facts, LookupError, Lookups, Need, Policy, Recipient,
    Rule, RuleSet, Source, Step, Story, Test, replies,
};

/// How many ways of resolving what is undecided are followed; more is answered 451. Each undecided rule that goes on
/// (a tag, a rewritten sender) doubles the ways.
const WAYS_MAX: usize = 64;

/// Answers one recipient, or says which row of a table outside it needs first.
///
/// A lookup that failed is 451, never "no match". The same facts, rules and lookups give the same answer.
pub fn decide<S: Story>(rules: &RuleSet, facts: &Facts<'_>, lookups: &Lookups, story: &mut S) -> Result<Answer, Need> {
    let tables = Tables { rules, lookups };
    let answer = match begin(tables, facts, story) {
        Ok(outcome) => outcome.into_answer(),
        Err(Halt::Refuse(reply)) => Answer::Refuse(reply),
        Err(Halt::Lookup(LookupError::Need(need))) => return Err(need),
        Err(Halt::Lookup(LookupError::Failed { table, reason })) => {
            if S::TOLD {
                story.step("lookup", true, format!("table {table} cannot be used: {reason}"));
            }
            Answer::Refuse(replies::lookup_failed())
        }
    };
    if S::TOLD {
        tell_answer(&answer, story);
    }
    Ok(answer)
}

fn tell_answer<S: Story>(answer: &Answer, story: &mut S) {
    match answer {
        Answer::Refuse(reply) => story.step("answer", true, reply.to_string()),
        Answer::Accept(accepted) => {
            for d in &accepted.destinations {
                let sender = match &d.sender {
                    None => String::new(),
                    Some(None) => ", sender <>".to_owned(),
                    Some(Some(sender)) => format!(", sender {sender}"),
                };
                let text = format!("accept: to {} by transport {}, route {}{sender}", d.address, d.transport, d.route);
                story.step("answer", true, text);
            }
        }
    }
}

/// What a way through the rules came to: destinations, and the refusals of members of expansions.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) destinations: Vec<Destination>,
    refused: Vec<Reply>,
    tags: Vec<String>,
    rule: String,
    undecided: bool,
}

impl Outcome {
    fn refusal(reply: Reply, rule: &str) -> Self {
        Self { refused: vec![reply], rule: rule.to_owned(), ..Self::default() }
    }

    /// Why the whole is refused, if it is: nobody is left, or a member may be had later.
    fn refuses(&self) -> Option<&Reply> {
        let transient = self.refused.iter().find(|reply| reply.class() != Class::Permanent);
        transient.or_else(|| self.refused.first().filter(|_| self.destinations.is_empty()))
    }

    fn into_answer(mut self) -> Answer {
        if let Some(reply) = self.refuses() {
            return Answer::Refuse(reply.clone());
        }
        if self.destinations.is_empty() {
            // Expansions that came to nothing at all went round in a circle of copies.
            return Answer::Refuse(replies::endless_expansion());
        }
        let mut seen = std::collections::HashSet::new();
        self.destinations.retain(|d| seen.insert((d.address.key(), d.transport.clone(), d.sender.clone())));
        let mut tags = std::collections::HashSet::new();
        self.tags.retain(|tag| tags.insert(tag.clone()));
        Answer::Accept(Accepted {
            destinations: self.destinations,
            tags: self.tags,
            rule: self.rule,
            undecided: self.undecided,
            dropped: self.refused,
        })
    }

    /// Takes another member of the same expansion in.
    fn join(&mut self, other: Self) {
        if self.rule.is_empty() || self.destinations.is_empty() {
            self.rule = other.rule;
        }
        self.destinations.extend(other.destinations);
        self.refused.extend(other.refused);
        self.tags.extend(other.tags);
        self.undecided |= other.undecided;
    }
}

/// Where a way through the rules stands.
#[derive(Debug, Clone)]
pub(crate) struct State<'a> {
    /// Index of the next rule.
    at: usize,
    sender: Option<Address>,
    sender_rewritten: bool,
    pub(crate) sender_keys: Keys,
    pub(crate) recipient: Address,
    pub(crate) recipient_keys: Keys,
    /// Those that rules gave.
    pub(crate) tags: Vec<&'a str>,
    /// What the recipient was before alias rules.
    path: Vec<Hop>,
    /// Rules that may apply; `None`: each is tried.
    left: Option<RuleBits>,
}

fn begin<S: Story>(tables: Tables<'_>, facts: &Facts<'_>, story: &mut S) -> Result<Outcome, Halt> {
    let rules = tables.rules;
    if facts.internal {
        return internal(tables, facts, story);
    }
    let Some(listener) = rules.listeners.get(facts.listener) else {
        tell(story, "listener", true, || format!("there is no listener {}", facts.listener));
        return Err(Halt::Refuse(replies::no_listener()));
    };
    if listener.auth_required && facts.user == Fact::Known(None) {
        tell(story, "authentication", true, || "the listener takes nothing from who has not authenticated".to_owned());
        return Err(Halt::Refuse(replies::authentication_required()));
    }
    if let (true, Fact::Known(Some(user)), Some(sender)) = (listener.hold_to_own_addresses, facts.user, facts.sender) {
        let own = may_send_as(rules, tables.lookups, user, sender)?;
        let is = if own { "is" } else { "is not" };
        tell(story, "own addresses", !own, || format!("sender {sender} {is} an address of {user}"));
        if !own {
            return Err(Halt::Refuse(replies::not_own_address()));
        }
    }
    if let Some(outcome) = postmaster(tables, facts, story)? {
        return Ok(with_tags(outcome, listener.tags.iter().chain(facts.tags)));
    }
    let Recipient::Address(recipient) = facts.recipient else {
        return Err(Halt::Refuse(replies::faulty_configuration()));
    };
    let state = State {
        at: 0,
        sender: facts.sender.cloned(),
        sender_rewritten: false,
        sender_keys: Keys::new(rules, facts.sender),
        recipient: recipient.clone(),
        recipient_keys: Keys::new(rules, Some(recipient)),
        tags: Vec::new(),
        path: Vec::new(),
        left: None,
    };
    let subject = Subject::new(tables, facts, listener);
    let mut walk = Walk { tables, facts, subject, delivered_to: recipient, story, ways: 1, expanded: 0 };
    walk.begin(state, &listener.policy)
}

fn with_tags<'a>(mut outcome: Outcome, tags: impl Iterator<Item = &'a String>) -> Outcome {
    outcome.tags = tags.cloned().collect();
    outcome
}

/// A report of ours: recipients of ours by the directory, all others by the relay transport.
fn internal<S: Story>(tables: Tables<'_>, facts: &Facts<'_>, story: &mut S) -> Result<Outcome, Halt> {
    if let Some(outcome) = postmaster(tables, facts, story)? {
        return Ok(outcome);
    }
    let Recipient::Address(recipient) = facts.recipient else {
        return Err(Halt::Refuse(replies::faulty_configuration()));
    };
    tell(story, "internal", true, || "a report of ours is routed without rules".to_owned());
    resolve_plainly(tables, recipient, recipient, "internal", story)
}

/// By directory and relay transport, without rules.
fn resolve_plainly<S: Story>(
    tables: Tables<'_>,
    recipient: &Address,
    delivered_to: &Address,
    rule: &str,
    story: &mut S,
) -> Result<Outcome, Halt> {
    let deliver = Deliver::default();
    let mut expansion = Expansion::new(tables, &deliver, recipient, Foreign::Relay, story);
    expansion.resolve(recipient)?;
    let (found, refused) = expansion.into_parts();
    let destinations = destinations(tables.rules, found, delivered_to, None)?;
    Ok(Outcome { destinations, refused, rule: rule.to_owned(), ..Outcome::default() })
}

/// RFC 5321 section 4.5.1: postmaster is always taken, and so is abuse (RFC 2142) at every domain of ours.
///
/// A MailUser that has the address as its own gets it; else it goes to the platform's postmaster. Where that cannot be
/// resolved either, it goes to that mailbox unseen: nothing refuses it.
fn postmaster<S: Story>(tables: Tables<'_>, facts: &Facts<'_>, story: &mut S) -> Result<Option<Outcome>, Halt> {
    const RULE: &str = "postmaster";
    let rules = tables.rules;
    let written = match facts.recipient {
        Recipient::Postmaster => None,
        Recipient::Address(address) => {
            let Some(domain) = rules.domains.get(address.domain()) else { return Ok(None) };
            let base = address.split_detail(delimiters(rules, address)).map(|(base, _)| base);
            let local = base.as_ref().unwrap_or(address).local();
            if !local.eq_ignore_ascii_case("postmaster") && !local.eq_ignore_ascii_case("abuse") {
                return Ok(None);
            }
            let own = rules.users.get(&address.with_domain(domain.name.clone()).key());
            if own.is_some_and(|user| !user.disabled) {
                tell(story, RULE, true, || format!("{address} is always taken, and a user has it"));
                if let Some(outcome) = taken(resolve_plainly(tables, address, address, RULE, story))? {
                    return Ok(Some(outcome));
                }
            }
            Some(address)
        }
    };
    let Some(target) = rules.postmaster.as_ref().or(written) else {
        tell(story, RULE, true, || "the platform names no postmaster".to_owned());
        return Err(Halt::Refuse(replies::faulty_configuration()));
    };
    tell(story, RULE, true, || format!("always taken, goes to {target}"));
    let delivered_to = written.unwrap_or(target);
    if let Some(outcome) = taken(resolve_plainly(tables, target, delivered_to, RULE, story))? {
        return Ok(Some(outcome));
    }
    tell(story, RULE, true, || format!("{target} is nobody: into the mailbox of that name"));
    let transport = rules.domains.get(target.domain()).map_or(&rules.relay_transport, |domain| &domain.transport);
    let destinations = destinations(rules, vec![(target.clone(), transport.as_str())], delivered_to, None)?;
    Ok(Some(Outcome { destinations, rule: RULE.to_owned(), ..Outcome::default() }))
}

/// `None` where the outcome is a permanent refusal: nobody, a disabled user, a loop.
fn taken(result: Result<Outcome, Halt>) -> Result<Option<Outcome>, Halt> {
    match result {
        Ok(outcome) if outcome.refuses().is_some_and(|reply| reply.class() == Class::Permanent) => Ok(None),
        Err(Halt::Refuse(reply)) if reply.class() == Class::Permanent => Ok(None),
        other => other.map(Some),
    }
}

struct Walk<'a, S> {
    tables: Tables<'a>,
    facts: &'a Facts<'a>,
    subject: Subject<'a>,
    delivered_to: &'a Address,
    story: &'a mut S,
    ways: usize,
    /// Recipients that alias rules made.
    expanded: usize,
}

impl<'a, S: Story> Walk<'a, S> {
    fn begin(&mut self, mut state: State<'a>, policy: &'a Policy) -> Result<Outcome, Halt> {
        self.narrow(&mut state, policy);
        self.through(state, policy)
    }

    /// Finds out which rules may apply to the state. Who listens hears of every rule, so each is tried.
    fn narrow(&self, state: &mut State<'a>, policy: &Policy) {
        let guards = policy.guards().filter(|_| !S::TOLD);
        state.left = guards.map(|guards| guards.left(&self.subject, state));
    }

    fn through(&mut self, mut state: State<'a>, policy: &'a Policy) -> Result<Outcome, Halt> {
        loop {
            let at = state.left.as_ref().map_or(Some(state.at), |left| left.next(state.at));
            let Some((at, rule)) = at.and_then(|at| Some((at, policy.rules().get(at)?))) else { break };
            state.at = at + 1;
            let (truth, decided_by) = self.subject.test_rule(rule, &state)?;
            if S::TOLD {
                let reason = self.subject.describe(rule, &state, truth, decided_by);
                self.story.step(&rule.name, truth == Truth::Yes, reason);
            }
            match truth {
                Truth::No => {}
                Truth::Yes => {
                    if let Some(outcome) = self.act(rule, &mut state, policy)? {
                        return Ok(outcome);
                    }
                }
                Truth::Later | Truth::Never => return self.both_ways(rule, state, policy, truth),
            }
        }
        self.nothing_matched(&state)
    }

    /// A rule of which it is not known whether it applies: with it and without it.
    fn both_ways(
        &mut self,
        rule: &'a Rule,
        state: State<'a>,
        policy: &'a Policy,
        truth: Truth,
    ) -> Result<Outcome, Halt> {
        self.ways += 1;
        if self.ways > WAYS_MAX {
            tell(self.story, &rule.name, false, || "too much is undecided".to_owned());
            return Err(Halt::Refuse(replies::faulty_configuration()));
        }
        let mut with = state.clone();
        let applied = match refusal_of(self.act(rule, &mut with, policy))? {
            Some(outcome) => outcome,
            None => refused_outcome(self.through(with, policy))?,
        };
        if truth == Truth::Never && applied.refuses().is_some() {
            return Ok(applied);
        }
        if truth == Truth::Later && applied.refuses().is_none() {
            return Ok(Outcome { undecided: true, ..applied });
        }
        let skipped = refused_outcome(self.through(state, policy))?;
        if truth == Truth::Never {
            return Ok(skipped);
        }
        // Later, and the rule refuses: without it may still accept. Of two refusals the one that lets try again wins.
        let transient = |o: &Outcome| o.refuses().is_some_and(|reply| reply.class() != Class::Permanent);
        match skipped.refuses() {
            None => Ok(Outcome { undecided: true, ..skipped }),
            Some(_) if transient(&skipped) && !transient(&applied) => Ok(skipped),
            Some(_) => Ok(applied),
        }
    }

    /// Does what the rule says: an outcome ends the search, `None` goes on with the changed state.
    fn act(&mut self, rule: &'a Rule, state: &mut State<'a>, policy: &'a Policy) -> Result<Option<Outcome>, Halt> {
        match &rule.action {
            Action::Reject(reply) | Action::Defer(reply) => Ok(Some(Outcome::refusal(reply.clone(), &rule.name))),
            Action::Tag(tag) => {
                state.tags.push(tag);
                if let (Some(left), Some(guards)) = (&mut state.left, policy.guards()) {
                    guards.add_tag(tag, &self.subject, left);
                }
                Ok(None)
            }
            Action::RewriteSender(sender) => {
                state.sender_keys = Keys::new(self.tables.rules, sender.as_ref());
                state.sender.clone_from(sender);
                state.sender_rewritten = true;
                self.narrow(state, policy);
                Ok(None)
            }
            Action::Aliases { table } => self.aliases(table, state, policy),
            Action::Relay { transport } => self.relay(rule, transport.as_deref(), state).map(Some),
            Action::Deliver(deliver) => self.deliver(rule, deliver, state).map(Some),
        }
    }

    fn aliases(&mut self, table: &str, state: &State<'a>, policy: &'a Policy) -> Result<Option<Outcome>, Halt> {
        let deliver = Deliver::default();
        let mut quiet: Vec<Step> = Vec::new();
        let expansion = Expansion::new(self.tables, &deliver, &state.recipient, Foreign::Relay, &mut quiet);
        let Some(values) = expansion.alias_values(table, &state.recipient)? else { return Ok(None) };
        let key = state.recipient.key();
        let names_itself = values.iter().any(|value| value.key() == key);
        if names_itself && values.len() == 1 {
            return Ok(None);
        }
        tell(self.story, &format!("table {table}"), true, || {
            let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
            format!("{} becomes {}", state.recipient, texts.join(", "))
        });
        let limits = self.tables.rules.limits;
        self.expanded += values.len();
        if state.path.len() >= limits.depth_max || self.expanded > limits.results_max {
            return Err(Halt::Refuse(replies::endless_expansion()));
        }
        let mut outcome = Outcome::default();
        for value in values {
            let mut next = state.clone();
            if value.key() != key {
                match next.path.iter().find(|hop| hop.key == value.key()) {
                    Some(hop) if hop.keeps_copy => continue,
                    Some(_) => return Err(Halt::Refuse(replies::endless_expansion())),
                    None => {}
                }
                next.path.push(Hop { key: key.clone(), keeps_copy: names_itself });
                next.recipient_keys = Keys::new(self.tables.rules, Some(&value));
                next.recipient = value;
                self.narrow(&mut next, policy);
            }
            outcome.join(self.through(next, policy)?);
        }
        Ok(Some(outcome))
    }

    fn relay(&mut self, rule: &Rule, transport: Option<&str>, state: &State<'a>) -> Result<Outcome, Halt> {
        // hostile-input S14: a route hidden in the local part is not taken from just anybody, for the next host may follow it.
        if hides_a_route(&state.recipient) && !authorised(rule, self.facts) {
            tell(self.story, &rule.name, true, || "the local part hides a route, and nobody vouches for it".to_owned());
            return Ok(Outcome::refusal(replies::relaying_denied(), &rule.name));
        }
        let transport = transport.unwrap_or(&self.tables.rules.relay_transport);
        self.finish(vec![(state.recipient.clone(), transport)], Vec::new(), &rule.name, state)
    }

    fn deliver(&mut self, rule: &Rule, deliver: &'a Deliver, state: &State<'a>) -> Result<Outcome, Halt> {
        let foreign = if state.path.is_empty() { Foreign::Refuse } else { Foreign::Relay };
        let mut expansion = Expansion::new(self.tables, deliver, &state.recipient, foreign, self.story);
        expansion.path.clone_from(&state.path);
        expansion.resolve(&state.recipient)?;
        let (found, refused) = expansion.into_parts();
        self.finish(found, refused, &rule.name, state)
    }

    fn nothing_matched(&mut self, state: &State<'a>) -> Result<Outcome, Halt> {
        const RULE: &str = "nothing matched";
        let rules = self.tables.rules;
        if !state.path.is_empty() && !rules.domains.contains_key(state.recipient.domain()) {
            tell(self.story, RULE, true, || format!("{} is where an alias of ours leads", state.recipient));
            let found = vec![(state.recipient.clone(), rules.relay_transport.as_str())];
            return self.finish(found, Vec::new(), RULE, state);
        }
        tell(self.story, RULE, true, || "no rule accepts it".to_owned());
        Ok(Outcome::refusal(replies::relaying_denied(), RULE))
    }

    fn finish(
        &self,
        found: Vec<(Address, &str)>,
        refused: Vec<Reply>,
        rule: &str,
        state: &State<'a>,
    ) -> Result<Outcome, Halt> {
        let sender = state.sender_rewritten.then(|| state.sender.clone());
        let destinations = destinations(self.tables.rules, found, self.delivered_to, sender.as_ref())?;
        let tags = self.subject.tags(state).map(str::to_owned).collect();
        Ok(Outcome { destinations, refused, tags, rule: rule.to_owned(), undecided: false })
    }
}

/// A refusal that would end the decision is, on one of several ways, only the end of this way.
fn refused_outcome(result: Result<Outcome, Halt>) -> Result<Outcome, Halt> {
    match result {
        Err(Halt::Refuse(reply)) => Ok(Outcome::refusal(reply, "refused")),
        other => other,
    }
}

fn refusal_of(result: Result<Option<Outcome>, Halt>) -> Result<Option<Outcome>, Halt> {
    match result {
        Err(Halt::Refuse(reply)) => Ok(Some(Outcome::refusal(reply, "refused"))),
        other => other,
    }
}

fn destinations(
    rules: &RuleSet,
    found: Vec<(Address, &str)>,
    delivered_to: &Address,
    sender: Option<&Option<Address>>,
) -> Result<Vec<Destination>, Halt> {
    let one = |(address, transport): (Address, &str)| {
        let by = rules.transports.get(transport).ok_or_else(|| Halt::Refuse(replies::faulty_configuration()))?;
        let route = match by {
            crate::RouteBy::Transport => transport.to_owned(),
            crate::RouteBy::Domain => address.domain().as_str().to_owned(),
        };
        let delivered_to = delivered_to.clone();
        Ok(Destination { address, transport: transport.to_owned(), route, delivered_to, sender: sender.cloned() })
    };
    found.into_iter().map(one).collect()
}

/// Whether the local part names another host, as in `user%dom@us`, `dom!user@us` or `"user@dom"@us`.
pub(crate) fn hides_a_route(address: &Address) -> bool {
    address.local().contains(['%', '!', '@'])
}

/// Whether somebody vouches for the client: it authenticated, or the rule names where it comes from (invariant 8).
fn authorised(rule: &Rule, facts: &Facts<'_>) -> bool {
    let by_source = |test: &Test| matches!(test, Test::Source(source) if !matches!(source, Source::Any));
    let named = rule.criteria.iter().any(|criterion| !criterion.negated && by_source(&criterion.test));
    matches!(facts.user, Fact::Known(Some(_))) || (named && facts.client != Client::Unknown)
}

/// Makes the text of a step only where somebody listens.
pub(crate) fn tell<S: Story>(story: &mut S, rule: &str, matched: bool, reason: impl FnOnce() -> String) {
    if S::TOLD {
        story.step(rule, matched, reason());
    }
}
