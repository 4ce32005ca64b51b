//! A folder of documents as the source of snapshots.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use resources::{Environment, Fault, Snapshot};

/// Octets of one file of documents: a site of ten thousand users in one file has about 4 MiB.
pub const DOCUMENT_FILE_MAX_BYTES: u64 = 64 << 20;
/// Octets of one file that documents name: tables of some million rows.
pub const REFERRED_FILE_MAX_BYTES: u64 = 256 << 20;
/// Document files of a folder: a site with a file for every user.
pub const DOCUMENT_FILES_MAX: usize = 100_000;
/// Symbolic links on the way to one file: as many as the kernel follows.
const LINKS_MAX: usize = 40;

/// A folder of documents.
#[derive(Debug, Clone)]
pub struct Folder {
    dir: PathBuf,
    environment: Environment,
}

/// What one reading of the folder gave.
#[derive(Debug)]
pub struct Loaded {
    /// The snapshot, or every fault.
    pub outcome: Result<Snapshot, Vec<Fault>>,
    /// What decides about the outcome of the next reading.
    pub(crate) watched: Watched,
}

/// The names in folders that, when they change, may change the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Watched {
    /// Document files come and go here: every name counts.
    pub(crate) folder: PathBuf,
    /// (folder, name) of files and of symbolic links on the way to them.
    pub(crate) names: BTreeSet<(PathBuf, OsString)>,
}

impl Folder {
    /// A folder whose snapshots are used with this state folder by this process.
    pub fn new(dir: &Path, state_dir: &Path) -> Self {
        let environment = Environment {
            is_root: rustix::process::geteuid().is_root(),
            state_dir: state_dir.to_owned(),
            // Documents are named as the folder is: relative to where the process was started.
            working_dir: std::env::current_dir().unwrap_or_default(),
        };
        Self { dir: dir.to_owned(), environment }
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Reads and compiles everything: the snapshot, or every fault at once.
    pub fn load(&self) -> Result<Snapshot, Vec<Fault>> {
        self.read().outcome
    }

    /// As [`Folder::load`], and what to watch for the next time.
    pub(crate) fn read(&self) -> Loaded {
        let mut watched = Watched { folder: absolute(&self.dir), ..Watched::default() };
        watched.add(&absolute(&self.dir));
        let mut faults = Vec::new();
        let files = self.document_files(&mut faults);
        let (mut loader, mut is_empty) = (resources::Loader::default(), true);
        for path in &files {
            watched.add(&absolute(path));
            match read_text(path) {
                Ok(text) => {
                    loader.read(path, &text);
                    is_empty = false;
                }
                Err(fault) => faults.push(*fault),
            }
        }
        if is_empty {
            // What a folder without documents lacks besides is told when it can be read.
            return Loaded { outcome: self.outcome(None, faults), watched };
        }
        let (objects, more) = loader.finish();
        faults.extend(more);
        // Also what could not be read: it may come.
        let referred = Mutex::new(Vec::new());
        let read_file = |path: &Path| {
            referred.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
            read_bounded(path, REFERRED_FILE_MAX_BYTES)
        };
        let (snapshot, more) = resources::compile(objects, &self.environment, &read_file);
        faults.extend(more);
        let referred = referred.into_inner().unwrap_or_else(PoisonError::into_inner);
        for path in referred.iter().chain(snapshot.iter().flat_map(|snapshot| &snapshot.files)) {
            watched.add(&absolute(path));
        }
        Loaded { outcome: self.outcome(snapshot, faults), watched }
    }

    fn outcome(&self, snapshot: Option<Snapshot>, mut faults: Vec<Fault>) -> Result<Snapshot, Vec<Fault>> {
        faults.sort();
        faults.dedup();
        match snapshot {
            Some(snapshot) if faults.is_empty() => Ok(snapshot),
            // A folder with any fault is refused as a whole; so is one that gives nothing without saying why.
            _ if faults.is_empty() => Err(vec![fault(
                &self.dir,
                0,
                "no platform comes of these documents",
                "write a MailPlatform, or let `posthouse init` write a small site",
            )]),
            _ => Err(faults),
        }
    }

    /// `*.yaml` and `*.yml` in order, hidden ones left out.
    fn document_files(&self, faults: &mut Vec<Fault>) -> Vec<PathBuf> {
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) => {
                let what = format!("the folder cannot be read ({error})");
                faults.push(fault(&self.dir, 0, &what, "name the folder that holds the site's *.yaml files"));
                return Vec::new();
            }
        };
        let mut files: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.file_name()))
            .filter(|name| is_document(Path::new(name)))
            .map(|name| self.dir.join(name))
            .collect();
        files.sort();
        if files.is_empty() {
            faults.push(fault(
                &self.dir,
                0,
                "the folder has no *.yaml or *.yml file",
                "name the folder that holds the site, or let `posthouse init` write a small one",
            ));
        }
        if files.len() > DOCUMENT_FILES_MAX {
            let what = format!("the folder has {} document files, over {DOCUMENT_FILES_MAX}", files.len());
            faults.push(fault(&self.dir, 0, &what, "put several documents into one file"));
            files.clear();
        }
        files
    }
}

