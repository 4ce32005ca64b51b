//! Where something is in a document.

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

/// A hash of the text of a [`FieldPath`], made step by step while a document is read, without the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PathHash(u64);

impl PathHash {
    /// Of [`FieldPath::root`].
    pub(crate) const ROOT: Self = Self(0xcbf2_9ce4_8422_2325);

    fn of(path: &FieldPath) -> Self {
        Self::ROOT.with(path.0.as_bytes())
    }

    /// FNV-1a.
    fn with(self, octets: &[u8]) -> Self {
        Self(octets.iter().fold(self.0, |hash, octet| (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3)))
    }

    /// As [`FieldPath::key`].
    pub(crate) fn key(self, key: &str) -> Self {
        if key.contains(['.', '[', ']']) {
            return self.with(format!("[{key:?}]").as_bytes());
        }
        let parent = if self == Self::ROOT { self } else { self.with(b".") };
        parent.with(key.as_bytes())
    }

    /// As [`FieldPath::index`].
    pub(crate) fn index(self, index: usize) -> Self {
        self.with(format!("[{index}]").as_bytes())
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
///
/// A site has a hundred thousand documents, and few of their places are ever asked for: so a field takes 16 octets here,
/// and is known by a hash of its path.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    fields: Vec<Field>,
    /// The first of `fields` are in order.
    sorted: usize,
}

#[derive(Debug, Clone, Copy)]
struct Field {
    path: PathHash,
    line: u32,
    column: u32,
}

impl Places {
    /// Notes the place of a field that has none yet.
    pub(crate) fn push(&mut self, path: PathHash, place: Place) {
        // A file is too short for more lines or columns.
        let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        self.fields.push(Field { path, line: narrow(place.line), column: narrow(place.column) });
    }

    /// After the last of [`Places::push`].
    pub(crate) fn finish(&mut self) {
        self.fields.sort_by_key(|field| field.path);
        self.fields.shrink_to_fit();
        self.sorted = self.fields.len();
    }

    /// Gives a field the place of another one.
    pub(crate) fn copy(&mut self, from: &FieldPath, to: &FieldPath) {
        let place = self.find(from);
        // What is said last counts: see `get`.
        self.push(PathHash::of(to), place);
    }

    /// The place of a field, or of the nearest thing around it that is written.
    pub(crate) fn find(&self, path: &FieldPath) -> Place {
        let mut path = path.clone();
        loop {
            if let Some(place) = self.get(PathHash::of(&path)) {
                return place;
            }
            match path.parent() {
                Some(parent) => path = parent,
                None => return Place::default(),
            }
        }
    }

    fn get(&self, path: PathHash) -> Option<Place> {
        let (sorted, copied) = self.fields.split_at(self.sorted);
        let found = match copied.iter().rev().find(|field| field.path == path) {
            Some(field) => field,
            None => sorted.binary_search_by_key(&path, |field| field.path).ok().and_then(|at| sorted.get(at))?,
        };
        Some(Place { line: found.line as usize, column: found.column as usize })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_not_written_is_at_the_nearest_thing_around_it() {
        let mut places = Places::default();
        let root = PathHash::ROOT;
        let rule = root.key("spec").key("rules").index(1);
        let data = root.key("data");
        for (path, line) in [(root, 1), (root.key("spec"), 2), (rule, 5), (data, 9)] {
            places.push(path, Place { line, column: 1 });
        }
        places.finish();
        let rule = FieldPath::of("spec.rules[1]");
        let data = FieldPath::of("data");
        for (path, line) in [
            (rule.key("match").key("sender"), 5),
            (FieldPath::of("spec.rules[0].match"), 2),
            (FieldPath::of("metadata.name"), 1),
            (data.key("tls.crt"), 9),
        ] {
            assert_eq!(places.find(&path).line, line, "{path}");
        }
    }
    #[test]
    fn a_hash_made_step_by_step_is_the_hash_of_the_path() {
        let (path, hash) = (FieldPath::root(), PathHash::ROOT);
        assert_eq!(hash, PathHash::of(&path));
        let (path, hash) = (path.key("spec").index(12), hash.key("spec").index(12));
        assert_eq!(hash, PathHash::of(&path));
        let (path, hash) = (path.key("tls.crt"), hash.key("tls.crt"));
        assert_eq!(hash, PathHash::of(&path));
        assert_eq!(hash.key("x"), PathHash::of(&path.key("x")));
    }

    #[test]
    fn a_copied_place_counts_before_the_one_that_was_read() {
        let mut places = Places::default();
        places.push(PathHash::ROOT.key("meant"), Place { line: 1, column: 1 });
        places.push(PathHash::ROOT.key("ment"), Place { line: 7, column: 3 });
        places.finish();
        places.copy(&FieldPath::of("ment"), &FieldPath::of("meant"));
        assert_eq!(places.find(&FieldPath::of("meant")), Place { line: 7, column: 3 });
    }
}
