//! From an address of ours to where its mail is delivered: aliases, virtual maps, users, forwards.

use std::collections::HashSet;

use types::{Address, Reply};

use crate::decide::{hides_a_route, tell};
use crate::directory::{Entry, find_entry, parse_values};
use crate::keys::{DELIMITERS_DEFAULT, delimiters};
use crate::lookups::{Halt, Tables, Wildcards};
use crate::{Deliver, Detail, DomainRules, LookupError, Story, replies};

/// How many addresses may be visited for each result that is allowed: lists of lists of the same addresses are walked once,
/// but even that has an end.
const VISITS_PER_RESULT_MAX: usize = 4;

/// What becomes of an address that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// It was written to by the client: not ours to deliver.
    Refuse,
    /// It goes on by the relay transport.
    Relay,
}

/// An address that was replaced on the way.
#[derive(Debug, Clone)]
pub(crate) struct Hop {
    pub(crate) key: String,
    /// Its mailbox gets a copy: coming back to it is no loop.
    pub(crate) keeps_copy: bool,
}

/// The expansion of one recipient.
pub(crate) struct Expansion<'a, 's, S> {
    tables: Tables<'a>,
    deliver: &'a Deliver,
    /// The rule's transport is for mailboxes of the domain that was written to.
    written: Address,
    foreign: Foreign,
    pub(crate) path: Vec<Hop>,
    visited: HashSet<String>,
    found: Vec<(Address, &'a str)>,
    refused: Vec<Reply>,
    story: &'s mut S,
    /// The virtual map held the recipient: what it leads to need not be a key of it.
    in_map: bool,
}

impl<'a, 's, S: Story> Expansion<'a, 's, S> {
    pub(crate) fn new(
        tables: Tables<'a>,
        deliver: &'a Deliver,
        written: &Address,
        foreign: Foreign,
        story: &'s mut S,
    ) -> Self {
        let (path, visited) = (Vec::new(), HashSet::new());
        let written = written.clone();
        Self {
            tables,
            deliver,
            written,
            foreign,
            path,
            visited,
            found: Vec::new(),
            refused: Vec::new(),
            story,
            in_map: false,
        }
    }

