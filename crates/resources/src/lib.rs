//! The custom resource types, their loader and the one compiler that makes a snapshot of them.

use std::path::{Path, PathBuf};

mod fault;
pub mod snapshot;

pub use fault::Fault;
pub use snapshot::Snapshot;

/// What the compiler must know of the place where the snapshot will be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Whether the process runs as root: only then can it become another user.
    pub is_root: bool,
    /// Where the platform keeps its state.
    pub state_dir: PathBuf,
    /// What relative paths of document files are relative to.
    pub working_dir: PathBuf,
}

/// How the compiler reads files that documents name: tables and certificates.
pub trait ReadFile {
    /// The whole file, or why not in one clause.
    fn read(&self, path: &Path) -> Result<Vec<u8>, String>;
}

impl<F: Fn(&Path) -> Result<Vec<u8>, String>> ReadFile for F {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        self(path)
    }
}

/// One document.
#[derive(Debug, Clone)]
pub struct Object {}

/// Reads documents from the texts of files, with all faults of all of them.
pub fn load(files: &[(PathBuf, String)]) -> (Vec<Object>, Vec<Fault>) {
    let _ = files;
    (Vec::new(), Vec::new())
}

/// Makes a snapshot of documents, with all faults between them.
pub fn compile(
    objects: &[Object],
    environment: &Environment,
    read_file: &dyn ReadFile,
) -> (Option<Snapshot>, Vec<Fault>) {
    let _ = (objects, environment, read_file);
    (None, Vec::new())
}

/// Loads and compiles one text of documents, as tests want it.
pub fn snapshot_from_yaml(text: &str) -> Result<Snapshot, Vec<Fault>> {
    let (objects, mut faults) = load(&[(PathBuf::from("site.yaml"), text.to_owned())]);
    let environment =
        Environment { is_root: false, state_dir: PathBuf::from("/state"), working_dir: PathBuf::from("/") };
    let none = |_: &Path| Err("there are no files here".to_owned());
    let (snapshot, more) = compile(&objects, &environment, &none);
    faults.extend(more);
    match snapshot {
        Some(snapshot) if faults.is_empty() => Ok(snapshot),
        _ => Err(faults),
    }
}

/// The documents of a small site, as (file name, text): what `posthouse init` writes.
pub fn render_small_site(hostname: &str, domain: &str, password_hash: &str) -> Vec<(String, String)> {
    let _ = (hostname, domain, password_hash);
    Vec::new()
}
