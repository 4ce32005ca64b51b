use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rules::{Pattern, SqliteTable, StaticTable, Table};
use types::{Address, Domain};

use super::{Compiler, bad_variable, spec_path};
use crate::kinds::{MailTableSpec, TableSqlite};
use crate::object::{Kind, Object, Spec};
use crate::path::FieldPath;

pub(super) type Tables = BTreeMap<String, Arc<Table>>;

impl Compiler<'_> {
    pub(super) fn tables(&mut self) -> Tables {
        let mut tables = BTreeMap::new();
        for object in self.of_kind(Kind::MailTable) {
            let Spec::Table(spec) = &object.spec else { continue };
            if let Some(table) = self.table(object, spec) {
                tables.insert(object.name.clone(), Arc::new(table));
            }
        }
        tables
    }

    fn table(&mut self, object: &Object, spec: &MailTableSpec) -> Option<Table> {
        let sources = [
            ("list", spec.list.is_some()),
            ("map", spec.map.is_some()),
            ("file", spec.file.is_some()),
            ("sqlite", spec.sqlite.is_some()),
            ("secretRef", spec.secret_ref.is_some()),
            ("configMapRef", spec.config_map_ref.is_some()),
        ];
        let given: Vec<&str> = sources.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect();
        match given[..] {
            [_] => {}
            [] => {
                let what = "the table has no source";
                let remedy = "add one of list, map, file, sqlite, secretRef and configMapRef";
                self.fault(object, &FieldPath::of("spec"), what, remedy);
                return None;
            }
            [first, second, ..] => {
                let what = format!("the table has {first} and {second}");
                self.fault(object, &spec_path(second), what, "keep one of them");
            }
        }
        if let Some(list) = &spec.list {
            let rows = list.iter().map(|key| (key.clone(), Vec::new()));
            return Some(Table::Static(self.rows(object, rows.enumerate(), |i| spec_path("list").index(i))));
        }
        if let Some(map) = &spec.map {
            let path = |i: usize| map.keys().nth(i).map_or_else(|| spec_path("map"), |key| spec_path("map").key(key));
            let rows = map.iter().map(|(key, values)| (key.clone(), values.0.clone()));
            return Some(Table::Static(self.rows(object, rows.enumerate(), path)));
        }
        if let Some(sqlite) = &spec.sqlite {
            return self.sqlite(object, sqlite);
        }
        let (path, content) = if let Some(file) = &spec.file {
            let path = spec_path("file.path");
            let content = self.file(object, &path, &file.path)?;
            (path, content)
        } else if let Some(secret) = &spec.secret_ref {
            let path = spec_path("secretRef");
            let content = self.data(object, &path, Kind::Secret, &secret.name, &secret.key)?;
            (path, Arc::from(content))
        } else {
            let reference = spec.config_map_ref.as_ref()?;
            let path = spec_path("configMapRef");
            let content = self.data(object, &path, Kind::ConfigMap, &reference.name, &reference.key)?;
            (path, Arc::from(content))
        };
        let Ok(text) = std::str::from_utf8(&content) else {
            self.fault(object, &path, "the table is not UTF-8", "write it as text");
            return None;
        };
        let rows = text.lines().enumerate().filter_map(|(line, text)| Some((line, parse_line(text)?)));
        Some(Table::Static(self.rows(object, rows, |_| path.clone())))
    }

    fn rows(
        &mut self,
        object: &Object,
        rows: impl Iterator<Item = (usize, (String, Vec<String>))>,
        path: impl Fn(usize) -> FieldPath,
    ) -> StaticTable {
        let (mut exact, mut wildcards, mut networks) = (HashMap::new(), Vec::new(), Vec::new());
        for (number, (key, values)) in rows {
            let key = normal_key(&key);
            if key.contains('*') {
                wildcards.push((Pattern::Wildcard(key), values));
                continue;
            }
            if let Some(network) = parse_network(&key) {
                networks.push(network);
            }
            if exact.insert(key.clone(), values).is_some() {
                let what = format!("{key:?} is in the table twice (number {})", number + 1);
                self.fault(object, &path(number), what, "keep one of them");
            }
        }
        StaticTable::new(exact, wildcards, networks)
    }

    fn sqlite(&mut self, object: &Object, sqlite: &TableSqlite) -> Option<Table> {
        let path = spec_path("sqlite");
        let query = sqlite.query.trim().trim_end_matches(';').trim_end();
        let first = query.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        let place = path.key("query");
        if !matches!(first.as_str(), "SELECT" | "WITH") {
            self.fault(
                object,
                &place,
                "the query does not select anything",
                "write SELECT ... FROM ... WHERE ... = '%u'",
            );
            return None;
        }
        if let Some(variable) = bad_variable(query, "und") {
            // LIKE patterns use it as well.
            let what = format!("{variable:?} is no variable of a query");
            self.fault(object, &place, what, "write %u, %n, %d, or %% for a percent sign");
            return None;
        }
        if sqlite.path.is_empty() {
            self.fault(object, &path.key("path"), "path is empty", "write where the SQLite file is");
            return None;
        }
        Some(Table::Sqlite(SqliteTable { path: self.beside(object, &sqlite.path), query: query.to_owned() }))
    }

    /// A table that is used for what it says, by its name.
    pub(super) fn table_reference(&mut self, object: &Object, path: &FieldPath, name: &str) {
        self.reference(object, path, Kind::MailTable, name);
    }

    /// A table whose values are addresses.
    pub(super) fn address_table(&mut self, object: &Object, path: &FieldPath, name: &str, tables: &Tables) {
        self.reference(object, path, Kind::MailTable, name);
        let Some(Table::Static(table)) = tables.get(name).map(AsRef::as_ref) else { return };
        let mut rows: Vec<(&str, &Vec<String>)> =
            table.exact.iter().map(|(key, values)| (key.as_str(), values)).collect();
        rows.sort();
        if let Some((key, _)) = rows.iter().find(|(_, values)| values.is_empty()) {
            let what = format!("MailTable {name} has no address for {key:?}");
            self.fault(object, path, what, "write a map from addresses to addresses, not a list");
            return;
        }
        let is_address = |value: &str| {
            let parse = |text: &str| Address::parse(text).or_else(|_| Address::parse(&format!("{text}@example.org")));
            parse(value.trim()).is_ok() || value.split(',').all(|part| parse(part.trim()).is_ok())
        };
        if let Some((key, _)) = rows.iter().find(|(_, values)| !values.iter().all(|value| is_address(value))) {
            let what = format!("MailTable {name} has a value for {key:?} that is no address");
            self.fault(object, path, what, "write addresses, separated by commas");
        }
    }
}

