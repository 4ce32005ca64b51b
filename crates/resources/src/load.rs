//! From texts to typed documents.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use base64::Engine;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::check::{FieldFault, Mended, check, check_known};
use crate::fault::Fault;
use crate::kinds;
use crate::object::{Data, Kind, Object, Spec};
use crate::path::{FieldPath, Place, Places};
use crate::suggest::nearest;
use crate::yaml::{self, Document};

/// A Kubernetes name is no longer.
const NAME_OCTETS_MAX: usize = 253;

/// Schemas of `spec` by kind.
static SCHEMAS: LazyLock<HashMap<String, Value>> = LazyLock::new(|| {
    kinds::crds()
        .iter()
        .map(|crd| {
            let crd = serde_json::to_value(crd).unwrap_or_default();
            let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
            (crd["spec"]["names"]["kind"].as_str().unwrap_or_default().to_owned(), schema.clone())
        })
        .collect()
});

/// Reads documents from the texts of files (any number of documents each), with all faults of all of them.
///
/// A document that has faults but is known by kind and name is among the objects, so that what refers to it is not faulty too.
pub fn load(files: &[(PathBuf, String)]) -> (Vec<Object>, Vec<Fault>) {
    let mut loader = Loader::default();
    for (file, text) in files {
        loader.read(file, text);
    }
    loader.finish()
}

/// As [`load`], file by file, so that the texts need not be held together.
#[derive(Debug, Default)]
pub struct Loader {
    objects: Vec<Object>,
    faults: Vec<Fault>,
}

impl Loader {
    /// Reads the documents of one more file.
    pub fn read(&mut self, file: &Path, text: &str) {
        let (objects, faults) = (&mut self.objects, &mut self.faults);
        let shared = Arc::new(file.to_owned());
        let found = yaml::read(text, |document| objects.extend(object(document, &shared, faults)));
        for broken in found.broken {
            self.faults.push(at(file, broken.place, broken.what, broken.remedy));
        }
        self.objects.extend(found.unread.into_iter().filter_map(|text| guess(text, &shared)));
    }

    /// The objects in the order in which they were read, and the faults in theirs.
    pub fn finish(self) -> (Vec<Object>, Vec<Fault>) {
        let Self { objects, mut faults } = self;
        faults.sort();
        (objects, faults)
    }
}

fn at(file: &Path, place: Place, what: impl Into<String>, remedy: impl Into<String>) -> Fault {
    Fault { file: file.to_owned(), line: place.line, column: place.column, what: what.into(), remedy: remedy.into() }
}

/// Types one document; an empty one is none.
fn object(document: Document, file: &Arc<PathBuf>, faults: &mut Vec<Fault>) -> Option<Object> {
    let Document { value, mut places } = document;
    let digest = Sha256::digest(value.to_string()).into();
    let demo_password = demo_password(&value);
    let mut mended = Mended::default();
    let object = match value {
        Value::Null => None,
        Value::Object(fields) => typed(fields, &mut mended),
        _ => {
            mended.faults.push(FieldFault {
                path: FieldPath::root(),
                what: "the document is no resource".to_owned(),
                remedy: "write apiVersion, kind, metadata and spec".to_owned(),
            });
            None
        }
    };
    faults.extend(mended.faults.into_iter().map(|fault| at(file, places.find(&fault.path), fault.what, fault.remedy)));
    for (written, meant) in mended.renamed {
        places.copy(&written, &meant);
    }
    let (kind, name, spec) = object?;
    Some(Object {
        kind,
        name,
        spec,
        file: Arc::clone(file),
        places,
        is_doubtful: mended.is_doubtful,
        digest,
        demo_password,
    })
}

/// The annotation `posthouse.dev/demo-password`: what `posthouse run` may print, because it is printed in the document.
fn demo_password(value: &Value) -> Option<String> {
    let annotations = &value["metadata"]["annotations"];
    annotations["posthouse.dev/demo-password"].as_str().map(str::to_owned)
}

fn typed(mut fields: Map<String, Value>, mended: &mut Mended) -> Option<(Kind, String, Spec)> {
    let kind = kind(&fields, &mut mended.faults);
    // Without a name it is still there: a platform that lacks its name is not a platform that is missing.
    let name = name(&fields, &mut mended.faults).unwrap_or_default();
    let (kind, is_sure) = kind?;
    mended.is_doubtful |= !is_sure;
    let spec = match kind {
        Kind::Secret | Kind::ConfigMap => data(kind, &fields, mended).map(Spec::Data),
        _ => custom(kind, &mut fields, mended),
    };
    Some((kind, name, spec.unwrap_or(Spec::Faulty)))
}

