use std::fs::FileTimes;
use std::time::SystemTime;

use bytes::Bytes;

use super::*;
use crate::local::End;
use crate::local::text::Chunks;

const WAIT: Duration = Duration::from_secs(20);

fn task(path: &Path, sender: &str) -> Task {
    Task {
        form: Form::Mbox,
        path: path.to_owned(),
        name: String::new(),
        sender: sender.into(),
        received_at_ms: 1_800_000_000_000,
        octets: 0,
    }
}

fn text(text: &str) -> Chunks {
    Chunks::new([Bytes::copy_from_slice(text.as_bytes())], None, text.len() as u64)
}

fn put(path: &Path, message: &str, wait: Duration) -> Done {
    append(&task(path, "bob@example.net"), &Clock::system(), &mut text(message), wait)
}

#[test]
fn messages_stand_one_after_the_other_with_from_lines_escaped() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("deep/box");
    assert_eq!(put(&path, "Subject: 1\r\n\r\nFrom here\r\n>From there\r\n From\r\nFromage", WAIT).end, End::Delivered);
    let null = append(&task(&path, ""), &Clock::system(), &mut text("Subject: 2\r\n\r\nx\r\n"), WAIT);
    assert_eq!(null.end, End::Delivered);
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        "From bob@example.net Fri Jan 15 08:00:00 2027\nSubject: 1\n\n>From here\n>>From there\n From\nFromage\n\n\
         From MAILER-DAEMON Fri Jan 15 08:00:00 2027\nSubject: 2\n\nx\n\n"
    );
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no lock is left");
}

#[test]
fn from_is_escaped_wherever_the_chunks_are_cut() {
    let message = b"From a\n>>From b\nFrom\nFro\n>x\nxFrom y\nFrom ";
    let expected = b">From a\n>>>From b\nFrom\nFro\n>x\nxFrom y\n>From \n";
    for first in 0..=message.len() {
        for second in first..=message.len() {
            let mut out = FromEscape::new(Vec::new());
            for piece in [&message[..first], &message[first..second], &message[second..]] {
                out.write_all(piece).unwrap();
            }
            assert_eq!(out.finish().unwrap(), expected, "cut at {first} and {second}");
        }
    }
}

#[test]
fn a_sender_cannot_write_a_from_line_of_its_own() {
    let line = from_line("\"a b\nFrom c\"@example.org", Timestamp::from_unix_ms(0));
    assert_eq!(line, "From \"a-b-From-c\"@example.org Thu Jan  1 00:00:00 1970\n");
}

#[test]
fn dates_are_those_of_asctime() {
    for (seconds, expected) in [
        (951_782_400, "Tue Feb 29 00:00:00 2000"),
        (951_868_800, "Wed Mar  1 00:00:00 2000"),
        (1_767_225_599, "Wed Dec 31 23:59:59 2025"),
        (4_107_542_400, "Mon Mar  1 00:00:00 2100"),
    ] {
        assert_eq!(asctime(Timestamp::from_unix_ms(seconds * 1000)), expected);
    }
}

#[test]
fn two_writers_do_not_mix_their_messages() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("box");
    let line = "x".repeat(5000);
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let (path, line) = (&path, &line);
            scope.spawn(move || {
                for n in 0..20 {
                    let message = format!("Writer: {writer} {n}\r\n\r\n{line}\r\n{line}\r\n");
                    assert_eq!(put(path, &message, WAIT).end, End::Delivered);
                }
            });
        }
    });
    let found = fs::read_to_string(&path).unwrap();
    let mut messages: Vec<&str> = found.split("From bob@example.net Fri Jan 15 08:00:00 2027\n").skip(1).collect();
    messages.sort_unstable();
    let mut expected: Vec<String> = (0..2)
        .flat_map(|writer| (0..20).map(move |n| (writer, n)))
        .map(|(writer, n)| format!("Writer: {writer} {n}\n\n{line}\n{line}\n\n"))
        .collect();
    expected.sort_unstable();
    assert!(messages == expected, "{} of 40 messages are whole", messages.len());
}

#[test]
fn a_mailbox_that_stays_locked_defers_in_time() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("box");
    fs::write(root.path().join("box.lock"), "1").unwrap();
    let done = put(&path, "A: b\r\n\r\n", Duration::from_millis(120));
    assert_eq!((done.end, done.subject, done.detail), (End::Deferred, 2, 0), "{}", done.text);
    assert!(root.path().join("box.lock").exists(), "the lock is not ours to remove");
    assert!(!path.exists());
}

#[test]
fn an_fcntl_lock_of_another_process_is_waited_for() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("box");
    fs::write(&path, "").unwrap();
    let script = "import fcntl,sys; f=open(sys.argv[1],'r+'); fcntl.lockf(f,fcntl.LOCK_EX); print('locked',flush=True); sys.stdin.read()";
    let mut other = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(&path)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python3 is needed");
    let mut said = String::new();
    io::BufRead::read_line(&mut io::BufReader::new(other.stdout.take().unwrap()), &mut said).unwrap();
    assert_eq!(said, "locked\n");
    let done = put(&path, "A: b\r\n\r\n", Duration::from_millis(120));
    assert_eq!((done.end, done.subject, done.detail), (End::Deferred, 2, 0), "{}", done.text);
    drop(other.stdin.take());
    other.wait().unwrap();
    assert_eq!(put(&path, "A: b\r\n\r\n", WAIT).end, End::Delivered);
}

#[test]
fn a_lock_that_a_crash_left_is_removed() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("box");
    let lock = File::create(root.path().join("box.lock")).unwrap();
    lock.set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH)).unwrap();
    assert_eq!(put(&path, "A: b\r\n\r\n", Duration::ZERO).end, End::Delivered);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
}

#[test]
fn a_text_that_breaks_off_is_cut_off_again() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("box");
    put(&path, "A: b\r\n\r\n", WAIT);
    let before = fs::read(&path).unwrap();
    let long = Bytes::from("x".repeat(300_000));
    let mut cut = Chunks::new([long.clone()], None, long.len() as u64 + 1);
    let done = append(&task(&path, ""), &Clock::system(), &mut cut, WAIT);
    assert_eq!(done.end, End::Deferred);
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn only_a_plain_file_with_one_name_is_a_mailbox() {
    let root = tempfile::tempdir().unwrap();
    let other = root.path().join("other");
    fs::write(&other, "precious").unwrap();
    std::os::unix::fs::symlink(&other, root.path().join("symlink")).unwrap();
    fs::hard_link(&other, root.path().join("link")).unwrap();
    fs::create_dir(root.path().join("folder")).unwrap();
    for name in ["symlink", "link", "folder"] {
        assert_eq!(put(&root.path().join(name), "A: b\r\n\r\n", WAIT).end, End::Deferred, "{name}");
    }
    assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
}

#[test]
fn a_mailbox_without_its_last_line_end_gets_it() {
    let root = tempfile::tempdir().unwrap();
    for (before, between) in [("x", "\n\n"), ("x\n", "\n"), ("x\n\n", ""), ("\n", ""), ("xy", "\n\n")] {
        let path = root.path().join("box");
        fs::write(&path, before).unwrap();
        put(&path, "A: b\r\n\r\n", WAIT);
        let found = fs::read_to_string(&path).unwrap();
        assert!(found.starts_with(&format!("{before}{between}From bob@")), "{before:?}: {found:?}");
    }
}
