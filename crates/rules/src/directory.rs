//! Who a user is: by MailUser and by user tables.

use std::borrow::Cow;
use std::sync::Arc;

use types::{Address, Domain};

use crate::keys::{Keys, delimiters};
use crate::lookups::{Found, Tables, Wildcards};
use crate::patterns::pattern_matches;
use crate::{DomainRules, LookupError, Lookups, Row, RuleSet, Secret, User};

/// Somebody who may log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The mailbox: what the session acts as.
    pub address: Address,
    /// crypt(3) form; `None`: cannot log in.
    pub password: Option<Secret>,
    /// Cannot log in now.
    pub disabled: bool,
}

/// Finds who logs in by a name: the address of the mailbox or one of its aliases, at any name of its domain.
pub fn find_login(rules: &RuleSet, lookups: &Lookups, name: &Address) -> Result<Option<Login>, LookupError> {
    let Some(domain) = rules.domains.get(name.domain()) else { return Ok(None) };
    let primary = name.with_domain(domain.name.clone());
    let entry = find_exactly(Tables { rules, lookups }, &primary, domain)?;
    Ok(entry.map(|entry| match entry {
        Entry::User(user) => {
            Login { address: user.address.clone(), password: user.password.clone(), disabled: user.disabled }
        }
        Entry::Row { row, mailbox, .. } => {
            Login { address: mailbox, password: row.get("password").map(Secret::new), disabled: false }
        }
    }))
}

/// Whether an address is the user's own: the mailbox, its aliases, each with any detail and at any name of the domain, and
/// what `sendAs` allows.
pub fn may_send_as(rules: &RuleSet, lookups: &Lookups, user: &Address, address: &Address) -> Result<bool, LookupError> {
    let own = user.key();
    if address.key() == own {
        return Ok(true);
    }
    if let Some(user) = rules.users.get(&own) {
        let keys = Keys::new(rules, Some(address));
        if user.send_as.iter().any(|pattern| keys.all().any(|key| pattern_matches(pattern, key))) {
            return Ok(true);
        }
    }
    let Some(domain) = rules.domains.get(address.domain()) else { return Ok(false) };
    let primary = address.with_domain(domain.name.clone());
    let entry = find_entry(Tables { rules, lookups }, &primary, domain)?;
    Ok(entry.is_some_and(|(entry, _)| entry.mailbox().key() == own))
}

/// What the directory says of an address.
pub(crate) enum Entry<'a> {
    User(&'a Arc<User>),
    Row { row: &'a Row, rows: &'a [Row], mailbox: Address, table: &'a str },
}

impl Entry<'_> {
    pub(crate) fn mailbox(&self) -> &Address {
        match self {
            Self::User(user) => &user.address,
            Self::Row { mailbox, .. } => mailbox,
        }
    }

    pub(crate) fn disabled(&self) -> bool {
        matches!(self, Self::User(user) if user.disabled)
    }

    pub(crate) fn forwards(&self) -> Result<Cow<'_, [Address]>, LookupError> {
        match self {
            Self::User(user) => Ok(Cow::Borrowed(&user.forwards)),
            Self::Row { rows, mailbox, table, .. } => {
                let values: Vec<&str> = rows.iter().filter_map(|row| row.get("forward")).collect();
                parse_values(table, &values, mailbox.domain()).map(Cow::Owned)
            }
        }
    }
}

impl<'a> Entry<'a> {
    pub(crate) fn transport(&self) -> Option<&'a str> {
        match self {
            Self::User(user) => user.transport.as_deref(),
            Self::Row { .. } => None,
        }
    }
}

/// Finds an address at a primary domain name: as it is, then without its detail, which is said by the shorter address.
pub(crate) fn find_entry<'a>(
    tables: Tables<'a>,
    primary: &Address,
    domain: &'a DomainRules,
) -> Result<Option<(Entry<'a>, Option<Address>)>, LookupError> {
    if let Some(entry) = find_exactly(tables, primary, domain)? {
        return Ok(Some((entry, None)));
    }
    let Some((base, _)) = primary.split_detail(delimiters(tables.rules, primary)) else { return Ok(None) };
    Ok(find_exactly(tables, &base, domain)?.map(|entry| (entry, Some(base))))
}

fn find_exactly<'a>(
    tables: Tables<'a>,
    primary: &Address,
    domain: &'a DomainRules,
) -> Result<Option<Entry<'a>>, LookupError> {
    let key = primary.key();
    if let Some(user) = tables.rules.users.get(&key) {
        return Ok(Some(Entry::User(user)));
    }
    let Some(table) = domain.user_table.as_deref() else { return Ok(None) };
    match tables.find(table, &[&key], Wildcards::Passed)? {
        Some(Found::Rows(rows)) => {
            let Some(row) = rows.first() else { return Ok(None) };
            let mailbox = match row.get("user").map(str::trim).filter(|user| !user.is_empty()) {
                Some(user) => parse_value(table, user, &domain.name)?,
                // The key is what Dovecot and this process agree on; the case that was written is not.
                None => Address::from_parts(&primary.local().to_lowercase(), primary.domain().clone())
                    .unwrap_or_else(|_| primary.clone()),
            };
            Ok(Some(Entry::Row { row, rows, mailbox, table }))
        }
        Some(Found::Values(_)) => {
            Err(LookupError::Failed { table: table.to_owned(), reason: "a table of users has named columns" })
        }
        None => Ok(None),
    }
}

/// Reads values that are addresses: one each, or several with commas; without a domain they are at `domain`.
pub(crate) fn parse_values(table: &str, values: &[&str], domain: &Domain) -> Result<Vec<Address>, LookupError> {
    let mut out = Vec::with_capacity(values.len());
    for value in values {
        // A comma may be quoted: the whole is tried first.
        match Address::parse(value.trim()) {
            Ok(address) => out.push(address),
            Err(_) => {
                for part in value.split(',').map(str::trim).filter(|part| !part.is_empty()) {
                    out.push(parse_value(table, part, domain)?);
                }
            }
        }
    }
    Ok(out)
}

fn parse_value(table: &str, value: &str, domain: &Domain) -> Result<Address, LookupError> {
    let failed = |_| LookupError::Failed { table: table.to_owned(), reason: "a value is no address" };
    if value.contains('@') { Address::parse(value) } else { Address::parse(&format!("{value}@{domain}")) }
        .map_err(failed)
}
