use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::*;
use crate::local::{End, Form};

const TEXT: &[u8] = b"Return-Path: <>\r\n\r\nbody\r\n";

/// Not root's, and in every passwd file.
const NOBODY: &str = "nobody";

fn task(path: &Path, octets: usize) -> Task {
    Task {
        form: Form::Maildir,
        path: path.to_owned(),
        name: "1.M0PidR0.host".into(),
        sender: String::new(),
        received_at_ms: 0,
        octets: octets as u64,
    }
}

/// The helper, where everybody may run it.
fn helper(root: &Path) -> Helper {
    let tests = std::env::current_exe().unwrap();
    let built = tests.parent().unwrap().parent().unwrap().join("examples/deliver_as");
    let program = root.join("deliver_as");
    fs::copy(&built, &program)
        .unwrap_or_else(|error| panic!("{}: {error}: run the tests without --lib", built.display()));
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    Helper { program, arguments: Vec::new() }
}

/// A folder below which `nobody` may write.
fn open_folder() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o777)).unwrap();
    root
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The one of the test where this is not root: then only the own user can be had.
async fn user() -> User {
    let name = if is_root() { NOBODY.to_owned() } else { rustix::process::geteuid().as_raw().to_string() };
    find(&fs::read_to_string("/etc/passwd").unwrap(), &name).unwrap()
}

async fn run(helper: &Helper, user: &User, task: &Task) -> Result<Done, HelperError> {
    let body = BodyReader::inline(Bytes::from_static(b"body\r\n"));
    converse(helper, user, task, &[Bytes::from_static(b"Return-Path: <>\r\n"), Bytes::from_static(b"\r\n")], body).await
}

#[tokio::test]
async fn another_user_writes_with_its_own_rights() {
    let root = open_folder();
    let user = user().await;
    let path = root.path().join("m");
    let done = run(&helper(root.path()), &user, &task(&path, TEXT.len())).await.unwrap();
    assert_eq!(done, Done::delivered("stored in maildir"));
    let file = fs::read_dir(path.join("new")).unwrap().next().unwrap().unwrap();
    let metadata = file.metadata().unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (user.uid, user.gid));
    assert_eq!(fs::read(file.path()).unwrap(), b"Return-Path: <>\n\nbody\n");

    if is_root() {
        let private = tempfile::tempdir().unwrap();
        let done = run(&helper(root.path()), &user, &task(&private.path().join("m"), TEXT.len())).await.unwrap();
        assert_eq!((done.end, done.subject, done.detail), (End::Deferred, 3, 0), "{}", done.text);
    } else {
        let fault = writer(Some("root")).await.unwrap_err();
        assert!(fault.contains("needs a platform that runs as root"), "{fault}");
    }
}

/// Descriptors that whoever started the tests left open for every process below.
fn inherited() -> Vec<String> {
    const CLOSED_AT_EXEC: u32 = 0o2_000_000;
    let entries = fs::read_dir("/proc/self/fdinfo").unwrap().map(|entry| entry.unwrap().path());
    let is_inherited = |path: &PathBuf| {
        // The one that lists the folder is gone when it is read.
        let Ok(info) = fs::read_to_string(path) else { return false };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        u32::from_str_radix(flags, 8).unwrap() & CLOSED_AT_EXEC == 0
    };
    entries.filter(is_inherited).map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_helper_has_no_groups_no_environment_and_no_files_of_ours() {
    let user = user().await;
    let ours = fs::File::open("/etc/passwd").unwrap();
    let script = "id -G; env | grep -v -e ^PWD= -e ^SHLVL= -e ^_= | wc -l; pwd; ls /proc/$$/fd | tr '\\n' ' '";
    let helper = Helper { program: "/bin/sh".into(), arguments: vec!["-c".into(), script.into()] };
    let (mut child, stdin, mut stdout) = helper.start(&user).unwrap();
    drop(stdin);
    let mut said = String::new();
    stdout.read_to_string(&mut said).await.unwrap();
    child.wait().await.unwrap();
    let mut lines = said.lines();
    let groups = lines.next();
    if is_root() {
        assert_eq!(groups, Some(user.gid.to_string().as_str()));
    }
    assert_eq!(lines.next().map(str::trim), Some("0"), "{said}");
    assert_eq!(lines.next(), Some("/"));
    let allowed = inherited();
    assert!(!allowed.contains(&std::os::fd::AsRawFd::as_raw_fd(&ours).to_string()));
    let open: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    let more: Vec<_> =
        open.iter().filter(|fd| !["0", "1", "2"].contains(fd) && !allowed.contains(&(**fd).to_owned())).collect();
    assert!(more.is_empty(), "{more:?} of {open:?}");
}

#[tokio::test]
async fn a_text_that_breaks_off_is_not_delivered() {
    let root = open_folder();
    let path = root.path().join("m");
    let done = run(&helper(root.path()), &user().await, &task(&path, TEXT.len() + 1)).await.unwrap();
    assert_eq!(done.end, End::Deferred, "{}", done.text);
    assert_eq!(fs::read_dir(path.join("new")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_helper_that_fails_defers() {
    let root = open_folder();
    let user = user().await;
    for (script, expected) in [("exit 3", "exit status: 3"), ("echo nonsense", "expected"), ("kill -9 $$", "signal: 9")]
    {
        let helper = Helper { program: "/bin/sh".into(), arguments: vec!["-c".into(), script.into()] };
        let error = run(&helper, &user, &task(root.path(), 0)).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{script}: {error}");
    }
    let missing = Helper { program: "/nonexistent".into(), arguments: Vec::new() };
    assert!(matches!(run(&missing, &user, &task(root.path(), 0)).await, Err(HelperError::Start(_))));
}

#[test]
fn a_helper_without_a_task_answers_all_the_same() {
    let mut out = Vec::new();
    main(&b"nonsense\n"[..], &mut out);
    let done: Done = serde_json::from_slice(&out).unwrap();
    assert_eq!((done.end, done.subject, done.detail), (End::Deferred, 3, 5));
}

#[tokio::test]
async fn who_writes_is_said_before_anything_is_written() {
    assert_eq!(writer(None).await, Ok(None));
    let own = rustix::process::geteuid().as_raw().to_string();
    assert_eq!(writer(Some(&own)).await, Ok(None), "no helper to be who we are");
    assert!(writer(Some("no-such-user")).await.is_err());
    assert_eq!(writer(Some(NOBODY)).await.is_ok(), is_root());
}
