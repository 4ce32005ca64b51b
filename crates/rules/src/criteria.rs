//! Whether a rule applies to what is known.

use types::Domain;

use crate::decide::State;
use crate::keys::{Keys, lower};
use crate::lookups::{Tables, Wildcards};
use crate::{Client, Criterion, Fact, Facts, ListenerRules, LookupError, Matcher, Pattern, Rule, Source, Test};

/// What is said of a criterion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Truth {
    Yes,
    No,
    /// A fact may come later: refused only if every way of resolving it refuses.
    Later,
    /// A fact will never be known: accepted only if every way of resolving it accepts.
    Never,
}

impl std::ops::Not for Truth {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            open => open,
        }
    }
}

/// What criteria are held against.
pub(crate) struct Subject<'a> {
    pub(crate) tables: Tables<'a>,
    pub(crate) facts: &'a Facts<'a>,
    pub(crate) listener: &'a ListenerRules,
    pub(crate) user_keys: Option<Keys>,
    pub(crate) helo: Option<String>,
}

impl<'a> Subject<'a> {
    pub(crate) fn new(tables: Tables<'a>, facts: &'a Facts<'a>, listener: &'a ListenerRules) -> Self {
        let user_keys = match facts.user {
            Fact::Known(Some(user)) => Some(Keys::new(tables.rules, Some(user))),
            _ => None,
        };
        let helo = match facts.helo {
            Fact::Known(helo) => Some(helo.to_lowercase()),
            Fact::Later => None,
        };
        Self { tables, facts, listener, user_keys, helo }
    }

    /// All criteria together; the first that does not hold ends it, so that no table is asked in vain.
    pub(crate) fn test_rule(&self, rule: &Rule, state: &State<'_>) -> Result<(Truth, usize), LookupError> {
        let mut truth = Truth::Yes;
        let mut decided_by = 0;
        for (i, criterion) in rule.criteria.iter().enumerate() {
            match self.test(criterion, state)? {
                Truth::Yes => {}
                Truth::No => return Ok((Truth::No, i)),
                // Never outweighs Later: it refuses in doubt.
                open if truth != Truth::Never => (truth, decided_by) = (open, i),
                _ => {}
            }
        }
        Ok((truth, decided_by))
    }

    fn test(&self, criterion: &Criterion, state: &State<'_>) -> Result<Truth, LookupError> {
        if let Test::Source(source) = &criterion.test
            && self.facts.client == Client::Unknown
            && !matches!(source, Source::Any)
        {
            // Architecture, invariant 8: what rests on the address is off. Turned round it must not fail open either.
            return Ok(if criterion.negated { Truth::Never } else { Truth::No });
        }
        let truth = match &criterion.test {
            Test::Tagged(matcher) => self.tagged(matcher, state)?,
            Test::Listener(matcher) => self.word(matcher, self.facts.listener)?,
            Test::Source(source) => yes(self.source(source)?),
            Test::Authenticated(matcher) => self.authenticated(matcher.as_ref())?,
            Test::Helo(matcher) => match &self.helo {
                Some(helo) => self.word(matcher, helo)?,
                None => Truth::Later,
            },
            Test::Sender(matcher) => self.address(matcher, &state.sender_keys)?,
            Test::Recipient(matcher) => self.address(matcher, &state.recipient_keys)?,
            Test::RecipientDomain(matcher) => self.domain(matcher, state.recipient.domain())?,
            Test::RecipientDomainIsOurs => yes(self.tables.rules.domains.contains_key(state.recipient.domain())),
        };
        Ok(if criterion.negated { !truth } else { truth })
    }

    fn tagged(&self, matcher: &Matcher, state: &State<'_>) -> Result<Truth, LookupError> {
        for tag in self.tags(state) {
            if self.word(matcher, tag)? == Truth::Yes {
                return Ok(Truth::Yes);
            }
        }
        Ok(if self.facts.tags_open { Truth::Later } else { Truth::No })
    }

