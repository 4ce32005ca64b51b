//! Patterns: how one is compared, and how one of thousands is found without comparing them all.

use std::collections::HashMap;

use aho_corasick::{AhoCorasick, MatchKind};

use crate::Pattern;

/// Patterns of a list up to which comparing each is faster than an index.
const LIST_COMPARED_MAX: usize = 8;

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

/// Finds which of many patterns match a text: exact ones by their hash, those with `*` by one walk of an automaton over the
/// text, which looks for the rarest literal part of each.
#[derive(Debug, Default)]
pub(crate) struct PatternIndex {
    exact: HashMap<Box<str>, Vec<u32>>,
    wildcards: Vec<(Box<str>, u32)>,
    automaton: Option<AhoCorasick>,
    /// By pattern of the automaton: which wildcards have it.
    by_literal: Vec<Vec<u32>>,
    /// Wildcards without a literal part.
    unkeyed: Vec<u32>,
}

impl PatternIndex {
    /// Indexes patterns, each with the number by which it is found.
    pub(crate) fn new<'a>(patterns: impl IntoIterator<Item = (&'a Pattern, u32)>) -> Self {
        let mut index = Self::default();
        for (pattern, id) in patterns {
            match pattern {
                Pattern::Exact(text) => index.exact.entry(text.as_str().into()).or_default().push(id),
                Pattern::Wildcard(text) => index.wildcards.push((text.as_str().into(), id)),
            }
        }
        index.key_wildcards();
        index
    }

    fn key_wildcards(&mut self) {
        let mut frequency: HashMap<&str, usize> = HashMap::new();
        for part in self.wildcards.iter().flat_map(|(text, _)| text.split('*')) {
            *frequency.entry(part).or_default() += 1;
        }
        let mut literals: Vec<&str> = Vec::new();
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let (mut by_literal, mut unkeyed): (Vec<Vec<u32>>, Vec<u32>) = (Vec::new(), Vec::new());
        for (number, (text, _)) in (0..).zip(&self.wildcards) {
            let parts = text.split('*').filter(|part| !part.is_empty());
            let rarest = parts.min_by_key(|part| (frequency.get(part).copied(), std::cmp::Reverse(part.len())));
            let Some(rarest) = rarest else {
                unkeyed.push(number);
                continue;
            };
            let literal = *numbers.entry(rarest).or_insert_with(|| {
                literals.push(rarest);
                by_literal.push(Vec::new());
                literals.len() - 1
            });
            by_literal[literal].push(number);
        }
        self.automaton = match literals.is_empty() {
            true => None,
            false => AhoCorasick::builder().match_kind(MatchKind::Standard).build(&literals).ok(),
        };
        if self.automaton.is_none() {
            // More than an automaton can hold: each is compared.
            unkeyed = (0..).zip(&self.wildcards).map(|(number, _)| number).collect();
        }
        (self.by_literal, self.unkeyed) = (by_literal, unkeyed);
    }

    /// Tells the number of every pattern that matches; one may be told twice.
    pub(crate) fn each(&self, text: &str, mut found: impl FnMut(u32)) {
        if let Some(ids) = self.exact.get(text) {
            ids.iter().for_each(|id| found(*id));
        }
        let mut compare = |number: u32| {
            if let Some((wildcard, id)) = self.wildcards.get(number as usize)
                && wildcard_matches(wildcard, text)
            {
                found(*id);
            }
        };
        self.unkeyed.iter().for_each(|number| compare(*number));
        let hits = self.automaton.as_ref().and_then(|automaton| automaton.try_find_overlapping_iter(text).ok());
        for hit in hits.into_iter().flatten() {
            self.by_literal[hit.pattern().as_usize()].iter().for_each(|number| compare(*number));
        }
    }

    /// The smallest number of a pattern that matches one of the texts.
    pub(crate) fn first<'t>(&self, texts: impl IntoIterator<Item = &'t str>) -> Option<u32> {
        let mut first: Option<u32> = None;
        for text in texts {
            self.each(text, |id| first = Some(first.map_or(id, |before| before.min(id))));
        }
        first
    }
}

/// One of these patterns.
#[derive(Default)]
pub struct PatternList {
    patterns: Vec<Pattern>,
    index: Option<Box<PatternIndex>>,
}

impl PatternList {
    /// The patterns as they are written, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Pattern> {
        self.patterns.iter()
    }

    /// Whether one of the patterns matches one of the texts, which are in lower case.
    pub(crate) fn matches<'t>(&self, texts: impl Iterator<Item = &'t str> + Clone) -> bool {
        match &self.index {
            Some(index) => index.first(texts).is_some(),
            None => self.patterns.iter().any(|pattern| texts.clone().any(|text| pattern_matches(pattern, text))),
        }
    }
}

impl From<Vec<Pattern>> for PatternList {
    fn from(patterns: Vec<Pattern>) -> Self {
        let is_long = patterns.len() > LIST_COMPARED_MAX;
        let index = is_long.then(|| Box::new(PatternIndex::new(patterns.iter().zip(0..))));
        Self { patterns, index }
    }
}

impl FromIterator<Pattern> for PatternList {
    fn from_iter<I: IntoIterator<Item = Pattern>>(patterns: I) -> Self {
        patterns.into_iter().collect::<Vec<_>>().into()
    }
}

impl std::fmt::Debug for PatternList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.patterns.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    fn pattern(text: &str) -> Pattern {
        if text.contains('*') { Pattern::Wildcard(text.into()) } else { Pattern::Exact(text.into()) }
    }

    proptest! {
        #[test]
        fn the_index_finds_exactly_what_comparing_each_finds(
            texts in proptest::collection::vec("[ab*@.ä]{0,6}", 0..40),
            text in "[ab@.ä]{0,8}",
        ) {
            let patterns: Vec<Pattern> = texts.iter().map(|text| pattern(text)).collect();
            let index = PatternIndex::new(patterns.iter().zip(0..));
            let mut found = Vec::new();
            index.each(&text, |id| found.push(id));
            found.sort_unstable();
            found.dedup();
            let matching = |(_, pattern): &(u32, &Pattern)| pattern_matches(pattern, &text);
            let plain: Vec<u32> = (0..).zip(&patterns).filter(matching).map(|(id, _)| id).collect();
            prop_assert_eq!(index.first([text.as_str()]), plain.first().copied());
            let list: PatternList = patterns.clone().into();
            prop_assert_eq!(list.matches([text.as_str()].into_iter()), !plain.is_empty());
            prop_assert_eq!(found, plain);
        }
    }
}