    /// Mailboxes with their transports, and the replies to members that are refused.
    pub(crate) fn into_parts(self) -> (Vec<(Address, &'a str)>, Vec<Reply>) {
        (self.found, self.refused)
    }

    /// Expands an address to mailboxes and foreign addresses.
    pub(crate) fn resolve(&mut self, address: &Address) -> Result<(), Halt> {
        let domain = self.tables.rules.domains.get(address.domain()).map(|domain| &**domain);
        let primary = domain.map_or_else(|| address.clone(), |domain| address.with_domain(domain.name.clone()));
        let key = primary.key();
        if self.comes_back(&key)? || !self.visit(&key)? {
            return Ok(());
        }
        let own_aliases = self.deliver.alias_table.as_deref();
        let aliases = own_aliases.into_iter().chain(domain.and_then(|domain| domain.alias_table.as_deref()));
        for table in aliases {
            let Some(values) = self.alias_values(table, address)? else { continue };
            let same = |value: &Address| value.key() == key || value.key() == address.key();
            let names_itself = values.iter().any(same);
            self.tell_expansion(&format!("table {table}"), address, &values);
            let others: Vec<Address> = values.into_iter().filter(|value| !same(value)).collect();
            self.follow(&key, names_itself, &others)?;
            if !names_itself {
                return Ok(());
            }
        }
        match (self.deliver.virtual_table.as_deref(), domain) {
            (Some(table), _) if self.is_virtual(&primary) => self.by_virtual_map(table, address, domain),
            (_, Some(domain)) => self.by_directory(address, &primary, domain),
            (_, None) => self.foreign_address(address),
        }
    }

    /// What an alias table makes of an address: `user@domain`, without detail, then, at a domain of ours, the local part alone.
    pub(crate) fn alias_values(&self, table: &str, address: &Address) -> Result<Option<Vec<Address>>, LookupError> {
        let rules = self.tables.rules;
        let domain = rules.domains.get(address.domain());
        let bare = address.split_detail(delimiters(rules, address)).map(|(base, _)| base);
        let mut keys = vec![address.key()];
        let mut add = |key: String| {
            if !keys.contains(&key) {
                keys.push(key);
            }
        };
        for form in std::iter::once(address).chain(&bare) {
            add(form.key());
            if let Some(domain) = domain {
                add(form.with_domain(domain.name.clone()).key());
            }
        }
        // An `@` in the local part would turn it into another address.
        if domain.is_some() && !hides_a_route(address) {
            add(address.local().to_lowercase());
            if let Some(bare) = &bare {
                add(bare.local().to_lowercase());
            }
        }
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let Some(found) = self.tables.find(table, &keys, wildcards(address))? else { return Ok(None) };
        let values = parse_values(table, &found.values(), address.domain())?;
        Ok(Some(values).filter(|values| !values.is_empty()))
    }

    /// The virtual map is asked for what was written to; where it leads to a MailUser, the directory is.
    fn is_virtual(&self, address: &Address) -> bool {
        !self.in_map || !self.tables.rules.users.contains_key(&address.key())
    }

    fn by_virtual_map(&mut self, table: &str, address: &Address, domain: Option<&'a DomainRules>) -> Result<(), Halt> {
        let rules = self.tables.rules;
        let delimiters = domain.map_or(DELIMITERS_DEFAULT, |domain| domain.delimiters.as_str());
        let bare = address.split_detail(delimiters);
        let full_key = address.key();
        let primary_key = domain.map(|d| address.with_domain(d.name.clone()).key()).filter(|key| *key != full_key);
        let bare_key = bare.as_ref().map(|(base, _)| base.key());
        let at_domain = format!("@{}", address.domain());
        let catch_all = (!hides_a_route(address)).then_some(at_domain.as_str());
        let keys = [Some(full_key.as_str()), primary_key.as_deref(), bare_key.as_deref(), catch_all];
        let keys: Vec<&str> = keys.into_iter().flatten().collect();
        let Some(found) = self.tables.find(table, &keys, wildcards(address))? else {
            return if !self.in_map {
                tell(self.story, &format!("table {table}"), false, || format!("does not hold {address}"));
                self.refuse(unknown(address))
            } else {
                self.end_of_virtual_map(address, domain)
            };
        };
        self.in_map = true;
        let values = parse_values(table, &found.values(), address.domain())?;
        self.tell_expansion(&format!("table {table}"), address, &values);
        let same = |value: &Address| {
            let key = value.key();
            key == full_key || Some(&key) == primary_key.as_ref() || Some(&key) == bare_key.as_ref()
        };
        let path_key = domain.map_or_else(|| full_key.clone(), |d| address.with_domain(d.name.clone()).key());
        let names_itself = values.iter().any(same);
        let others: Vec<Address> = values.iter().filter(|value| !same(value)).cloned().collect();
        self.follow(&path_key, names_itself, &others)?;
        if let Some(own) = values.iter().find(|value| same(value)) {
            let detail = bare.as_ref().filter(|_| own.key() != full_key).map(|(base, _)| cut(address, base));
            let transport = self.transport_of(rules.domains.get(own.domain()).map(|d| &**d), None, own)?;
            self.mailbox(own.clone(), domain, detail, transport)?;
        }
        Ok(())
    }

    /// A value of the map that is no key of it: a mailbox at our domains and at the one written to, foreign elsewhere.
    fn end_of_virtual_map(&mut self, address: &Address, domain: Option<&'a DomainRules>) -> Result<(), Halt> {
        if domain.is_none() && address.domain() != self.written.domain() {
            return self.foreign_address(address);
        }
        let transport = self.transport_of(domain, None, address)?;
        self.found(address.clone(), transport)
    }

    fn by_directory(&mut self, address: &Address, primary: &Address, domain: &'a DomainRules) -> Result<(), Halt> {
        let Some((entry, base)) = find_entry(self.tables, primary, domain)? else {
            return self.nobody(address, primary, domain);
        };
        let detail = base.as_ref().map(|base| cut(primary, base));
        let key = entry.mailbox().key();
        tell(self.story, "directory", true, || format!("{address} is user {}", entry.mailbox()));
        if entry.disabled() {
            tell(self.story, "directory", true, || format!("user {} is disabled", entry.mailbox()));
            return self.refuse(replies::disabled());
        }
        let forwards = entry.forwards()?;
        let (own, others): (Vec<&Address>, Vec<&Address>) = forwards.iter().partition(|to| self.primary_key(to) == key);
        let keep = forwards.is_empty() || entry.keeps_copy() || !own.is_empty();
        if !others.is_empty() {
            // Reached by an alias of the user: the way back to the user is a loop all the same.
            if key != primary.key() && (self.comes_back(&key)? || !self.visit(&key)?) {
                return Ok(());
            }
            let others: Vec<Address> = others.into_iter().cloned().collect();
            self.tell_expansion("forward", entry.mailbox(), &others);
            self.follow(&key, keep, &others)?;
        }
        if keep {
            let transport = self.transport_of(Some(domain), entry.transport(), address)?;
            self.mailbox(entry.mailbox().clone(), Some(domain), detail, transport)?;
        }
        Ok(())
    }

    fn primary_key(&self, address: &Address) -> String {
        let domain = self.tables.rules.domains.get(address.domain());
        domain.map_or_else(|| address.key(), |domain| address.with_domain(domain.name.clone()).key())
    }

    fn nobody(&mut self, address: &Address, primary: &Address, domain: &'a DomainRules) -> Result<(), Halt> {
        tell(self.story, "directory", false, || format!("{address} is no user and no alias"));
        match &domain.catch_all {
            // hostile-input S14: `user%dom@us` was never meant for us; taken, it would look like an open relay.
            Some(to) if !hides_a_route(address) && to.key() != primary.key() => {
                self.tell_expansion("catch-all", address, std::slice::from_ref(to));
                self.follow(&primary.key(), false, std::slice::from_ref(to))
            }
            _ => self.refuse(unknown(address)),
        }
    }

    fn foreign_address(&mut self, address: &Address) -> Result<(), Halt> {
        if self.foreign == Foreign::Refuse && self.path.is_empty() {
            tell(self.story, "directory", false, || format!("{} is no domain of ours", address.domain()));
            return self.refuse(unknown(address));
        }
        let transport = self.tables.rules.relay_transport.as_str();
        self.found(address.clone(), transport)
    }

    /// Expands what an address was replaced by.
    fn follow(&mut self, key: &str, keeps_copy: bool, addresses: &[Address]) -> Result<(), Halt> {
        if addresses.is_empty() {
            return Ok(());
        }
        let limits = self.tables.rules.limits;
        if self.path.len() >= limits.depth_max || addresses.len() > limits.results_max {
            return self.endless();
        }
        self.path.push(Hop { key: key.to_owned(), keeps_copy });
        for address in addresses {
            self.resolve(address)?;
        }
        self.path.pop();
        Ok(())
    }

    /// Whether the way leads back to an address that gets its copy anyhow; one that does not is a loop.
    fn comes_back(&mut self, key: &str) -> Result<bool, Halt> {
        match self.path.iter().find(|hop| hop.key == key).map(|hop| hop.keeps_copy) {
            Some(false) => self.endless().map(|()| true),
            Some(true) => Ok(true),
            None => Ok(false),
        }
    }

    /// False where the address was expanded before: it would give the same results.
    fn visit(&mut self, key: &str) -> Result<bool, Halt> {
        let fresh = self.visited.insert(key.to_owned());
        let visits_max = self.tables.rules.limits.results_max.saturating_mul(VISITS_PER_RESULT_MAX);
        if self.visited.len() > visits_max { self.endless().map(|()| false) } else { Ok(fresh) }
    }

    fn endless(&mut self) -> Result<(), Halt> {
        tell(self.story, "expansion", true, || {
            let keys: Vec<&str> = self.path.iter().map(|hop| hop.key.as_str()).collect();
            format!("a loop, or too deep or too wide: {}", keys.join(" -> "))
        });
        Err(Halt::Refuse(replies::endless_expansion()))
    }

    fn refuse(&mut self, reply: Reply) -> Result<(), Halt> {
        self.refused.push(reply);
        Ok(())
    }

    /// The rule's transport, the user's, the domain's.
    fn transport_of(
        &self,
        domain: Option<&'a DomainRules>,
        user: Option<&'a str>,
        address: &Address,
    ) -> Result<&'a str, Halt> {
        let same_domain = address.domain() == self.written.domain()
            || domain.is_some_and(|d| {
                self.tables.rules.domains.get(self.written.domain()).is_some_and(|w| w.name == d.name)
            });
        let of_rule = self.deliver.transport.as_deref().filter(|_| same_domain || domain.is_none());
        let transport = of_rule.or(user).or_else(|| domain.map(|domain| domain.transport.as_str()));
        transport.ok_or_else(|| Halt::Refuse(replies::faulty_configuration()))
    }

