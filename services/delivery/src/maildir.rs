//! Maildir: one file a message, written in `tmp`, moved to `new`.
//!
//! On return the file, its name and the folders made for it are on disk. The name is made of message id and recipient
//! number: an attempt that is repeated because its result got lost finds the file, as long as nobody moved it on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use resources::snapshot::TransportKind;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::job::{AttemptResult, Context, Job};
use crate::local::text::{LocalForm, Source, copy};
use crate::local::{self, Done, Form, Task};

/// Collects small chunks into writes.
const WRITE_OCTETS: usize = 64 << 10;
/// Names that are tried in `tmp`: one is taken only where a crash left a file of a process with the same number.
const TMP_NAMES_MAX: u32 = 100;

/// Makes names in `tmp` differ between attempts of one process.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Delivers to every recipient of the job.
pub(crate) async fn deliver(context: &Context, job: &Job) -> Vec<(u32, AttemptResult)> {
    let TransportKind::Maildir { path, as_user } = &job.transport.kind else {
        return job.all(&AttemptResult::deferred(3, 5, "the transport is no maildir any more"));
    };
    local::deliver(context, job, Form::Maildir, path, as_user.as_deref()).await
}

/// Stores one message. Blocks.
pub(crate) fn store(task: &Task, text: &mut dyn Source) -> Done {
    match try_store(task, text) {
        Ok(Stored::New) => Done::delivered("stored in maildir"),
        Ok(Stored::Already) => Done::delivered("stored in maildir by an earlier attempt"),
        Err((step, error)) => Done::trouble(step, &error),
    }
}

enum Stored {
    New,
    Already,
}

type Failure = (&'static str, io::Error);

fn at(step: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| (step, error)
}

fn try_store(task: &Task, text: &mut dyn Source) -> Result<Stored, Failure> {
    let (file, tmp) = create_tmp(task)?;
    let stored = write(file, text).and_then(|octets| {
        let new = task.path.join("new");
        let name = new.join(format!("{},S={octets}", task.name));
        let stored = match publish(&tmp, &name) {
            // Somebody made the maildir only in part.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_maildir(&task.path).and_then(|()| publish(&tmp, &name))
            }
            other => other,
        };
        let stored = stored.map_err(at("cannot move the message to new"))?;
        // The name is durable only when its folder is.
        sync_folder(&new).map_err(at("cannot sync the maildir"))?;
        Ok(stored)
    });
    if !matches!(stored, Ok(Stored::New)) {
        // Nothing of it may stay but what a crash leaves; readers of maildirs sweep that.
        let _ = fs::remove_file(&tmp);
    }
    stored
}

fn create_tmp(task: &Task) -> Result<(File, PathBuf), Failure> {
    let mut made = false;
    for _ in 0..TMP_NAMES_MAX {
        let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
        let tmp = task.path.join("tmp").join(format!("{}.{}.{unique}", task.name, std::process::id()));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&tmp) {
            Ok(file) => return Ok((file, tmp)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && !made => {
                make_maildir(&task.path).map_err(at("cannot make the maildir"))?;
                made = true;
            }
            Err(error) => return Err(at("cannot create a file in tmp")(error)),
        }
    }
    Err(at("cannot create a file in tmp")(io::ErrorKind::AlreadyExists.into()))
}

fn write(file: File, text: &mut dyn Source) -> Result<u64, Failure> {
    let write = at("cannot write the message");
    let mut out = LocalForm::new(BufWriter::with_capacity(WRITE_OCTETS, file));
    copy(text, &mut out).map_err(&write)?;
    let (mut out, octets) = out.finish().map_err(&write)?;
    out.flush().map_err(&write)?;
    out.get_ref().sync_all().map_err(at("cannot sync the message"))?;
    Ok(octets)
}

/// Gives the file its final name, where nothing has it.
fn publish(tmp: &Path, name: &Path) -> io::Result<Stored> {
    let moved = match renameat_with(CWD, tmp, CWD, name, RenameFlags::NOREPLACE) {
        // Not every file system knows it (NFS does not); the way of qmail does the same in two steps.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => fs::hard_link(tmp, name).map(|()| {
            let _ = fs::remove_file(tmp);
        }),
        other => other.map_err(io::Error::from),
    };
    match moved {
        Ok(()) => Ok(Stored::New),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Stored::Already),
        Err(error) => Err(error),
    }
}

