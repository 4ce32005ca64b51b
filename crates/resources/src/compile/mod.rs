//! From documents to one snapshot. What one document cannot say wrongly alone is found here.

mod certificates;
mod directory;
mod listeners;
mod platform;
mod policies;
mod tables;
mod transports;

use std::collections::hash_map::Entry;
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
    objects: Vec<Object>,
    environment: &Environment,
    read_file: &dyn ReadFile,
) -> (Option<Snapshot>, Vec<Fault>) {
    let count = objects.len();
    let folder = objects.first().and_then(|object| object.file.parent()).map(Path::to_owned);
    // Users are by far the most: each is given up for what is made of it, so that both together never fill memory.
    let (users, others): (Vec<_>, Vec<_>) = objects.into_iter().partition(|object| object.kind == Kind::MailUser);
    let mut compiler = Compiler::new(&others, environment, read_file);
    compiler.folder = folder;
    let snapshot = compiler.snapshot(count, users);
    let mut faults = compiler.faults;
    faults.sort();
    faults.dedup();
    (snapshot, faults)
}

/// Names that a dangling reference is compared with.
const SUGGEST_MAX: usize = 1000;

struct Compiler<'a> {
    /// All but the users.
    objects: &'a [Object],
    /// All but the users, to which nothing refers by name.
    by_name: HashMap<(Kind, &'a str), &'a Object>,
    /// Of the first document.
    folder: Option<PathBuf>,
    environment: &'a Environment,
    read_file: &'a dyn ReadFile,
    faults: Vec<Fault>,
    /// What was read, so that a file is read once and has one content.
    contents: HashMap<PathBuf, Result<Arc<[u8]>, String>>,
    files: BTreeSet<PathBuf>,
    digests: Digests,
    demo_passwords: BTreeMap<String, String>,
}

/// Of all documents, in any order: the sum of a digest of each.
#[derive(Default)]
struct Digests([u64; 4]);

impl Digests {
    fn add(&mut self, object: &Object) {
        let mut hash = Sha256::new();
        for part in [object.kind.name(), "\0", &object.name, "\0"] {
            hash.update(part);
        }
        let digest = hash.chain_update(object.digest).finalize();
        for (sum, part) in self.0.iter_mut().zip(digest.as_chunks().0) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*part));
        }
    }
}

impl<'a> Compiler<'a> {
    fn new(objects: &'a [Object], environment: &'a Environment, read_file: &'a dyn ReadFile) -> Self {
        let mut compiler = Self {
            objects,
            by_name: HashMap::with_capacity(objects.len()),
            folder: None,
            environment,
            read_file,
            faults: Vec::new(),
            contents: HashMap::new(),
            files: BTreeSet::new(),
            digests: Digests::default(),
            demo_passwords: BTreeMap::new(),
        };
        objects.iter().for_each(|object| compiler.digests.add(object));
        for object in objects.iter().filter(|object| !object.name.is_empty()) {
            match compiler.by_name.entry((object.kind, &object.name)) {
                Entry::Vacant(entry) => drop(entry.insert(object)),
                Entry::Occupied(entry) => compiler.faults.push(second(object, entry.get())),
            }
        }
        compiler
    }

    fn snapshot(&mut self, count: usize, users: Vec<Object>) -> Option<Snapshot> {
        let platform = self.platform();
        let spec = platform.and_then(|object| match &object.spec {
            Spec::Platform(spec) => Some((object, spec.as_ref())),
            _ => None,
        });
        let transports = self.transports();
        let tables = self.tables();
        self.host_tables(&tables);
        let policies = self.policies(&tables);
        let directory = self.directory(users, &tables);
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
            resources: count,
            platform: platform::build(&object.name, spec, self.environment),
            listeners,
            transports,
            certificates,
            rules: Arc::new(rules),
            demo_passwords: std::mem::take(&mut self.demo_passwords),
            files: self.files.iter().cloned().collect(),
        })
    }

    /// Of everything that went in; the order of documents and files does not matter.
    fn version(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(env!("CARGO_PKG_VERSION"));
        for sum in self.digests.0 {
            hash.update(sum.to_le_bytes());
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
            let mut known: Vec<&str> = self.by_name.keys().filter(|(k, _)| *k == kind).map(|(_, name)| *name).collect();
            // Among very many names something is always near, and finding it for each of many faults takes long.
            let near = if known.len() > SUGGEST_MAX {
                None
            } else {
                // Of two that are as near, always the same.
                known.sort_unstable();
                nearest(name, known)
            };
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
        let object = match self.find(kind, name) {
            Some(object) => object,
            None => self.reference(from, &path.key("name"), kind, name)?,
        };
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

/// A document has the kind and the name of one before.
fn second(object: &Object, first: &Object) -> Fault {
    let what = format!("there is another {} {} at {}", object.kind, object.name, first.place());
    object.fault(&name_path(), what, "rename or remove one of them")
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
