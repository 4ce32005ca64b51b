//! What a decision asks for from outside, and what it was told.

use std::collections::HashMap;
use std::sync::Arc;

use types::Reply;

use crate::keys::find_static;
use crate::{RuleSet, Table};

/// A row of a table outside that a decision needs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Need {
    /// Name of the MailTable.
    pub table: String,
    /// What is looked up, in lower case.
    pub key: String,
}

/// One row: the columns that are not NULL, by name, in the order of the query.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Row {
    /// Name of the column and its value.
    pub columns: Vec<(String, String)>,
}

impl Row {
    /// The value of a column.
    pub fn get(&self, column: &str) -> Option<&str> {
        self.columns.iter().find(|(name, _)| name.eq_ignore_ascii_case(column)).map(|(_, value)| value.as_str())
    }
}

/// What a lookup came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The rows; none: the table does not hold the key.
    Found(Arc<[Row]>),
    /// The table could not be read: the decision is 451, never "no match".
    Failed,
}

/// What was looked up so far. Good for all recipients of a transaction.
#[derive(Debug, Default)]
pub struct Lookups {
    tables: HashMap<String, HashMap<String, Lookup>>,
    len: usize,
}

impl Lookups {
    /// Remembers what a need came to.
    pub fn insert(&mut self, need: Need, lookup: Lookup) {
        if self.tables.entry(need.table).or_default().insert(need.key, lookup).is_none() {
            self.len += 1;
        }
    }

    /// How many lookups are remembered.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was looked up yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn get(&self, table: &str, key: &str) -> Option<&Lookup> {
        self.tables.get(table)?.get(key)
    }
}

/// Why a table does not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// It is outside and was not asked yet.
    #[error("table {} is to be asked first", .0.table)]
    Need(Need),
    /// It could not be read, or holds something unreadable.
    #[error("table {table} cannot be used: {reason}")]
    Failed {
        /// Name of the MailTable.
        table: String,
        /// For the log and for `explain`.
        reason: &'static str,
    },
}

/// Ends a decision before its end.
#[derive(Debug)]
pub(crate) enum Halt {
    Lookup(LookupError),
    Refuse(Reply),
}

impl From<LookupError> for Halt {
    fn from(error: LookupError) -> Self {
        Self::Lookup(error)
    }
}

/// Whether the wildcards of a table are tried where no key is found word for word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wildcards {
    Tried,
    Passed,
}

/// What a table says to a key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Found<'a> {
    Values(&'a [String]),
    Rows(&'a [Row]),
}

impl<'a> Found<'a> {
    pub(crate) fn values(self) -> Vec<&'a str> {
        match self {
            Self::Values(values) => values.iter().map(String::as_str).collect(),
            Self::Rows(rows) => rows.iter().flat_map(|row| row.columns.iter()).map(|(_, v)| v.as_str()).collect(),
        }
    }
}

/// The tables of a rule set together with what was looked up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tables<'a> {
    pub(crate) rules: &'a RuleSet,
    pub(crate) lookups: &'a Lookups,
}

impl<'a> Tables<'a> {
    /// The first of the keys that the table holds.
    pub(crate) fn find(
        self,
        table: &str,
        keys: &[&str],
        wildcards: Wildcards,
    ) -> Result<Option<Found<'a>>, LookupError> {
        match self.table(table)? {
            Table::Static(rows) => Ok(find_static(rows, keys, wildcards).map(Found::Values)),
            Table::Sqlite(_) => {
                for key in keys {
                    let rows = self.rows(table, key)?;
                    if !rows.is_empty() {
                        return Ok(Some(Found::Rows(rows)));
                    }
                }
                Ok(None)
            }
        }
    }

    /// Whether a table lists an address of a client.
    pub(crate) fn holds_ip(self, table: &str, ip: std::net::IpAddr) -> Result<bool, LookupError> {
        match self.table(table)? {
            Table::Static(rows) => Ok(rows.networks().contains(ip) || rows.exact.contains_key(&ip.to_string())),
            Table::Sqlite(_) => Ok(!self.rows(table, &ip.to_string())?.is_empty()),
        }
    }

    fn table(self, name: &str) -> Result<&'a Table, LookupError> {
        // The compiler refuses dangling names; were one left, a criterion on it must not fail open.
        let failed = || LookupError::Failed { table: name.to_owned(), reason: "there is no such table" };
        self.rules.tables.get(name).map(|table| &**table).ok_or_else(failed)
    }

    fn rows(self, table: &str, key: &str) -> Result<&'a [Row], LookupError> {
        match self.lookups.get(table, key) {
            Some(Lookup::Found(rows)) => Ok(rows),
            Some(Lookup::Failed) => Err(LookupError::Failed { table: table.to_owned(), reason: "it cannot be read" }),
            None => Err(LookupError::Need(Need { table: table.to_owned(), key: key.to_owned() })),
        }
    }
}