fn make_maildir(path: &Path) -> io::Result<()> {
    make_folders(path)?;
    for name in ["tmp", "new", "cur"] {
        make_folder(&path.join(name))?;
    }
    sync_folder(path)
}

/// Makes a folder and what is missing above it, for its owner only, and syncs what each was put into.
pub(crate) fn make_folders(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()).collect();
    for folder in missing.into_iter().rev() {
        make_folder(folder)?;
        if let Some(parent) = folder.parent() {
            sync_folder(parent)?;
        }
    }
    Ok(())
}

fn make_folder(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        // Somebody else may be at it, too.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        other => other,
    }
}

pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    match File::open(path)?.sync_all() {
        // Some file systems do not sync folders and say so: their names are durable by other means.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use bytes::Bytes;

    use super::*;
    use crate::local::End;
    use crate::local::text::Chunks;

    const TEXT: &[u8] = b"Return-Path: <>\r\nSubject: x\r\n\r\nbody\r\n";

    fn task(path: &Path) -> Task {
        Task {
            form: Form::Maildir,
            path: path.to_owned(),
            name: "1800000000.M5PidR0.mx1.example.org".into(),
            sender: String::new(),
            received_at_ms: 0,
            octets: TEXT.len() as u64,
        }
    }

    fn whole() -> Chunks {
        Chunks::new([Bytes::from_static(TEXT)], None, TEXT.len() as u64)
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_message_lies_in_new_with_lf_and_its_size_in_its_name() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("example.org/alice");
        assert_eq!(store(&task(&path), &mut whole()).end, End::Delivered);
        let text = "Return-Path: <>\nSubject: x\n\nbody\n";
        let name = format!("1800000000.M5PidR0.mx1.example.org,S={}", text.len());
        assert_eq!(names(&path), ["cur", "new", "tmp"]);
        assert_eq!(names(&path.join("new")), [name.as_str()]);
        assert!(names(&path.join("tmp")).is_empty());
        assert_eq!(fs::read_to_string(path.join("new").join(&name)).unwrap(), text);
        assert_eq!(mode(&path.join("new").join(&name)), 0o600);
        for folder in [path.as_path(), path.parent().unwrap(), &path.join("new")] {
            assert_eq!(mode(folder), 0o700, "{}", folder.display());
        }
    }

    #[test]
    fn an_attempt_that_is_repeated_finds_the_file() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("m");
        assert_eq!(store(&task(&path), &mut whole()).text, "stored in maildir");
        assert_eq!(store(&task(&path), &mut whole()), Done::delivered("stored in maildir by an earlier attempt"));
        assert_eq!(names(&path.join("new")).len(), 1);
        assert!(names(&path.join("tmp")).is_empty());
    }

    #[test]
    fn a_text_that_breaks_off_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("m");
        let mut cut = Chunks::new([Bytes::from_static(TEXT)], None, TEXT.len() as u64 + 1);
        let done = store(&task(&path), &mut cut);
        assert_eq!((done.end, done.subject, done.detail), (End::Deferred, 3, 0));
        assert!(names(&path.join("new")).is_empty() && names(&path.join("tmp")).is_empty());
    }

    #[test]
    fn what_stands_in_the_way_defers() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("m");
        fs::write(&path, "a file").unwrap();
        let done = store(&task(&path.join("below")), &mut whole());
        assert_eq!((done.end, done.subject, done.detail), (End::Deferred, 3, 0), "{}", done.text);
        assert!(!done.text.contains(root.path().to_str().unwrap()), "paths stay here: {}", done.text);
    }

    #[test]
    fn a_full_disk_defers_with_its_own_code() {
        // Every write to /dev/full fails with ENOSPC.
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (step, error) = write(full, &mut whole()).unwrap_err();
        let done = Done::trouble(step, &error);
        assert_eq!((done.end, done.subject, done.detail), (End::Deferred, 3, 1));
    }
}
