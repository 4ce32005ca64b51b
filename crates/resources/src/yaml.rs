//! YAML text to JSON values with the place of every field. All faults of a text are found, not the first.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr::Scalar;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use serde_json::{Map, Value};

use crate::path::{PathHash, Place, Places};

/// A document nests no deeper: what does is a mistake or an attack on the stack.
const DEPTH_MAX: usize = 32;
/// Values that the aliases of one file may copy: an alias of an alias of an alias must not fill memory.
const ALIAS_VALUES_MAX: usize = 10_000;
/// A file is no longer: a folder of documents is not a data base.
pub(crate) const FILE_BYTES_MAX: usize = 64 << 20;

/// One document of a text.
#[derive(Debug)]
pub(crate) struct Document {
    /// What it says.
    pub value: Value,
    /// Where it says so.
    pub places: Places,
}

/// A part of a text that is not YAML.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub place: Place,
    pub what: String,
    pub remedy: &'static str,
}

/// A text, read.
#[derive(Debug, Default)]
pub(crate) struct Read<'a> {
    pub broken: Vec<Broken>,
    /// Texts of the documents that could not be read, for a guess at what they are about.
    pub unread: Vec<&'a str>,
}

/// Reads all documents of a text, one after the other: all of them at once take much memory. What is wrong with one does not
/// hide the next.
pub(crate) fn read(text: &str, mut take: impl FnMut(Document)) -> Read<'_> {
    let mut found = Read::default();
    let mut alias_values = 0;
    if text.len() > FILE_BYTES_MAX {
        let what = format!("the file is longer than {} MiB", FILE_BYTES_MAX >> 20);
        found.broken.push(Broken { place: Place::default(), what, remedy: "split it, or keep large tables in files" });
        return found;
    }
    for (line_offset, part) in parts(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        let mut reader = Reader {
            parser: Parser::new_from_str(part),
            line_offset,
            anchors: HashMap::new(),
            alias_values: &mut alias_values,
            broken: &mut found.broken,
        };
        if let Err(broken) = reader.documents(&mut take) {
            found.broken.push(broken);
            found.unread.push(part);
        }
    }
    found
}

/// Splits at the lines that begin a document, which `---` at the start of a line always does (YAML 1.2.2 section 9.1.2);
/// so a fault of syntax ends with its document.
fn parts(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut start_line, mut has_content) = (0, 0, false);
    let mut at = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let begins =
            line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if begins && has_content {
            parts.push((start_line, &text[start..at]));
            (start, start_line) = (at, number);
        }
        // Comments and directives belong to the document that follows them.
        has_content |= begins || !(line.trim().is_empty() || line.starts_with(['#', '%']));
        at += line.len();
    }
    parts.push((start_line, &text[start..]));
    parts
}

struct Reader<'a, 'p> {
    parser: Parser<'p, StrInput<'p>>,
    line_offset: usize,
    /// Values by anchor, with how many values they hold.
    anchors: HashMap<usize, (Value, usize)>,
    alias_values: &'a mut usize,
    broken: &'a mut Vec<Broken>,
}

type Next<'p> = (Event<'p>, Span);