/// The kind, and whether it is written rightly.
fn kind(fields: &Map<String, Value>, faults: &mut Vec<FieldFault>) -> Option<(Kind, bool)> {
    let mut fault = |path: FieldPath, what: String, remedy: String| faults.push(FieldFault { path, what, remedy });
    let names = || Kind::ALL.map(Kind::name);
    let Some(written) = fields.get("kind") else {
        fault(FieldPath::root(), "kind is missing".to_owned(), format!("add one of {}", names().join(", ")));
        return None;
    };
    let path = FieldPath::of("kind");
    let Some(written) = written.as_str() else {
        fault(path, "kind is not a text".to_owned(), format!("write one of {}", names().join(", ")));
        return None;
    };
    let Some(kind) = Kind::of(written) else {
        let meant = nearest(written, names());
        let remedy = match meant {
            Some(name) => format!("did you mean {name}?"),
            None => format!("write one of {}", names().join(", ")),
        };
        fault(path, format!("unknown kind {written:?}"), remedy);
        return Some((Kind::of(meant?)?, false));
    };
    match fields.get("apiVersion").map(Value::as_str) {
        Some(Some(version)) if version == kind.api_version() => Some((kind, true)),
        None => {
            let remedy = format!("add apiVersion: {}", kind.api_version());
            fault(FieldPath::root(), "apiVersion is missing".to_owned(), remedy);
            Some((kind, false))
        }
        Some(version) => {
            let what = match version {
                Some(version) => format!("unknown apiVersion {version:?} of {kind}"),
                None => "apiVersion is not a text".to_owned(),
            };
            fault(FieldPath::of("apiVersion"), what, format!("write {}", kind.api_version()));
            Some((kind, false))
        }
    }
}

fn name(fields: &Map<String, Value>, faults: &mut Vec<FieldFault>) -> Option<String> {
    // What kubectl prints of an object may be among them.
    const METADATA: [&str; 14] = [
        "name",
        "namespace",
        "labels",
        "annotations",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "uid",
    ];
    let mut fault = |path: &FieldPath, what: &str, remedy: &str| {
        faults.push(FieldFault { path: path.clone(), what: what.to_owned(), remedy: remedy.to_owned() });
    };
    let path = FieldPath::of("metadata");
    let metadata = match fields.get("metadata") {
        Some(Value::Object(metadata)) => metadata,
        Some(_) => {
            fault(&path, "metadata is not a group of fields", "write metadata: { name: some-name }");
            return None;
        }
        None => {
            fault(&FieldPath::root(), "metadata is missing", "add metadata: { name: some-name }");
            return None;
        }
    };
    const NAME_REMEDY: &str = "write lower-case letters, digits, - and ., beginning and ending with a letter or digit";
    let name = match metadata.get("name") {
        Some(Value::String(name)) => {
            if !is_name(name) {
                fault(&path.key("name"), &format!("{name:?} is no name of a resource"), NAME_REMEDY);
            }
            Some(name.clone())
        }
        Some(_) => {
            fault(&path.key("name"), "metadata.name is not a text", NAME_REMEDY);
            None
        }
        None => {
            fault(&path, "metadata.name is missing", "add a name, by which others refer to this");
            None
        }
    };
    check_known(metadata, METADATA.into_iter(), &path, faults);
    name
}

/// RFC 1123 subdomain, as Kubernetes has it.
fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner)
    };
    name.len() <= NAME_OCTETS_MAX && name.split('.').all(label)
}

fn custom(kind: Kind, fields: &mut Map<String, Value>, mended: &mut Mended) -> Option<Spec> {
    let known = ["apiVersion", "kind", "metadata", "spec", "status"];
    check_known(fields, known.into_iter(), &FieldPath::root(), &mut mended.faults);
    let Some(value) = fields.get_mut("spec") else {
        // One fault is enough where `spec` is misspelled.
        if !fields.keys().any(|key| nearest(key, known) == Some("spec")) {
            mended.faults.push(FieldFault {
                path: FieldPath::root(),
                what: "spec is missing".to_owned(),
                remedy: format!("add what the {kind} should be; docs/configuration.md lists its fields"),
            });
        }
        return None;
    };
    let found = check(SCHEMAS.get(kind.name())?, value, &FieldPath::of("spec"));
    let is_faultless = found.faults.is_empty();
    mended.faults.extend(found.faults);
    mended.renamed.extend(found.renamed);
    mended.is_doubtful |= found.is_doubtful;
    let mut late = Vec::new();
    let spec = match kind {
        Kind::MailPlatform => parse(value, &mut late).map(Spec::Platform),
        Kind::MailListener => parse(value, &mut late).map(Spec::Listener),
        Kind::MailDomain => parse(value, &mut late).map(Spec::Domain),
        Kind::MailUser => parse(value, &mut late).map(Spec::User),
        Kind::MailTable => parse(value, &mut late).map(Spec::Table),
        Kind::MailPolicy => parse(value, &mut late).map(Spec::Policy),
        Kind::MailTransport => parse(value, &mut late).map(Spec::Transport),
        Kind::Secret | Kind::ConfigMap => None,
    };
    // What is left of a faulty value may lack what its type needs; that has been said already.
    if is_faultless {
        mended.faults.extend(late);
    }
    spec
}

