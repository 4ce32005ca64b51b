//! Maildir, mbox and program, as this user and as another.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use testkit::eventually;
use testkit::posthouse::Site;
use testkit::smtp::{Client, queued_id};

use crate::documents::{self, message};

/// Debian's nobody.
const NOBODY: u32 = 65534;

fn send(site: &Site, recipient: &str) -> String {
    let posthouse = site.start();
    let mut client = Client::connect(posthouse.address("mx"));
    client.say("EHLO elsewhere.test", 250);
    let text = message("bob@elsewhere.test", recipient, "local");
    let id = queued_id(&client.deliver("bob@elsewhere.test", &[recipient], &text));
    site.wait_until_empty();
    id
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

#[test]
fn a_maildir_gets_one_file_with_our_header_fields_and_unix_line_ends() {
    let transport = documents::transport("disk", "maildir: { path: mail/%d/%n }\n");
    let site = Site::new().with("site.yaml", &(documents::base("disk") + &transport));
    let id = send(&site, "alice@example.org");
    let maildir = site.state().join("mail/example.org/alice");
    let new = files(&maildir.join("new"));
    assert_eq!(new.len(), 1, "{new:?}");
    assert!(files(&maildir.join("tmp")).is_empty());
    assert!(maildir.join("cur").is_dir());
    let text = fs::read_to_string(&new[0]).unwrap();
    assert!(
        text.starts_with("Return-Path: <bob@elsewhere.test>\nDelivered-To: alice@example.org\nReceived: from"),
        "{text}"
    );
    assert!(
        text.contains(&id) && text.ends_with("\n\nHello.\n.A line with a dot.\n") && !text.contains('\r'),
        "{text}"
    );
}

#[test]
fn an_mbox_gets_a_from_line_and_escaped_text() {
    let transport = documents::transport("disk", "mbox: { path: spool/%n }\n");
    let site = Site::new().with("site.yaml", &(documents::base("disk") + &transport));
    let posthouse = site.start();
    let mut client = Client::connect(posthouse.address("mx"));
    client.say("EHLO elsewhere.test", 250);
    for n in ["one", "two"] {
        let text = format!("Subject: {n}\r\n\r\nFrom here on\r\n>From there\r\n");
        queued_id(&client.deliver("bob@elsewhere.test", &["alice@example.org"], &text));
    }
    let mbox = site.state().join("spool/alice");
    let text = eventually("both messages in the mbox", || {
        let text = fs::read_to_string(&mbox).ok()?;
        (text.matches("\n>>From there\n").count() == 2).then_some(text)
    });
    let from_lines = text.lines().filter(|line| line.starts_with("From ")).count();
    assert_eq!(from_lines, 2, "each message has one From_ line: {text}");
    assert_eq!(text.matches("\n>From here on\n").count(), 2, "{text}");
    assert!(text.starts_with("From bob@elsewhere.test "), "{text}");
}

#[test]
fn a_program_gets_the_message_on_stdin_and_its_exit_code_decides() {
    let site = Site::new();
    let out = site.path().join("out");
    let script = site.path().join("deliver");
    // The second run succeeds; the first asks to be tried again (EX_TEMPFAIL).
    let text = format!(
        "#!/bin/sh\nif [ ! -e {0}.once ]; then touch {0}.once; echo not yet; exit 75; fi\n\
         {{ echo \"$1 $2 $HOME_VARIABLE ${{PATH_OF_PLATFORM-unset}}\"; cat; }} > {0}\n",
        out.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let spec = format!(
        "program:\n  argv: [{}, \"%u\", \"; touch /%n\"]\n  variables: {{ HOME_VARIABLE: here }}\n{}",
        script.display(),
        documents::QUICK_RETRY
    );
    let site = site.with("site.yaml", &(documents::base("script") + &documents::transport("script", &spec)));
    let id = send(&site, "alice@example.org");
    let text = fs::read_to_string(&out).unwrap();
    let first = text.lines().next().unwrap();
    assert_eq!(first, "alice@example.org ; touch /alice here unset", "arguments are not a shell's");
    assert!(text.contains(&id) && text.contains("Subject: local"), "{text}");
}

#[test]
fn mailboxes_of_another_user_are_written_by_a_helper_with_that_uid() {
    let site = Site::new();
    // The helper must reach the folder.
    fs::set_permissions(site.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let home = site.path().join("home");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
    let spec = format!("maildir: {{ path: \"{}/%n/Maildir\", asUser: nobody }}\n", home.display());
    let site = site.with("site.yaml", &(documents::base("disk") + &documents::transport("disk", &spec)));
    send(&site, "alice@example.org");
    let new = files(&home.join("alice/Maildir/new"));
    assert_eq!(new.len(), 1);
    assert_eq!(fs::metadata(&new[0]).unwrap().uid(), NOBODY);
}