impl<'p> Reader<'_, 'p> {
    fn documents(&mut self, take: &mut impl FnMut(Document)) -> Result<(), Broken> {
        loop {
            let (event, _) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(()),
                Event::DocumentStart(_) => {
                    self.anchors.clear();
                    let mut places = Places::default();
                    let first = self.next()?;
                    places.push(PathHash::ROOT, self.place(&first.1.start));
                    let (value, _) = self.value(first, PathHash::ROOT, &mut places, 0)?;
                    places.finish();
                    take(Document { value, places });
                }
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Result<Next<'p>, Broken> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(self.syntax(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn syntax(&self, error: &ScanError) -> Broken {
        Broken {
            place: self.place(error.marker()),
            what: format!("this is not YAML: {}", error.info()),
            remedy: "mend indentation, quotes and brackets here or just above",
        }
    }

    fn place(&self, marker: &Marker) -> Place {
        Place { line: marker.line() + self.line_offset, column: marker.col() + 1 }
    }

    /// The value that begins with this event, and how many values it holds.
    fn value(
        &mut self,
        (event, span): Next<'p>,
        path: PathHash,
        places: &mut Places,
        depth: usize,
    ) -> Result<(Value, usize), Broken> {
        if depth > DEPTH_MAX {
            return Err(Broken {
                place: self.place(&span.start),
                what: format!("the document nests deeper than {DEPTH_MAX}"),
                remedy: "write it flatter",
            });
        }
        let (value, count, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => (self.scalar(text, style, tag.as_ref(), &span)?, 1, anchor),
            Event::SequenceStart(anchor, _) => {
                let (value, count) = self.sequence(path, places, depth)?;
                (value, count, anchor)
            }
            Event::MappingStart(anchor, _) => {
                let (value, count) = self.mapping(path, places, depth)?;
                (value, count, anchor)
            }
            Event::Alias(anchor) => return self.alias(anchor, &span),
            _ => (Value::Null, 1, 0),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, (value.clone(), count));
            // The clone above is a copy too.
            self.spend(count, &span)?;
        }
        Ok((value, count))
    }

    fn alias(&mut self, anchor: usize, span: &Span) -> Result<(Value, usize), Broken> {
        let Some((_, count)) = self.anchors.get(&anchor) else {
            return Err(Broken {
                place: self.place(&span.start),
                what: "an alias stands inside of what it names".to_owned(),
                remedy: "write the value out",
            });
        };
        let count = *count;
        self.spend(count, span)?;
        let value = self.anchors.get(&anchor).map(|(value, _)| value.clone()).unwrap_or_default();
        Ok((value, count))
    }

    fn spend(&mut self, count: usize, span: &Span) -> Result<(), Broken> {
        *self.alias_values += count;
        if *self.alias_values <= ALIAS_VALUES_MAX {
            return Ok(());
        }
        Err(Broken {
            place: self.place(&span.start),
            what: format!("anchors and aliases of this file hold more than {ALIAS_VALUES_MAX} values"),
            remedy: "write the values out",
        })
    }

    fn sequence(&mut self, path: PathHash, places: &mut Places, depth: usize) -> Result<(Value, usize), Broken> {
        let (mut items, mut count) = (Vec::new(), 1);
        loop {
            let next = self.next()?;
            if matches!(next.0, Event::SequenceEnd | Event::StreamEnd) {
                return Ok((Value::Array(items), count));
            }
            let path = path.index(items.len());
            places.push(path, self.place(&next.1.start));
            let (value, held) = self.value(next, path, places, depth + 1)?;
            items.push(value);
            count += held;
        }
    }

    fn mapping(&mut self, path: PathHash, places: &mut Places, depth: usize) -> Result<(Value, usize), Broken> {
        let (mut fields, mut count) = (Map::new(), 1);
        let mut first_lines: HashMap<PathHash, usize> = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            let place = self.place(&span.start);
            let key = match event {
                Event::MappingEnd | Event::StreamEnd => return Ok((Value::Object(fields), count)),
                Event::Scalar(key, ..) => key.into_owned(),
                _ => {
                    return Err(Broken {
                        place,
                        what: "a key is not plain text".to_owned(),
                        remedy: "write a name before the colon",
                    });
                }
            };
            let path = path.key(&key);
            let is_second = fields.contains_key(&key);
            if is_second {
                let line = first_lines.get(&path).copied().unwrap_or_default();
                let what = format!("{key:?} is written twice: first in line {line}");
                self.broken.push(Broken { place, what, remedy: "keep one of them" });
            } else {
                first_lines.insert(path, place.line);
                places.push(path, place);
            }
            let next = self.next()?;
            // The fields of a second writing are read, but the first one stands.
            let mut elsewhere = Places::default();
            let at = if is_second { &mut elsewhere } else { &mut *places };
            let (value, held) = self.value(next, path, at, depth + 1)?;
            count += held;
            if !is_second {
                fields.insert(key, value);
            }
        }
    }

    fn scalar(
        &self,
        text: Cow<'p, str>,
        style: ScalarStyle,
        tag: Option<&Cow<'p, Tag>>,
        span: &Span,
    ) -> Result<Value, Broken> {
        // Kept for numbers that no JSON number holds, such as .nan.
        let written = text.clone();
        match Scalar::parse_from_cow_and_metadata(text, style, tag) {
            Some(Scalar::Null) => Ok(Value::Null),
            Some(Scalar::Boolean(flag)) => Ok(Value::Bool(flag)),
            Some(Scalar::Integer(number)) => Ok(Value::from(number)),
            Some(Scalar::FloatingPoint(number)) => Ok(serde_json::Number::from_f64(*number)
                .map_or_else(|| Value::String(written.into_owned()), Value::Number)),
            Some(Scalar::String(text)) => Ok(Value::String(text.into_owned())),
            None => Err(Broken {
                place: self.place(&span.start),
                what: "the tag does not fit the value".to_owned(),
                remedy: "leave the tag out",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::path::FieldPath;

    /// All documents, and the rest of what was found.
    fn read_all(text: &str) -> (Vec<Document>, Read<'_>) {
        let mut documents = Vec::new();
        let found = read(text, |document| documents.push(document));
        (documents, found)
    }

    #[test]
    fn every_field_of_every_document_has_its_place() {
        let text = "# a comment\na: 1\nb:\n  - c: x\n  - d\n---\ne: { f: [true, 'no'] }\n...\n---\n";
        let (documents, read) = read_all(text);
        assert_eq!(read.broken, []);
        let values: Vec<_> = documents.iter().map(|document| document.value.clone()).collect();
        assert_eq!(values[..2], [json!({"a": 1, "b": [{"c": "x"}, "d"]}), json!({"e": {"f": [true, "no"]}})]);
        for (document, path, line, column) in [
            (0, "a", 2, 1),
            (0, "b", 3, 1),
            (0, "b[0]", 4, 5),
            (0, "b[0].c", 4, 5),
            (0, "b[1]", 5, 5),
            (1, "e.f", 7, 6),
            (1, "e.f[1]", 7, 16),
        ] {
            let place = documents[document].places.find(&FieldPath::of(path));
            assert_eq!((place.line, place.column), (line, column), "{path}");
        }
    }

    #[test]
    fn a_fault_of_syntax_ends_with_its_document() {
        let (documents, read) = read_all("a: [1\n---\nb: 2\n---\nc: }\n---\nd: 4\nd: 5\n");
        let lines: Vec<_> = read.broken.iter().map(|broken| broken.place.line).collect();
        assert_eq!(lines, [2, 5, 8], "{:?}", read.broken);
        let values: Vec<_> = documents.iter().map(|document| document.value.clone()).collect();
        assert_eq!(values, [json!({"b": 2}), json!({"d": 4})]);
    }

    #[test]
    fn aliases_are_copies_within_bounds() {
        let (documents, read_once) = read_all("a: &x { n: 1 }\nb: *x\n");
        assert_eq!(read_once.broken, []);
        assert_eq!(documents[0].value, json!({"a": {"n": 1}, "b": {"n": 1}}));

        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        let read_bomb = read(&bomb, drop);
        assert_eq!(read_bomb.broken.len(), 1);
        assert!(read_bomb.broken[0].what.contains("aliases"), "{:?}", read_bomb.broken);

        for endless in ["a: &a [*a]", "a: *nowhere"] {
            assert_eq!(read(endless, drop).broken.len(), 1, "{endless}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        for deep in [format!("a: {}{}", "[".repeat(5000), "]".repeat(5000)), "- ".repeat(5000), "? ".repeat(5000)] {
            assert_eq!(read(&deep, drop).broken.len(), 1);
        }
    }
}
