//! Where something is in a document.

use std::collections::HashMap;
use std::fmt;

/// A field of a document, as in `spec.rules[2].match`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct FieldPath(String);

impl FieldPath {
    /// The document.
    pub fn root() -> Self {
        Self::default()
    }

    /// `dotted` from the root of the document; keys must not hold dots or brackets.
    pub fn of(dotted: &str) -> Self {
        Self(dotted.to_owned())
    }

    /// The field `key` of this.
    pub fn key(&self, key: &str) -> Self {
        // A key such as `tls.crt` is one step: it is bracketed, so that no two paths look the same.
        if key.contains(['.', '[', ']']) {
            return Self(format!("{}[{key:?}]", self.0));
        }
        if self.0.is_empty() { Self(key.to_owned()) } else { Self(format!("{}.{key}", self.0)) }
    }

    /// The item at `index` of this.
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    fn parent(&self) -> Option<Self> {
        if self.0.is_empty() {
            return None;
        }
        let at = match self.0.strip_suffix("\"]") {
            Some(rest) => rest.rfind("[\"").unwrap_or(0),
            None => self.0.rfind(['.', '[']).unwrap_or(0),
        };
        Some(Self(self.0[..at].to_owned()))
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column in characters.
    pub column: usize,
}

/// Where the fields of a document are.
#[derive(Debug, Clone, Default)]
pub struct Places(HashMap<FieldPath, Place>);

impl Places {
    /// Notes the place of a field.
    pub fn insert(&mut self, path: FieldPath, place: Place) {
        self.0.insert(path, place);
    }

    /// The place of a field, or of the nearest thing around it that is written.
    pub fn find(&self, path: &FieldPath) -> Place {
        let mut path = path.clone();
        loop {
            if let Some(place) = self.0.get(&path) {
                return *place;
            }
            match path.parent() {
                Some(parent) => path = parent,
                None => return Place::default(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_not_written_is_at_the_nearest_thing_around_it() {
        let mut places = Places::default();
        places.insert(FieldPath::root(), Place { line: 1, column: 1 });
        places.insert(FieldPath::of("spec"), Place { line: 2, column: 1 });
        let rule = FieldPath::of("spec").key("rules").index(1);
        places.insert(rule.clone(), Place { line: 5, column: 3 });
        let data = FieldPath::of("data");
        places.insert(data.clone(), Place { line: 9, column: 1 });
        for (path, line) in [
            (rule.key("match").key("sender"), 5),
            (FieldPath::of("spec.rules[0].match"), 2),
            (FieldPath::of("metadata.name"), 1),
            (data.key("tls.crt"), 9),
        ] {
            assert_eq!(places.find(&path).line, line, "{path}");
        }
    }
}
