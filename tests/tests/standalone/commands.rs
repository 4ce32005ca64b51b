//! What people do with the queue and the rest from a terminal.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use testkit::eventually;
use testkit::peer::Peer;
use testkit::posthouse::{Posthouse, Site, binary};
use testkit::smtp::{Client, queued_id};

use crate::documents::{self, message};
use crate::mailboxes::submission;

fn site(smart_host: std::net::SocketAddr) -> Site {
    let text = [
        documents::platform("policyRef: main\n"),
        documents::listener_mx(""),
        documents::listener_submission(),
        documents::domain("disk", ""),
        documents::user("alice", ""),
        documents::user("root", ""),
        documents::transport("disk", "maildir: { path: mail/%n }\n"),
        documents::relay_policy("out"),
        documents::smart_host("out", smart_host, "retry: { delayFirst: 1h, delayMax: 4h }\n"),
    ];
    Site::new().with("site.yaml", &text.concat())
}

/// A platform whose smart host is not there, with `n` messages for it in the queue.
fn stuck(n: usize) -> (std::net::SocketAddr, Site, Posthouse, Vec<String>) {
    let address = Peer::start(&[]).address();
    let site = site(address);
    let posthouse = site.start();
    let ids: Vec<_> =
        (0..n).map(|n| submit(&posthouse, &format!("stuck-{n}"), &format!("carol{n}@world.test"))).collect();
    // The first failure pauses the route: the others need not be tried to know that nobody is there.
    eventually("the first message to have been tried", || {
        let first = site.queued().into_iter().find(|message| message["id"] == ids[0].as_str())?;
        (first["recipients"][0]["attempts"].as_u64() >= Some(1)).then_some(())
    });
    (address, site, posthouse, ids)
}

fn submit(posthouse: &Posthouse, subject: &str, recipient: &str) -> String {
    let text = message("alice@example.org", recipient, subject);
    queued_id(&submission(posthouse).deliver("alice@example.org", &[recipient], &text))
}

