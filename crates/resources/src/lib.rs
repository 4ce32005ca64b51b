//! The custom resource types, their loader and the one compiler that makes a snapshot of them.
//!
//! Pure: texts and a way to read the files that they name go in; a snapshot and every fault at once come out.

use std::path::{Path, PathBuf};

mod check;
mod compile;
mod fault;
mod kinds_doc;
mod load;
mod object;
mod path;
mod site;
mod suggest;
mod yaml;

pub mod kinds;
pub mod snapshot;
pub mod values;

pub use compile::compile;
pub use fault::Fault;
pub use kinds::crds;
pub use kinds_doc::reference;
pub use load::{Loader, load};
pub use object::{Kind, Object};
pub use site::render_small_site;
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

/// Loads and compiles one text of documents, without files beside it, as tests want it.
pub fn snapshot_from_yaml(text: &str) -> Result<Snapshot, Vec<Fault>> {
    let (objects, mut faults) = load(&[(PathBuf::from("site.yaml"), text.to_owned())]);
    let environment =
        Environment { is_root: false, state_dir: PathBuf::from("/state"), working_dir: PathBuf::from("/") };
    let none = |_: &Path| Err("there are no files here".to_owned());
    let (snapshot, more) = compile(objects, &environment, &none);
    faults.extend(more);
    faults.sort();
    match snapshot {
        Some(snapshot) if faults.is_empty() => Ok(snapshot),
        _ => Err(faults),
    }
}