    fn mailbox(
        &mut self,
        base: Address,
        domain: Option<&DomainRules>,
        detail: Option<&str>,
        transport: &'a str,
    ) -> Result<(), Halt> {
        let address = match (domain.map(|domain| domain.detail), detail) {
            (Some(Detail::Kept), Some(detail)) => {
                // Too long with its detail: the mailbox is right without it.
                Address::from_parts(&format!("{}{detail}", base.local()), base.domain().clone()).unwrap_or(base)
            }
            _ => base,
        };
        self.found(address, transport)
    }

    fn found(&mut self, address: Address, transport: &'a str) -> Result<(), Halt> {
        self.found.push((address, transport));
        if self.found.len() > self.tables.rules.limits.results_max { self.endless() } else { Ok(()) }
    }

    fn tell_expansion(&mut self, step: &str, from: &Address, to: &[Address]) {
        tell(self.story, step, true, || {
            let texts: Vec<String> = to.iter().map(ToString::to_string).collect();
            format!("{from} becomes {}", texts.join(", "))
        });
    }
}

/// Nobody has the address. RFC 5321 section 4.1.1.3 leaves local parts to us; one that hides a route asks for relaying.
fn unknown(address: &Address) -> Reply {
    if hides_a_route(address) { replies::relaying_denied() } else { replies::unknown_user() }
}

/// A hidden route is looked up word for word: a wildcard was never meant for it.
fn wildcards(address: &Address) -> Wildcards {
    if hides_a_route(address) { Wildcards::Passed } else { Wildcards::Tried }
}

/// The detail with its delimiter.
fn cut<'b>(address: &'b Address, base: &Address) -> &'b str {
    address.local().get(base.local().len()..).unwrap_or_default()
}

impl Entry<'_> {
    fn keeps_copy(&self) -> bool {
        match self {
            Self::User(user) => user.keep_copy,
            Self::Row { row, .. } => {
                row.get("keep_copy").is_some_and(|value| !matches!(value.trim(), "" | "0" | "n" | "no" | "false"))
            }
        }
    }
}