    /// The tags of the listener, of the facts and of the rules that were passed.
    pub(crate) fn tags<'b>(&'b self, state: &'b State<'_>) -> impl Iterator<Item = &'b str> {
        let given = self.listener.tags.iter().chain(self.facts.tags);
        given.map(String::as_str).chain(state.tags.iter().copied())
    }

    fn source(&self, source: &Source) -> Result<bool, LookupError> {
        let ip = match self.facts.client {
            Client::Ip(ip) => ip.to_canonical(),
            Client::Unix => return Ok(matches!(source, Source::Any | Source::Local)),
            Client::Unknown => return Ok(matches!(source, Source::Any)),
        };
        match source {
            Source::Any => Ok(true),
            Source::Local => Ok(self.listener.loopback_is_local && ip.is_loopback()),
            Source::Networks(networks) => Ok(networks.contains(ip)),
            Source::Table(table) => self.tables.holds_ip(table, ip),
        }
    }

    fn authenticated(&self, matcher: Option<&Matcher>) -> Result<Truth, LookupError> {
        match (&self.facts.user, &self.user_keys, matcher) {
            (Fact::Later, _, _) => Ok(Truth::Later),
            (Fact::Known(_), None, _) => Ok(Truth::No),
            (Fact::Known(_), Some(_), None) => Ok(Truth::Yes),
            (Fact::Known(_), Some(keys), Some(matcher)) => self.address(matcher, keys),
        }
    }

    fn word(&self, matcher: &Matcher, word: &str) -> Result<Truth, LookupError> {
        match matcher {
            Matcher::Patterns(patterns) => {
                let word = lower(word);
                Ok(yes(patterns.matches(std::iter::once(&*word))))
            }
            Matcher::Table(table) => {
                Ok(yes(self.tables.find(table, &[&word.to_lowercase()], Wildcards::Tried)?.is_some()))
            }
        }
    }

    fn domain(&self, matcher: &Matcher, domain: &Domain) -> Result<Truth, LookupError> {
        self.word(matcher, domain.as_str())
    }

    fn address(&self, matcher: &Matcher, keys: &Keys) -> Result<Truth, LookupError> {
        match matcher {
            Matcher::Patterns(patterns) => Ok(yes(patterns.matches(keys.all()))),
            Matcher::Table(table) => {
                let keys: Vec<&str> = keys.all().collect();
                Ok(yes(self.tables.find(table, &keys, Wildcards::Tried)?.is_some()))
            }
        }
    }

    /// Why a rule applied, or why not, for people.
    pub(crate) fn describe(&self, rule: &Rule, state: &State<'_>, truth: Truth, decided_by: usize) -> String {
        let each = |criterion: &Criterion, truth: Truth| {
            let verb = match (&criterion.test, truth == Truth::Yes, criterion.negated) {
                (_, false, _) if truth != Truth::No => "may be",
                (Test::Tagged(_), yes, negated) => {
                    if yes != negated {
                        "hold"
                    } else {
                        "do not hold"
                    }
                }
                (_, yes, negated) => {
                    if yes != negated {
                        "is"
                    } else {
                        "is not"
                    }
                }
            };
            format!("{} {verb} {}", self.subject(&criterion.test, state), target(&criterion.test))
        };
        let decisive = || rule.criteria.get(decided_by).map(|criterion| each(criterion, truth)).unwrap_or_default();
        match truth {
            Truth::Yes if rule.criteria.is_empty() => "it has no criteria".to_owned(),
            Truth::Yes => rule.criteria.iter().map(|c| each(c, truth)).collect::<Vec<_>>().join(", "),
            Truth::No => decisive(),
            Truth::Later => format!("undecided until more is known: {}", decisive()),
            Truth::Never => format!("decided by nothing but an address that is not known: {}", decisive()),
        }
    }

    fn subject(&self, test: &Test, state: &State<'_>) -> String {
        match test {
            Test::Tagged(_) => {
                let tags: Vec<&str> = self.tags(state).collect();
                format!("tags [{}]", tags.join(", "))
            }
            Test::Listener(_) => format!("listener {}", self.facts.listener),
            Test::Source(_) => match self.facts.client {
                Client::Ip(ip) => format!("client {ip}"),
                Client::Unix => "client on a Unix socket".to_owned(),
                Client::Unknown => "client with an unknown address".to_owned(),
            },
            Test::Authenticated(_) => match self.facts.user {
                Fact::Known(Some(user)) => format!("user {user}"),
                Fact::Known(None) => "session without authentication".to_owned(),
                Fact::Later => "authentication, not known yet,".to_owned(),
            },
            Test::Helo(_) => format!("HELO {}", self.helo.as_deref().unwrap_or("not known yet")),
            Test::Sender(_) => format!("sender <{}>", state.sender_keys.full),
            Test::Recipient(_) => format!("recipient <{}>", state.recipient_keys.full),
            Test::RecipientDomain(_) | Test::RecipientDomainIsOurs => {
                format!("recipient domain {}", state.recipient.domain())
            }
        }
    }
}

/// What a criterion asks for.
fn target(test: &Test) -> String {
    match test {
        Test::Tagged(m)
        | Test::Listener(m)
        | Test::Authenticated(Some(m))
        | Test::Helo(m)
        | Test::Sender(m)
        | Test::Recipient(m)
        | Test::RecipientDomain(m) => matcher_text(m),
        Test::Authenticated(None) => "authenticated".to_owned(),
        Test::RecipientDomainIsOurs => "one of ours".to_owned(),
        Test::Source(Source::Any) => "any".to_owned(),
        Test::Source(Source::Local) => "local".to_owned(),
        Test::Source(Source::Networks(networks)) => {
            format!("in {}", networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        }
        Test::Source(Source::Table(table)) => format!("in table {table}"),
    }
}

fn matcher_text(matcher: &Matcher) -> String {
    match matcher {
        Matcher::Table(table) => format!("in table {table}"),
        Matcher::Patterns(patterns) => {
            let texts = patterns.iter().map(|pattern| match pattern {
                Pattern::Exact(text) | Pattern::Wildcard(text) if text.is_empty() => "<>",
                Pattern::Exact(text) | Pattern::Wildcard(text) => text.as_str(),
            });
            let texts: Vec<&str> = texts.collect();
            format!("{}{}", if texts.len() > 1 { "one of " } else { "" }, texts.join(", "))
        }
    }
}

fn yes(holds: bool) -> Truth {
    if holds { Truth::Yes } else { Truth::No }
}