/// A key and its values, as in `key value, value` or `key: value`; `None`: nothing is said.
fn parse_line(line: &str) -> Option<(String, Vec<String>)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (key, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    // The last colon of an IPv6 network such as 2001:db8:: belongs to it.
    let key = if parse_network(key).is_some() { key } else { key.strip_suffix(':').unwrap_or(key) };
    // A comment may follow values.
    let rest = rest.split_once(" #").map_or(rest, |(rest, _)| rest);
    let rest = if rest.trim_start().starts_with('#') { "" } else { rest };
    let values = rest.split(',').map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned).collect();
    Some((key.to_owned(), values))
}

/// The form that keys are looked up by: lower case, domains in A-labels; `<>` is the null reverse-path.
pub(super) fn normal_key(key: &str) -> String {
    if key == "<>" {
        return String::new();
    }
    if key.is_ascii() {
        return key.to_ascii_lowercase();
    }
    if let Ok(address) = Address::parse(key) {
        return address.key();
    }
    match key.rsplit_once('@') {
        Some((local, domain)) => match Domain::parse(domain) {
            Ok(domain) => format!("{}@{domain}", local.to_lowercase()),
            Err(_) => key.to_lowercase(),
        },
        None => Domain::parse(key).map_or_else(|_| key.to_lowercase(), |domain| domain.to_string()),
    }
}

/// A network, or an address as a network of one.
pub(super) fn parse_network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().map(|network| network.trunc()).or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_key_and_values_behind_white_space() {
        for (line, expected) in [
            ("# comment", None),
            ("   ", None),
            ("alice@example.org", Some(("alice@example.org", vec![]))),
            ("root: alice, bob", Some(("root", vec!["alice", "bob"]))),
            ("root\talice # the boss", Some(("root", vec!["alice"]))),
            ("example.net # no value", Some(("example.net", vec![]))),
            ("2001:db8:: x", Some(("2001:db8::", vec!["x"]))),
            ("192.0.2.0/24", Some(("192.0.2.0/24", vec![]))),
        ] {
            let found = parse_line(line);
            let expected = expected.map(|(key, values): (&str, Vec<&str>)| {
                (key.to_owned(), values.into_iter().map(str::to_owned).collect())
            });
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn keys_have_one_form() {
        for (key, expected) in [
            ("Alice@Example.ORG", "alice@example.org"),
            ("@BÜCHER.example", "@xn--bcher-kva.example"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("<>", ""),
            ("*.Example.org", "*.example.org"),
        ] {
            assert_eq!(normal_key(key), expected, "{key}");
        }
    }
}