fn run(site: &Site, arguments: &[&str]) -> Output {
    let state = site.state();
    let output = site.cli(&[arguments, &["--state", state.to_str().unwrap()]].concat());
    assert!(output.status.success(), "{arguments:?}: {}{}", out(&output), String::from_utf8_lossy(&output.stderr));
    output
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn messages_are_listed_shown_held_released_retried_and_removed() {
    let (address, site, posthouse, ids) = stuck(3);
    let table = out(&run(&site, &["queue", "list"]));
    assert!(ids.iter().all(|id| table.contains(id)) && table.contains("carol1@world.test"), "{table}");
    let shown = out(&run(&site, &["queue", "show", &ids[0]]));
    assert!(shown.contains("carol0@world.test") && shown.contains("out"), "{shown}");
    let text = out(&run(&site, &["queue", "cat", &ids[0]]));
    assert!(text.contains("Subject: stuck-0") && text.contains("Hello.\r\n.A line"), "{text}");

    run(&site, &["queue", "hold", &ids[0], "--reason", "looked at"]);
    run(&site, &["queue", "remove", &ids[1]]);
    let peer = Peer::start_on(address, &[]);
    run(&site, &["queue", "retry", "--all"]);
    let received = peer.wait_for(1);
    assert!(received[0].text.contains("Subject: stuck-2"), "{received:?}");
    eventually("one message to be left", || (site.queued().len() == 1).then_some(()));
    assert_eq!(site.queued()[0]["recipients"][0]["state"], "held");
    run(&site, &["queue", "release", &ids[0]]);
    assert!(peer.wait_for(2)[1].text.contains("Subject: stuck-0"));
    eventually("the queue to be empty", || site.queued().is_empty().then_some(()));
    assert_eq!(peer.received().len(), 2, "what was removed is not sent");

    // The life of a message outlives the message.
    let trace = out(&run(&site, &["trace", &ids[0]]));
    for word in ["received", "deferred", "held", "released", "delivered"] {
        assert!(trace.contains(word), "{word}: {trace}");
    }
    for what in ["carol2@world.test", "<stuck-2@client.test>"] {
        assert!(out(&run(&site, &["trace", what])).contains(&ids[2]), "{what}");
    }
    drop(posthouse);
}

#[test]
fn the_queue_of_a_stopped_platform_can_be_read_exported_imported_and_backed_up() {
    let (address, site, mut posthouse, ids) = stuck(2);
    let running = site.path().join("backup-running");
    run(&site, &["backup", running.to_str().unwrap()]);
    assert_eq!(posthouse.stop().code(), Some(0));
    let table = out(&run(&site, &["queue", "list"]));
    assert!(ids.iter().all(|id| table.contains(id)), "{table}");
    let stopped = site.path().join("backup-stopped");
    run(&site, &["backup", stopped.to_str().unwrap()]);
    let exported = site.path().join("exported");
    run(&site, &["queue", "export", exported.to_str().unwrap()]);

    // A backup is a state folder again.
    for state in [&running, &stopped] {
        let output = site.cli(&["queue", "list", "--state", state.to_str().unwrap()]);
        assert!(ids.iter().all(|id| out(&output).contains(id)), "{state:?}: {}", out(&output));
        let mode = std::fs::metadata(state.join("queue")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "mail is nobody else's business in a backup either");
    }
    // Another platform takes the exported mail over; twice is once.
    let other = crate::commands::site(address);
    let _other = other.start();
    for _ in 0..2 {
        run(&other, &["queue", "import", exported.to_str().unwrap()]);
    }
    assert_eq!(other.queued().len(), 2);
    let peer = Peer::start_on(address, &[]);
    run(&other, &["queue", "retry", "--all"]);
    let received = peer.wait_for(2);
    assert!(ids.iter().all(|id| received.iter().any(|message| message.text.contains(id))), "{received:?}");
}

#[test]
fn sendmail_submits_from_programs_over_the_unix_socket() {
    let peer = Peer::start(&[]);
    let site = site(peer.address());
    let posthouse = site.start();
    let state = site.state();
    let state = state.to_str().unwrap();
    let text = b"To: Carol <carol@world.test>\nBcc: alice@example.org\nSubject: cron\n\n.\nafter a dot\n";
    let output = site.cli_with_input(&["sendmail", "--state", state, "-t", "-i", "-f", "root@example.org"], text);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let received = peer.wait_for(1);
    let (mail, text) = (&received[0].mail, &received[0].text);
    assert!(mail.starts_with("FROM:<root@example.org>"), "{mail}");
    assert!(
        text.contains("\r\n.\r\nafter a dot\r\n") && text.contains("\r\nDate: ") && !text.contains("Bcc"),
        "{text}"
    );
    eventually("the blind copy", || std::fs::read_dir(site.state().join("mail/alice/new")).ok()?.next().map(drop));
    // Nobody there: try again later (EX_TEMPFAIL).
    drop(posthouse);
    let output = site.cli_with_input(&["sendmail", "--state", state, "carol@world.test"], b"Subject: x\n\nx\n");
    assert_eq!(output.status.code(), Some(75), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn live_dialogues_are_shown_without_their_secrets() {
    let peer = Peer::start(&[]);
    let site = site(peer.address());
    let posthouse = site.start();
    let mut trace = Command::new(binary())
        .args(["trace", "--live", "--client-ip", "127.0.0.1", "--state"])
        .arg(site.state())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(trace.stdout.take().unwrap()).lines();
    let seen = std::thread::spawn(move || {
        let mut seen = String::new();
        for line in lines.map_while(Result::ok) {
            seen.push_str(&line);
            seen.push('\n');
            if line.contains("queued as") {
                break;
            }
        }
        seen
    });
    // The watcher is there as soon as it has seen one session: sessions are made until it ends.
    while !seen.is_finished() {
        let mut client = submission(&posthouse);
        let text = message("alice@example.org", "alice@example.org", "watched");
        queued_id(&client.deliver("alice@example.org", &["alice@example.org"], &text));
    }
    trace.kill().unwrap();
    trace.wait().unwrap();
    let seen = seen.join().unwrap();
    assert!(seen.contains("RCPT TO:<alice@example.org>") && seen.contains("AUTH PLAIN"), "{seen}");
    for secret in ["AGFsaWNlQGV4YW1wbGUub3JnAGNoYW5nZS1tZQ", "change-me"] {
        assert!(!seen.contains(secret), "{seen}");
    }
}

#[test]
fn passwords_are_hashed_in_each_scheme_and_logged_in_with() {
    let peer = Peer::start(&[]);
    let site = site(peer.address());
    let mut users = String::new();
    for scheme in ["sha512-crypt", "bcrypt", "argon2id"] {
        let output = site.cli_with_input(&["hash-password", "--scheme", scheme], b"a secret\n");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let hash = out(&output);
        let name = scheme.replace('-', "");
        users += &documents::document(
            "MailUser",
            &name,
            &format!("address: {name}@example.org\npasswordHash: \"{}\"\n", hash.trim()),
        );
    }
    site.write("users.yaml", &users);
    let posthouse = site.start();
    for name in ["sha512crypt", "bcrypt", "argon2id"] {
        let mut client = Client::connect(posthouse.address("submission"));
        client.say("EHLO client.test", 250);
        let (mut client, _) = client.start_tls("localhost");
        client.say("EHLO client.test", 250);
        assert_eq!(client.auth_plain(&format!("{name}@example.org"), "wrong").code, 535, "{name}");
        assert_eq!(client.auth_plain(&format!("{name}@example.org"), "a secret").code, 235, "{name}");
    }
    let exported = out(&site.cli(&["export", "dovecot", site.documents().to_str().unwrap()]));
    assert!(exported.lines().any(|line| line.starts_with("bcrypt@example.org:{")), "{exported}");
}