pub(crate) fn fault(file: &Path, line: usize, what: &str, remedy: &str) -> Fault {
    Fault { file: file.to_owned(), line, column: line.min(1), what: what.to_owned(), remedy: remedy.to_owned() }
}

fn is_document(name: &Path) -> bool {
    let hidden = name.as_os_str().as_encoded_bytes().starts_with(b".");
    !hidden && name.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn read_text(path: &Path) -> Result<String, Box<Fault>> {
    let bytes = read_bounded(path, DOCUMENT_FILE_MAX_BYTES).map_err(|why| {
        Box::new(fault(path, 0, &format!("the file cannot be read ({why})"), "mend it or move it out of the folder"))
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        Box::new(fault(path, line, "the file is not UTF-8", "save it as UTF-8"))
    })
}

fn read_bounded(path: &Path, max_bytes: u64) -> Result<Vec<u8>, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a file".to_owned());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len().min(max_bytes)).unwrap_or(0));
    file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > max_bytes {
        return Err(format!("it is larger than {} MiB", max_bytes >> 20));
    }
    Ok(bytes)
}

impl Watched {
    /// The file itself and every symbolic link on the way to it: Kubernetes swaps a ConfigMap by renaming one link.
    pub(crate) fn add(&mut self, path: &Path) {
        self.add_bounded(path, &mut 0);
    }

