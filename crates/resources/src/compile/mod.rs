//! From documents to one snapshot. What one document cannot say wrongly alone is found here.

mod certificates;
mod directory;
mod listeners;
mod platform;
mod policies;
mod tables;
mod transports;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rules::RuleSet;
use sha2::{Digest, Sha256};
use tables::Tables;

use crate::fault::Fault;
use crate::object::{Data, Kind, Object, Spec};
use crate::path::FieldPath;
use crate::suggest::nearest;
use crate::{Environment, ReadFile, Snapshot};

/// Makes a snapshot of documents, with all faults between them.
///
/// Both: where there are faults the snapshot, if any, holds what is right. A folder is put in force only without faults.
pub fn compile(
    objects: &[Object],
    environment: &Environment,
    read_file: &dyn ReadFile,
) -> (Option<Snapshot>, Vec<Fault>) {
    let mut compiler = Compiler::new(objects, environment, read_file);
    let snapshot = compiler.snapshot();
    let mut faults = compiler.faults;
    faults.sort();
    faults.dedup();
    (snapshot, faults)
}

/// Names that a dangling reference is compared with.
const SUGGEST_MAX: usize = 1000;

struct Compiler<'a> {
    objects: &'a [Object],
    by_name: BTreeMap<(Kind, &'a str), &'a Object>,
    environment: &'a Environment,
    read_file: &'a dyn ReadFile,
    faults: Vec<Fault>,
    /// What was read, so that a file is read once and has one content.
    contents: HashMap<PathBuf, Result<Arc<[u8]>, String>>,
    files: BTreeSet<PathBuf>,
}

