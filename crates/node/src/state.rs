//! The state folder: where it is, who may look into it, who holds it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// The state folder of a platform that the system's service manager runs.
const SYSTEM_STATE_DIR: &str = "/var/lib/posthouse";
/// The file by which a process holds its state folder.
const LOCK: &str = "lock";

/// The state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// mkdir(2), chmod(2), open(2).
    #[error("the state folder {path} cannot be used (give another with --state): {cause}")]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Another process holds it.
    #[error("the state folder {path} is in use by process {pid}: one platform runs per state folder")]
    Held {
        /// Which.
        path: PathBuf,
        /// By whom.
        pid: String,
    },
}

/// The state folder of a site where none was given: `$STATE_DIRECTORY` (systemd), else
/// `$XDG_STATE_HOME/posthouse/<site>`, else `~/.local/state/posthouse/<site>`, else `/var/lib/posthouse`.
pub fn default_dir(site: &Path) -> PathBuf {
    default_dir_by(site, environment)
}

#[allow(clippy::disallowed_methods, reason = "the node crate reads the environment")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn default_dir_by(site: &Path, variable: impl Fn(&str) -> Option<String>) -> PathBuf {
    if let Some(list) = variable("STATE_DIRECTORY") {
        return first_of_list(&list);
    }
    let name = site.canonicalize().ok().and_then(|site| site.file_name().map(ToOwned::to_owned));
    match user_base(&variable) {
        Some(base) => base.join("posthouse").join(name.unwrap_or_else(|| "site".into())),
        None => PathBuf::from(SYSTEM_STATE_DIR),
    }
}

/// systemd lists several with colons; ours is the first.
fn first_of_list(list: &str) -> PathBuf {
    PathBuf::from(list.split(':').next().unwrap_or(list))
}

fn user_base(variable: &impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
}

/// State folders that are there where they are by default: the one of systemd's service, those of this user.
pub fn known_dirs() -> Vec<PathBuf> {
    known_dirs_by(environment, Path::new(SYSTEM_STATE_DIR))
}

/// State folders in which `posthouse sendmail` looks for a socket: `$POSTHOUSE_STATE`, else [`known_dirs`].
pub fn sendmail_state_dirs() -> Vec<PathBuf> {
    match environment("POSTHOUSE_STATE") {
        Some(state) => vec![PathBuf::from(state)],
        // The folder may be closed to us while its socket is not: it is not looked into.
        None => [PathBuf::from(SYSTEM_STATE_DIR)].into_iter().chain(known_dirs()).collect(),
    }
}

fn known_dirs_by(variable: impl Fn(&str) -> Option<String>, system: &Path) -> Vec<PathBuf> {
    if let Some(one) = variable("STATE_DIRECTORY") {
        return vec![first_of_list(&one)];
    }
    let of_user = user_base(&variable).and_then(|base| std::fs::read_dir(base.join("posthouse")).ok());
    let of_user = of_user.into_iter().flatten().filter_map(|entry| entry.ok().map(|entry| entry.path()));
    // A folder that was held once has its lock.
    let mut dirs: Vec<PathBuf> =
        [system.to_owned()].into_iter().chain(of_user).filter(|dir| dir.join(LOCK).exists()).collect();
    dirs.sort();
    dirs
}

/// The state folder, held by this process until it is dropped.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Makes the folder where it is missing and holds it. Others may pass through it to the sockets in `run`, and see
    /// nothing else.
    pub fn hold(path: &Path) -> Result<Self, StateError> {
        let unusable = |cause| StateError::Unusable { path: path.to_owned(), cause };
        make_folder(path, 0o711).map_err(unusable)?;
        // Everything else names files in it, some of them to other processes.
        let path = path.canonicalize().map_err(unusable)?;
        make_folder(&path.join("run"), 0o711).map_err(unusable)?;
        let lock = Self::lock(&path)?;
        Ok(Self { path, _lock: lock })
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn lock(path: &Path) -> Result<File, StateError> {
        let unusable = |cause| StateError::Unusable { path: path.to_owned(), cause };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK))
            .map_err(unusable)?;
        // The lock goes with the process, however it ends; the file stays.
        if let Err(error) = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(unusable(error.into()));
            }
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            return Err(StateError::Held { path: path.to_owned(), pid: pid.trim().to_owned() });
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(unusable)?;
        Ok(file)
    }
}

/// Makes a folder and the ones above it; what it makes gets exactly `mode`, what is there keeps its own.
fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_folder_is_where_the_system_wants_it() {
        let dir = tempfile::tempdir().unwrap();
        let site = dir.path().join("small-site");
        std::fs::create_dir(&site).unwrap();
        let cases: [(&[(&str, &str)], &str); 6] = [
            (&[("STATE_DIRECTORY", "/var/lib/x"), ("HOME", "/home/a")], "/var/lib/x"),
            (&[("STATE_DIRECTORY", "/var/lib/x:/var/lib/y")], "/var/lib/x"),
            (&[("XDG_STATE_HOME", "/s"), ("HOME", "/home/a")], "/s/posthouse/small-site"),
            (&[("XDG_STATE_HOME", "not/absolute"), ("HOME", "/home/a")], "/home/a/.local/state/posthouse/small-site"),
            (&[("HOME", "/home/a")], "/home/a/.local/state/posthouse/small-site"),
            (&[], "/var/lib/posthouse"),
        ];
        for (variables, expected) in cases {
            let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
            assert_eq!(default_dir_by(&site, find), Path::new(expected), "{variables:?}");
        }
    }

    #[test]
    fn folders_that_were_held_once_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap().to_owned();
        let variable = |name: &str| (name == "XDG_STATE_HOME").then(|| home.clone());
        let system = dir.path().join("system");
        assert!(known_dirs_by(variable, &system).is_empty());
        std::fs::create_dir_all(dir.path().join("posthouse/never-run")).unwrap();
        drop(StateDir::hold(&dir.path().join("posthouse/a")).unwrap());
        drop(StateDir::hold(&system).unwrap());
        assert_eq!(known_dirs_by(variable, &system), [dir.path().join("posthouse/a"), system]);
        let given = |name: &str| (name == "STATE_DIRECTORY").then(|| "/given:/other".to_owned());
        assert_eq!(known_dirs_by(given, Path::new("/")), [Path::new("/given")]);
    }

    #[test]
    fn a_state_folder_is_held_once_and_freed_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let held = StateDir::hold(&path).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(held.path()), mode(&held.path().join("run"))), (0o711, 0o711));
        let error = StateDir::hold(&path).unwrap_err();
        assert!(matches!(&error, StateError::Held { pid, .. } if *pid == std::process::id().to_string()), "{error}");
        drop(held);
        StateDir::hold(&path).unwrap();
    }
}
