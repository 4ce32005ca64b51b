//! S26: a store that something has damaged.
//!
//! A corrupt DKIM key does not apply yet: nothing is signed.

use testkit::eventually;
use testkit::posthouse::Site;

use crate::kit::{Raw, Script, Scripted, relay_site, text};

/// Runs SQL over the queue of a platform that does not run.
pub fn sqlite(site: &Site, sql: &str) {
    let folder = site.state();
    let mut found = Vec::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "db" || extension == "sqlite") {
                found.push(path);
            }
        }
    }
    assert_eq!(found.len(), 1, "one data base: {found:?}");
    let output = std::process::Command::new("sqlite3").arg(&found[0]).arg(sql).output().unwrap();
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn s26_a_damaged_row_is_set_aside_and_the_others_proceed() {
    let peer = Scripted::start(Script { ehlo: b"451 4.3.2 not now".to_vec(), ..Script::default() });
    let site = relay_site(peer.address(), "");
    let mut posthouse = site.start();
    let mut client = Raw::hello(posthouse.address("local"));
    let large = format!("{}{}", text("file"), "a line of a large message\r\n".repeat(20_000));
    let mut ids = Vec::new();
    for subject in ["good", "unknown-state", "unknown-type", "oversized", "blob"] {
        ids.push((subject, client.deliver("alice@example.org", &format!("{subject}@world.test"), &text(subject))));
    }
    ids.push(("file", client.deliver("alice@example.org", "file@world.test", &large)));
    posthouse.kill();
    let id = |subject: &str| ids.iter().find(|(name, _)| *name == subject).unwrap().1.clone();
    let seq = |subject: &str| format!("(select seq from messages where id = '{}')", id(subject));
    sqlite(
        &site,
        &[
            format!("update recipients set state = 9 where rkey >> 16 = {};", seq("unknown-state")),
            format!("update messages set body_type = 99 where seq = {};", seq("unknown-type")),
            format!("update variants set header = zeroblob(80000000) where vkey >> 16 = {};", seq("oversized")),
            format!("delete from bodies where seq = {};", seq("blob")),
        ]
        .concat(),
    );
    let output = std::process::Command::new("find")
        .arg(site.state().join("queue/bodies"))
        .args(["-type", "f", "-print", "-delete"])
        .output()
        .unwrap();
    assert!(output.stdout.len() > 1, "there was a body in a file");
    peer.play(Script::default());
    let posthouse = site.start();
    let arrived = |subject: &str| {
        let seen = peer.seen().concat();
        let line = format!("Subject: {subject}\r\n");
        seen.windows(line.len()).any(|window| window == line.as_bytes())
    };
    eventually("the good message", || arrived("good").then_some(()));
    let mut client = Raw::hello(posthouse.address("local"));
    client.deliver("alice@example.org", "fresh@world.test", &text("fresh"));
    eventually("a fresh message", || arrived("fresh").then_some(()));
    // What cannot be read is not delivered in part, not bounced, and not forgotten: it is in the list, with a reason.
    for subject in ["unknown-state", "unknown-type", "oversized", "blob", "file"] {
        let entry = eventually(&format!("{subject} to be set aside"), || {
            let entry = site.queued().into_iter().find(|entry| entry.to_string().contains(&id(subject)))?;
            let recipient = &entry["recipients"][0];
            let reason = recipient["hold_reason"].as_str().is_some_and(|reason| !reason.is_empty());
            (recipient["state"] == "held" && reason).then_some(entry)
        });
        println!("{subject}: {entry}");
        assert!(!arrived(subject), "{subject}");
    }
    assert_eq!(posthouse.metric("posthouse_task_panics_total", &[]), 0.0);
    assert_eq!(posthouse.get("/livez").0, 200);
}
