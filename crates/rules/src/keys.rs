//! The forms that addresses are looked up by, and how patterns are compared.

use types::Address;

use crate::lookups::Wildcards;
use crate::{Pattern, RuleSet, StaticTable};

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
    pub(crate) fn all(&self) -> impl Iterator<Item = &str> {
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
    let exact = keys.iter().find_map(|key| table.exact.get(*key));
    let wildcard = || {
        table.wildcards.iter().find(|(pattern, _)| keys.iter().any(|key| pattern_matches(pattern, key))).map(|(_, v)| v)
    };
    match wildcards {
        Wildcards::Tried => exact.or_else(wildcard),
        Wildcards::Passed => exact,
    }
    .map(Vec::as_slice)
}

/// Compares a pattern with a text in lower case.
pub(crate) fn pattern_matches(pattern: &Pattern, text: &str) -> bool {
    match pattern {
        Pattern::Exact(exact) => exact == text,
        Pattern::Wildcard(wildcard) => wildcard_matches(wildcard, text),
    }
}

/// `*` stands for any run of characters. Linear in both: what lies between two stars is found from the left.
fn wildcard_matches(wildcard: &str, text: &str) -> bool {
    // Most comparisons of a long list of rules end at the first octet.
    let differs = wildcard.bytes().zip(text.bytes()).take_while(|(pattern, _)| *pattern != b'*').any(|(p, t)| p != t);
    if differs {
        return false;
    }
    let mut parts = wildcard.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let Some(mut part) = parts.next() else { return rest.is_empty() };
    for next in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        part = next;
    }
    rest.ends_with(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        let cases = [
            ("*", "", true),
            ("*", "a@b", true),
            ("*.example.org", "a.example.org", true),
            ("*.example.org", "example.org", false),
            ("*@example.org", "a@example.org", true),
            ("*@example.org", "a@example.org.evil", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("*a*a*", "aa", true),
            ("abc", "abc", true),
            ("abc", "abcd", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(wildcard_matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