/// The schema holds, so this can fail only where the type asks for more than its schema says.
fn parse<T: DeserializeOwned>(value: &Value, faults: &mut Vec<FieldFault>) -> Option<Box<T>> {
    match serde_path_to_error::deserialize(value) {
        Ok(spec) => Some(Box::new(spec)),
        Err(error) => {
            let path = error.path().iter().fold(FieldPath::of("spec"), |path, segment| match segment {
                serde_path_to_error::Segment::Seq { index } => path.index(*index),
                serde_path_to_error::Segment::Map { key } => path.key(key),
                _ => path,
            });
            faults.push(FieldFault {
                what: format!("{path} does not fit: {}", error.inner()),
                path,
                remedy: "see docs/configuration.md".to_owned(),
            });
            None
        }
    }
}

/// `data` of a Secret is base64, of a ConfigMap text; `stringData` and `binaryData` the other way round.
fn data(kind: Kind, fields: &Map<String, Value>, mended: &mut Mended) -> Option<Data> {
    let faults = &mut mended.faults;
    let before = faults.len();
    let known: &[&str] = match kind {
        Kind::Secret => &["apiVersion", "kind", "metadata", "type", "immutable", "data", "stringData"],
        _ => &["apiVersion", "kind", "metadata", "immutable", "data", "binaryData"],
    };
    check_known(fields, known.iter().copied(), &FieldPath::root(), faults);
    let mut values = BTreeMap::new();
    // In this order: stringData overwrites data, as in Kubernetes.
    for field in ["data", "binaryData", "stringData"] {
        let path = FieldPath::of(field);
        let is_base64 = field == "binaryData" || (field == "data" && kind == Kind::Secret);
        match fields.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::Object(entries)) => {
                for (key, value) in entries {
                    match decode(value, is_base64) {
                        Ok(bytes) => drop(values.insert(key.clone(), bytes)),
                        Err((what, remedy)) => faults.push(FieldFault {
                            path: path.key(key),
                            what: format!("{field}.{key} {what}"),
                            remedy: remedy.to_owned(),
                        }),
                    }
                }
            }
            Some(_) => faults.push(FieldFault {
                path,
                what: format!("{field} is not a group of fields"),
                remedy: "write key: value lines below it".to_owned(),
            }),
        }
    }
    (faults.len() == before).then_some(Data(values))
}

fn decode(value: &Value, is_base64: bool) -> Result<Vec<u8>, (&'static str, &'static str)> {
    let text = value.as_str().ok_or(("is not a text", "put it in quotes"))?;
    if !is_base64 {
        return Ok(text.as_bytes().to_vec());
    }
    let compact: String = text.split_ascii_whitespace().collect();
    base64::engine::general_purpose::STANDARD
        .decode(compact)
        .map_err(|_| ("is not base64", "encode it, or write it below stringData as it is"))
}

/// What a document that is not YAML seems to be, so that what refers to it is not reported too.
fn guess(text: &str, file: &Arc<PathBuf>) -> Option<Object> {
    let value_of = |line: &str, key: &str| -> Option<String> {
        let rest = line.trim_start_matches([' ', '{', '-']).strip_prefix(key)?.strip_prefix(':')?;
        let value = rest.trim().trim_matches(['"', '\'']);
        let end = value.find([' ', ',', '}', '#']).unwrap_or(value.len());
        (end > 0).then(|| value[..end].to_owned())
    };
    let kind = text.lines().filter(|line| !line.starts_with(' ')).find_map(|line| value_of(line, "kind"))?;
    let after = text.lines().skip_while(|line| !line.starts_with("metadata"));
    let name = after.map(|line| line.trim_start_matches("metadata:")).find_map(|line| value_of(line, "name"))?;
    let digest = Sha256::digest(text).into();
    let (spec, places) = (Spec::Faulty, Places::default());
    Some(Object {
        kind: Kind::of(&kind)?,
        name,
        spec,
        file: Arc::clone(file),
        places,
        is_doubtful: true,
        digest,
        demo_password: None,
    })
}
