//! Checks a value against the schema of its kind and finds every fault, where serde would stop at the first.

use serde_json::{Map, Value};

use crate::path::FieldPath;
use crate::suggest::nearest;
use crate::values::{self, Match, Size, Texts};

/// A fault of a field.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FieldFault {
    pub path: FieldPath,
    pub what: String,
    pub remedy: String,
}

/// What is left of a value after its check: as much as can be used, so that faults between documents are found too.
#[derive(Debug, Default)]
pub(crate) struct Mended {
    pub faults: Vec<FieldFault>,
    /// A field was left out or is missing: what the rest says may not be what was meant.
    pub is_doubtful: bool,
    /// Misspelled fields, as written and as meant.
    pub renamed: Vec<(FieldPath, FieldPath)>,
}

/// Checks `value` against a structural schema. Faulty fields are left out of it, misspelled ones get their right name.
pub(crate) fn check(schema: &Value, value: &mut Value, path: &FieldPath) -> Mended {
    let mut checker = Checker { mended: Mended::default() };
    if !checker.value(schema, value, path) {
        *value = Value::Null;
        checker.mended.is_doubtful = true;
    }
    checker.mended
}

/// Faults of an object that may hold `known` fields only.
pub(crate) fn check_known<'a>(
    object: &Map<String, Value>,
    known: impl Iterator<Item = &'a str> + Clone,
    path: &FieldPath,
    faults: &mut Vec<FieldFault>,
) {
    for key in object.keys() {
        if known.clone().all(|name| name != key) {
            faults.push(unknown(key, nearest(key, known.clone()), known.clone(), path));
        }
    }
}

fn unknown<'a>(key: &str, meant: Option<&str>, known: impl Iterator<Item = &'a str>, path: &FieldPath) -> FieldFault {
    let remedy = match meant {
        Some(name) => format!("did you mean {name}?"),
        None => format!("remove it; known here are {}", known.collect::<Vec<_>>().join(", ")),
    };
    FieldFault { path: path.key(key), what: format!("unknown field {key:?}"), remedy }
}

struct Checker {
    mended: Mended,
}

impl Checker {
    fn fault(&mut self, path: &FieldPath, what: impl Into<String>, remedy: impl Into<String>) {
        let (what, remedy) = (what.into(), remedy.into());
        self.mended.faults.push(FieldFault { path: path.clone(), what, remedy });
    }

    /// Whether the value is of use.
    fn value(&mut self, schema: &Value, value: &mut Value, path: &FieldPath) -> bool {
        if value.is_null() {
            let may_be = schema["nullable"] == true;
            if !may_be {
                self.fault(path, format!("{path} is empty"), "give it a value or remove the line");
            }
            return may_be;
        }
        let before = self.mended.faults.len();
        match (schema["type"].as_str(), &mut *value) {
            (Some("object"), Value::Object(object)) => {
                self.object(schema, object, path);
                return true;
            }
            (Some("array"), Value::Array(items)) => {
                self.array(schema, items, path);
                return true;
            }
            _ => {}
        }
        let value = &*value;
        match (schema["format"].as_str(), schema["type"].as_str(), value) {
            (Some(Match::FORMAT), ..) => self.criterion(value, path),
            (Some(Texts::FORMAT), ..) => self.texts(value, path),
            (Some(Size::FORMAT), ..) => self.size(value, path),
            (_, Some("string"), Value::String(text)) => self.text(schema, text, path),
            (_, Some("integer"), Value::Number(number)) if number.is_i64() || number.is_u64() => {
                self.number(schema, number, path);
            }
            (_, Some("number"), Value::Number(_)) | (_, Some("boolean"), Value::Bool(_)) | (_, None, _) => {}
            (_, Some(expected), _) => self.wrong_type(expected, value, path),
        }
        self.mended.faults.len() == before
    }

    fn wrong_type(&mut self, expected: &str, value: &Value, path: &FieldPath) {
        let remedy = match (expected, value) {
            ("string", Value::Bool(_) | Value::Number(_)) => "put it in quotes",
            ("string", _) => "write a text",
            ("integer" | "number", Value::String(_)) => "write a number, without quotes",
            ("integer" | "number", _) => "write a whole number",
            ("boolean", _) => "write true or false",
            ("array", _) => "write a list: [a, b], or a line for each with - in front",
            _ => "write fields below it, or { field: value }",
        };
        let what = format!("{path} is {}, but should be {}", name_of(value), name_of_type(expected));
        self.fault(path, what, remedy);
    }