impl<'a> Compiler<'a> {
    fn new(objects: &'a [Object], environment: &'a Environment, read_file: &'a dyn ReadFile) -> Self {
        let mut compiler = Self {
            objects,
            by_name: BTreeMap::new(),
            environment,
            read_file,
            faults: Vec::new(),
            contents: HashMap::new(),
            files: BTreeSet::new(),
        };
        for object in objects.iter().filter(|object| !object.name.is_empty()) {
            match compiler.by_name.entry((object.kind, &object.name)) {
                std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert(object)),
                std::collections::btree_map::Entry::Occupied(entry) => {
                    let what = format!("there is another {} {} at {}", object.kind, object.name, entry.get().place());
                    compiler.faults.push(object.fault(&name_path(), what, "rename or remove one of them"));
                }
            }
        }
        compiler
    }

    fn snapshot(&mut self) -> Option<Snapshot> {
        let platform = self.platform();
        let spec = platform.and_then(|object| match &object.spec {
            Spec::Platform(spec) => Some((object, spec.as_ref())),
            _ => None,
        });
        let transports = self.transports();
        let tables = self.tables();
        self.host_tables(&tables);
        let policies = self.policies(&tables);
        let directory = self.directory(&tables);
        let (listeners, listener_rules, certificates) = self.listeners(spec.map(|(_, spec)| spec), &policies);
        let (object, spec) = spec?;
        self.check_platform(object, spec, &directory);
        let version = self.version();
        let rules = RuleSet {
            version: version.clone(),
            postmaster: Some(spec.postmaster.0.clone()),
            listeners: listener_rules,
            domains: directory.domains,
            users: directory.users,
            tables,
            transports: transports
                .iter()
                .map(|(name, transport)| (name.clone(), transports::route_by(transport)))
                .collect(),
            relay_transport: spec.relay_transport.clone(),
            limits: platform::expansion_limits(spec),
        };
        Some(Snapshot {
            version,
            resources: self.objects.len(),
            platform: platform::build(&object.name, spec, self.environment),
            listeners,
            transports,
            certificates,
            rules: Arc::new(rules),
            demo_passwords: self.demo_passwords(),
            files: self.files.iter().cloned().collect(),
        })
    }

    /// By the address of the MailUser whose Secret carries the annotation.
    fn demo_passwords(&self) -> BTreeMap<String, String> {
        let of_user = |object: &Object| {
            let Spec::User(spec) = &object.spec else { return None };
            let secret = self.find(Kind::Secret, &spec.password_secret_ref.as_ref()?.name)?;
            Some((spec.address.0.to_string(), secret.demo_password.clone()?))
        };
        self.objects.iter().filter_map(of_user).collect()
    }

    /// Of everything that went in; the order of documents and files does not matter.
    fn version(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(env!("CARGO_PKG_VERSION"));
        let mut parts: Vec<_> = self.objects.iter().map(|object| (object.kind, &object.name, object.digest)).collect();
        parts.sort();
        for (kind, name, digest) in parts {
            hash.update(format!("{kind}\0{name}\0"));
            hash.update(digest);
        }
        for file in &self.files {
            hash.update(file.as_os_str().as_encoded_bytes());
            if let Some(Ok(content)) = self.contents.get(file) {
                hash.update(Sha256::digest(content));
            }
        }
        hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// A document that is in doubt already is not blamed for more.
    fn fault(&mut self, object: &Object, path: &FieldPath, what: impl Into<String>, remedy: impl Into<String>) {
        if !object.is_doubtful {
            self.faults.push(object.fault(path, what, remedy));
        }
    }

    fn find(&self, kind: Kind, name: &str) -> Option<&'a Object> {
        self.by_name.get(&(kind, name)).copied()
    }

    /// Objects of a kind in the order in which they were read, without second ones of the same name.
    fn of_kind(&self, kind: Kind) -> Vec<&'a Object> {
        let is_first = |object: &&Object| {
            object.name.is_empty() || self.find(kind, &object.name).is_some_and(|first| std::ptr::eq(first, *object))
        };
        self.objects.iter().filter(|object| object.kind == kind).filter(is_first).collect()
    }

    /// Finds what a field refers to; a reference that dangles is a fault there.
    fn reference(&mut self, from: &Object, path: &FieldPath, kind: Kind, name: &str) -> Option<&'a Object> {
        let found = self.find(kind, name);
        if found.is_none() {
            let known: Vec<&str> = self.by_name.keys().filter(|(k, _)| *k == kind).map(|(_, name)| *name).collect();
            // Among very many names something is always near, and finding it for each of many faults takes long.
            let near = if known.len() > SUGGEST_MAX { None } else { nearest(name, known) };
            let remedy = match near {
                Some(near) => format!("did you mean {near}?"),
                None => format!("add the {kind}, or name one that is there"),
            };
            self.fault(from, path, format!("there is no {kind} {name:?}"), remedy);
        }
        found
    }

    /// A value of a Secret or ConfigMap; what is missing is a fault at the field that refers to it.
    fn data(&mut self, from: &Object, path: &FieldPath, kind: Kind, name: &str, key: &str) -> Option<&'a [u8]> {
        let object = self.reference(from, &path.key("name"), kind, name)?;
        let Spec::Data(Data(values)) = &object.spec else { return None };
        let value = values.get(key);
        if value.is_none() {
            let keys: Vec<&str> = values.keys().map(String::as_str).collect();
            let remedy = match nearest(key, keys.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None if keys.is_empty() => format!("add it at {}", object.place()),
                None => format!("add it at {}, or name one of {}", object.place(), keys.join(", ")),
            };
            self.fault(from, path, format!("{kind} {name} has no key {key:?}"), remedy);
        }
        value.map(Vec::as_slice)
    }

    /// A value of a Secret that is text, such as a password, without the line end that editors add.
    fn text(&mut self, from: &Object, path: &FieldPath, name: &str, key: &str) -> Option<&'a str> {
        let bytes = self.data(from, path, Kind::Secret, name, key)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Some(text.trim_end_matches(['\r', '\n'])),
            Err(_) => {
                self.fault(from, path, format!("key {key:?} of Secret {name} is not UTF-8"), "write it as text");
                None
            }
        }
    }

    /// Where a file is that a document names.
    fn beside(&self, object: &Object, path: &str) -> PathBuf {
        let folder = object.file.parent().unwrap_or(Path::new(""));
        self.environment.working_dir.join(folder).join(path)
    }

    /// The content of a file that a document names; what cannot be read is a fault there.
    fn file(&mut self, object: &Object, path: &FieldPath, name: &str) -> Option<Arc<[u8]>> {
        let file = self.beside(object, name);
        self.files.insert(file.clone());
        let reader = self.read_file;
        let read = self.contents.entry(file).or_insert_with_key(|file| reader.read(file).map(Arc::from));
        match read.clone() {
            Ok(content) => Some(content),
            Err(error) => {
                let remedy = "put the file there, readable for the platform; the path is relative to the document";
                self.fault(object, path, format!("file {name:?} cannot be read: {error}"), remedy);
                None
            }
        }
    }
}

fn name_path() -> FieldPath {
    FieldPath::of("metadata.name")
}

fn spec_path(dotted: &str) -> FieldPath {
    FieldPath::of(&format!("spec.{dotted}"))
}

/// Faults of `%` variables in a text that is filled in for each delivery.
fn bad_variable<'t>(text: &'t str, known: &str) -> Option<&'t str> {
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let after = &rest[at + 1..];
        match after.chars().next() {
            Some(letter) if letter == '%' || known.contains(letter) => rest = &after[letter.len_utf8()..],
            Some(letter) => return Some(&rest[at..at + 1 + letter.len_utf8()]),
            None => return Some(&rest[at..]),
        }
    }
    None
}