    fn add_bounded(&mut self, path: &Path, links: &mut usize) {
        let mut reached = PathBuf::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => {
                    if let Ok(target) = std::fs::read_link(reached.join(name)) {
                        *links += 1;
                        // What is behind a link that was seen before is known; the rest of the path still counts.
                        if self.names.insert((reached.clone(), name.to_owned())) && *links <= LINKS_MAX {
                            self.add_bounded(&reached.join(target), links);
                        }
                        reached = reached.join(name).canonicalize().unwrap_or_else(|_| reached.join(name));
                    } else {
                        reached.push(name);
                    }
                }
                Component::ParentDir => {
                    reached.pop();
                }
                other => reached.push(other),
            }
        }
        if let (Some(folder), Some(name)) = (reached.parent(), reached.file_name()) {
            self.names.insert((folder.to_owned(), name.to_owned()));
        }
    }

    /// The site's folder, where its links lead now.
    pub(crate) fn real_folder(&self) -> PathBuf {
        self.folder.canonicalize().unwrap_or_else(|_| self.folder.clone())
    }

    /// The folders to ask the kernel about.
    pub(crate) fn folders(&self) -> BTreeSet<PathBuf> {
        self.names.iter().map(|(folder, _)| folder.clone()).chain([self.real_folder()]).collect()
    }

    /// Whether a change of a name in a folder may change the snapshot. `real` is [`Watched::real_folder`] of when the
    /// watch began.
    pub(crate) fn concerns(&self, real: &Path, folder: &Path, name: &OsStr) -> bool {
        let named = self.names.iter().any(|(of, named)| named == name && of == folder);
        named || (folder == real && is_document(Path::new(name)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn concerns(watched: &Watched, path: &Path) -> bool {
        watched.concerns(&watched.real_folder(), path.parent().unwrap(), path.file_name().unwrap())
    }

    #[test]
    fn document_files_are_read_in_order_and_hidden_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yml", ".hidden.yaml", "notes.txt", "c.yaml~", ".c.yaml.swp"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let mut faults = Vec::new();
        let files = Folder::new(dir.path(), dir.path()).document_files(&mut faults);
        let names: Vec<_> = files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.yml", "b.yaml"]);
        assert!(faults.is_empty());
    }

    #[test]
    fn a_folder_that_cannot_be_a_site_says_so_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("x.yaml")).unwrap();
        std::fs::write(dir.path().join("y.yaml"), b"# one\n# \xff\n").unwrap();
        let faults = Folder::new(dir.path(), dir.path()).load().unwrap_err();
        let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let begins = |name: &str, rest: &str| {
            let begin = format!("{}{rest}", dir.path().join(name).display());
            texts.iter().any(|text| text.starts_with(&begin))
        };
        assert!(begins("x.yaml", ":0:0: the file cannot be read (it is not a file)"), "{texts:?}");
        assert!(begins("y.yaml", ":2:1: the file is not UTF-8"), "{texts:?}");
        let missing = Folder::new(&dir.path().join("missing"), dir.path()).load().unwrap_err();
        assert!(missing[0].what.contains("the folder cannot be read"), "{missing:?}");
        let empty = tempfile::tempdir().unwrap();
        let faults = Folder::new(empty.path(), dir.path()).load().unwrap_err();
        assert!(faults[0].what.contains("no *.yaml"), "{faults:?}");
    }

    #[test]
    fn files_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read_bounded(&path, 5).unwrap(), b"12345");
        assert_eq!(read_bounded(&path, 4).unwrap_err(), "it is larger than 0 MiB");
    }

    #[test]
    fn every_link_on_the_way_to_a_file_is_watched() {
        // As a kubelet mounts a ConfigMap.
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let mount = root.join("mount");
        std::fs::create_dir_all(mount.join("..2026_01")).unwrap();
        std::fs::write(mount.join("..2026_01/site.yaml"), "").unwrap();
        symlink("..2026_01", mount.join("..data")).unwrap();
        symlink("..data/site.yaml", mount.join("site.yaml")).unwrap();
        symlink("mount", root.join("current")).unwrap();
        let mut watched = Watched { folder: root.join("current"), ..Watched::default() };
        watched.add(&root.join("current"));
        watched.add(&root.join("current/site.yaml"));
        let concerned = [
            root.join("current"),
            mount.join("site.yaml"),
            mount.join("..data"),
            mount.join("..2026_01/site.yaml"),
            mount.join("new.yaml"),
        ];
        for path in concerned {
            assert!(concerns(&watched, &path), "{}: {watched:?}", path.display());
        }
        for path in [mount.join("notes.txt"), root.join("other"), mount.join(".x.yaml.swp")] {
            assert!(!concerns(&watched, &path), "{}", path.display());
        }
        assert!(watched.folders().contains(&root) && watched.folders().contains(&mount));
    }

    #[test]
    fn links_that_lead_in_a_circle_end() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        symlink("b", root.join("a")).unwrap();
        symlink("a", root.join("b")).unwrap();
        let mut watched = Watched::default();
        watched.add(&root.join("a/x.yaml"));
        assert!(concerns(&watched, &root.join("a")) && concerns(&watched, &root.join("b")));
    }
}