    fn object(&mut self, schema: &Value, object: &mut Map<String, Value>, path: &FieldPath) {
        let empty = Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&empty);
        let others = schema["additionalProperties"].is_object().then_some(&schema["additionalProperties"]);
        if others.is_none() {
            self.unknown_fields(properties, object, path);
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(name) {
                let what = format!("{} is missing", path.key(name));
                self.fault(path, what, remedy_for_missing(&properties[name]));
                self.mended.is_doubtful = true;
            }
        }
        object.retain(|key, value| {
            let Some(schema) = properties.get(key).or(others) else { return false };
            let keep = self.value(schema, value, &path.key(key));
            self.mended.is_doubtful |= !keep;
            keep
        });
    }

    fn unknown_fields(&mut self, properties: &Map<String, Value>, object: &mut Map<String, Value>, path: &FieldPath) {
        let known = || properties.keys().map(String::as_str);
        let keys: Vec<String> = object.keys().filter(|key| !properties.contains_key(*key)).cloned().collect();
        for key in keys {
            let meant = nearest(&key, known());
            let fault = unknown(&key, meant, known(), path);
            if let (Some(meant), Some(value)) = (meant, object.remove(&key)) {
                self.mended.renamed.push((fault.path.clone(), path.key(meant)));
                object.entry(meant).or_insert(value);
            }
            self.mended.faults.push(fault);
        }
    }

    fn array(&mut self, schema: &Value, items: &mut Vec<Value>, path: &FieldPath) {
        if schema["minItems"].as_u64().is_some_and(|least| (items.len() as u64) < least) {
            self.fault(path, format!("{path} is an empty list"), "add an item, or remove the field");
        }
        // A list keeps its places: what is left out of it would move the others.
        for (index, item) in items.iter_mut().enumerate() {
            if !self.value(&schema["items"], item, &path.index(index)) {
                self.mended.is_doubtful = true;
                *item = Value::Null;
            }
        }
        items.retain(|item| !item.is_null());
    }

    fn text(&mut self, schema: &Value, text: &str, path: &FieldPath) {
        if let Some(allowed) = schema["enum"].as_array() {
            let allowed: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
            if !allowed.contains(&text) {
                let remedy = match nearest(text, allowed.iter().copied()) {
                    Some(name) => format!("did you mean {name}? ({})", allowed.join(", ")),
                    None => format!("write one of {}", allowed.join(", ")),
                };
                self.fault(path, format!("{path} cannot be {text:?}"), remedy);
            }
        } else if let Some(format) = schema["format"].as_str()
            && let Err(error) = values::check_format(format, text)
        {
            self.fault(path, error.what, error.remedy);
        }
    }

    fn number(&mut self, schema: &Value, number: &serde_json::Number, path: &FieldPath) {
        let Some(number) = number.as_f64() else { return };
        let (least, most) = (schema["minimum"].as_f64(), schema["maximum"].as_f64());
        if least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most) {
            let remedy = match (least, most) {
                (Some(least), Some(most)) => format!("write a number from {least} to {most}"),
                (Some(least), None) => format!("write a number from {least} on"),
                (None, Some(most)) => format!("write a number up to {most}"),
                (None, None) => "write another number".to_owned(),
            };
            self.fault(path, format!("{path} cannot be {number}"), remedy);
        }
    }

    fn size(&mut self, value: &Value, path: &FieldPath) {
        match value {
            Value::String(text) => {
                if let Err(error) = text.parse::<Size>() {
                    self.fault(path, error.what, error.remedy);
                }
            }
            Value::Number(number) if number.is_u64() => {}
            _ => self.fault(
                path,
                format!("{path} is {}, but should be a size", name_of(value)),
                "write a number of bytes, possibly with Ki, Mi or Gi, as in 50Mi",
            ),
        }
    }

    fn texts(&mut self, value: &Value, path: &FieldPath) {
        let items = match value {
            Value::String(_) => return,
            Value::Array(items) => items,
            _ => {
                let what = format!("{path} is {}, but should be a text or a list of texts", name_of(value));
                return self.fault(path, what, "put it in quotes, or write a list");
            }
        };
        for (index, item) in items.iter().enumerate() {
            if !item.is_string() {
                self.wrong_type("string", item, &path.index(index));
            }
        }
    }

    /// Which of the forms fit which criterion is for the compiler to say; here only what none can be.
    fn criterion(&mut self, value: &Value, path: &FieldPath) {
        match value {
            Value::String(_) | Value::Bool(_) => {}
            Value::Array(items) if items.is_empty() => {
                self.fault(path, format!("{path} is an empty list"), "add a value, or remove the criterion");
            }
            Value::Array(_) => self.texts(value, path),
            Value::Object(object) => {
                check_known(object, ["table"].into_iter(), path, &mut self.mended.faults);
                match object.get("table") {
                    Some(Value::String(_)) => {}
                    Some(other) => self.wrong_type("string", other, &path.key("table")),
                    None => self.fault(path, format!("{path}.table is missing"), "write { table: name }"),
                }
            }
            _ => self.fault(
                path,
                format!("{path} is {}, but should be a value, a list of values or {{ table: name }}", name_of(value)),
                "put it in quotes, or write a list",
            ),
        }
    }
}

fn remedy_for_missing(schema: &Value) -> String {
    let description = schema["description"].as_str().unwrap_or_default();
    match description.split_once(". ").map_or(description, |(first, _)| first).trim_end_matches('.') {
        "" => "add it".to_owned(),
        sentence => format!("add it ({sentence})"),
    }
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a group of fields",
    }
}

fn name_of_type(name: &str) -> &'static str {
    match name {
        "string" => "a text",
        "integer" | "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        _ => "a group of fields",
    }
}
