//! What was accepted outlives the process.

use testkit::eventually;
use testkit::peer::Peer;
use testkit::posthouse::{Signal, Site};
use testkit::smtp::{Client, queued_id};

use crate::documents::{self, QUICK_RETRY, message};
use crate::mailboxes::submission;

fn site(port: u16) -> Site {
    let text = [
        documents::platform("policyRef: main\n"),
        documents::listener_mx(""),
        documents::listener_submission(),
        documents::domain("disk", ""),
        documents::user("alice", ""),
        documents::transport("disk", "maildir: { path: mail/%n }\n"),
        documents::relay_policy("out"),
        documents::smart_host("out", ([127, 0, 0, 1], port).into(), QUICK_RETRY),
    ];
    Site::new().with("site.yaml", &text.concat())
}

#[test]
fn mail_in_the_queue_is_delivered_by_the_next_process_however_the_first_one_ended() {
    // A port that is known and closed for now.
    let address = Peer::start(&[]).address();
    let site = site(address.port());
    let mut posthouse = site.start();
    let mut ids = Vec::new();
    for n in 0..5 {
        let subject = format!("terminated-{n}");
        let text = message("alice@example.org", "carol@world.test", &subject);
        ids.push(queued_id(&submission(&posthouse).deliver("alice@example.org", &["carol@world.test"], &text)));
    }
    assert_eq!(posthouse.stop().code(), Some(0), "SIGTERM ends it well");
    let mut posthouse = site.start();
    for n in 0..5 {
        let subject = format!("killed-{n}");
        let text = message("alice@example.org", "carol@world.test", &subject);
        ids.push(queued_id(&submission(&posthouse).deliver("alice@example.org", &["carol@world.test"], &text)));
    }
    // A body of the body folder, too.
    let large = format!(
        "{}{}",
        message("alice@example.org", "carol@world.test", "large"),
        "0123456789abcde\r\n".repeat(60_000)
    );
    ids.push(queued_id(&submission(&posthouse).deliver("alice@example.org", &["carol@world.test"], &large)));
    posthouse.kill();
    let peer = Peer::start_on(address, &[]);
    let _posthouse = site.start();
    let received = peer.wait_for(ids.len());
    site.wait_until_empty();
    assert_eq!(peer.received().len(), ids.len(), "each arrives once");
    for id in &ids {
        assert!(received.iter().any(|message| message.text.contains(id)), "{id} is lost");
    }
    let found = received.iter().find(|message| message.text.contains("Subject: large")).unwrap();
    assert!(found.text.ends_with(&large[large.len() - 100_000..]), "the large body is whole");
    let bodies = site.state().join("queue/bodies");
    eventually("the body folder to be empty", || (count_files(&bodies) == 0).then_some(()));
}

fn count_files(folder: &std::path::Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries.map(|entry| entry.unwrap().path()).map(|path| if path.is_dir() { count_files(&path) } else { 1 }).sum()
}

#[test]
fn sigterm_lets_a_transaction_finish_and_then_says_421() {
    let site = Site::new()
        .with("site.yaml", &(documents::base("disk") + &documents::transport("disk", "maildir: { path: mail/%n }\n")));
    let mut posthouse = site.start();
    let mut idle = Client::connect(posthouse.address("mx"));
    idle.say("EHLO elsewhere.test", 250);
    let mut busy = Client::connect(posthouse.address("mx"));
    busy.say("EHLO elsewhere.test", 250);
    busy.say("MAIL FROM:<bob@elsewhere.test>", 250);
    busy.say("RCPT TO:<alice@example.org>", 250);
    busy.say("DATA", 354);
    busy.send("Subject: in flight\r\n\r\n");
    posthouse.signal(Signal::TERM);
    idle.expect(421);
    assert_eq!(idle.read(), None);
    busy.send("text\r\n.\r\n");
    queued_id(&busy.expect(250));
    busy.expect(421);
    assert_eq!(posthouse.wait().code(), Some(0));
    // What was accepted in the last moment is there.
    let _posthouse = site.start();
    site.wait_until_empty();
    assert_eq!(std::fs::read_dir(site.state().join("mail/alice/new")).unwrap().count(), 1);
}

#[test]
fn a_second_process_on_the_same_state_folder_is_refused_with_a_remedy() {
    let site = Site::new()
        .with("site.yaml", &(documents::base("disk") + &documents::transport("disk", "maildir: { path: mail/%n }\n")));
    let _posthouse = site.start();
    let documents = site.documents();
    let state = site.state();
    let output = site.cli(&["run", documents.to_str().unwrap(), "--state", state.to_str().unwrap()]);
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("in use") && text.contains("one platform runs per state folder"), "{text}");
}
