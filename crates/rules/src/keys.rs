//! The forms that addresses are looked up by, and how patterns are compared.

use std::borrow::Cow;

use types::Address;

use crate::lookups::Wildcards;
use crate::{RuleSet, StaticTable};

/// Begins a detail where the domain is not ours.
pub(crate) const DELIMITERS_DEFAULT: &str = "+";

/// The forms that an address is compared by, all in lower case.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keys {
    /// `user@domain`; empty: the null reverse-path.
    pub(crate) full: String,
    /// Without detail, where there is one.
    bare: Option<String>,
    /// `@domain`.
    at_domain: String,
}

impl Keys {
    pub(crate) fn new(rules: &RuleSet, address: Option<&Address>) -> Self {
        let Some(address) = address else { return Self::default() };
        let bare = address.split_detail(delimiters(rules, address)).map(|(base, _)| base.key());
        Self { full: address.key(), bare, at_domain: format!("@{}", address.domain()) }
    }

    /// `user@domain`, without detail, `domain`, `@domain`.
    pub(crate) fn all(&self) -> impl Iterator<Item = &str> + Clone {
        let bare = self.bare.as_deref().into_iter();
        let domain =
            self.at_domain.get(1..).into_iter().chain((!self.at_domain.is_empty()).then_some(&*self.at_domain));
        std::iter::once(self.full.as_str()).chain(bare).chain(domain)
    }
}

/// The characters that begin a detail in addresses of this domain.
pub(crate) fn delimiters<'a>(rules: &'a RuleSet, address: &Address) -> &'a str {
    rules.domains.get(address.domain()).map_or(DELIMITERS_DEFAULT, |domain| domain.delimiters.as_str())
}

/// The first of the keys that the table holds word for word; else what a wildcard says to the first key or a later one.
pub(crate) fn find_static<'a>(table: &'a StaticTable, keys: &[&str], wildcards: Wildcards) -> Option<&'a [String]> {
    let exact = keys.iter().find_map(|key| table.exact.get(*key)).map(Vec::as_slice);
    match wildcards {
        Wildcards::Tried => exact.or_else(|| table.find_wildcard(keys)),
        Wildcards::Passed => exact,
    }
}

/// In lower case, as patterns and keys are.
pub(crate) fn lower(word: &str) -> Cow<'_, str> {
    if word.bytes().any(|b| b.is_ascii_uppercase()) { Cow::Owned(word.to_lowercase()) } else { Cow::Borrowed(word) }
}
