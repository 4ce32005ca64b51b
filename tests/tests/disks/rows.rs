//! Rows that are damaged: each is set aside with a reason, the others go on.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use posthouse_tests::sink::Manners;
use posthouse_tests::stage::Stage;
use testkit::eventually;

use crate::hand_in;

/// What is done to a message (`$seq` is its number), and what its hold reason must say.
const DAMAGES: &[(&str, usize, &str, &str)] = &[
    ("a body that is cut", 1000, "UPDATE bodies SET body = substr(body, 1, 10) WHERE seq = $seq", "body"),
    ("a body that is gone", 1000, "DELETE FROM bodies WHERE seq = $seq", "body"),
    (
        "an oversized header section",
        1000,
        "UPDATE variants SET header = zeroblob(70000000) WHERE vkey >> 16 = $seq",
        "oversized",
    ),
    ("an oversized body", 1000, "UPDATE bodies SET body = zeroblob(90000000) WHERE seq = $seq", "length"),
    ("an unknown body type", 1000, "UPDATE messages SET body_type = 99 WHERE seq = $seq", "unknown"),
    ("an unknown RET", 1000, "UPDATE variants SET dsn_return = 77 WHERE vkey >> 16 = $seq", "unknown"),
    ("an unknown state", 1000, "UPDATE recipients SET state = 9 WHERE rkey >> 16 = $seq", "unknown"),
    ("a text instead of a time", 1000, "UPDATE recipients SET due = 'soon' WHERE rkey >> 16 = $seq", "due"),
    ("a variant that is not there", 1000, "UPDATE recipients SET variant = 5 WHERE rkey >> 16 = $seq", "missing"),
    ("a body file that is gone", 600_000, "", "missing"),
];

fn sql(stage: &Stage, text: &str) -> String {
    let output = Command::new("sqlite3").arg(stage.site.state().join("queue/queue.sqlite")).arg(text).output().unwrap();
    assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn id_of(reply: &str) -> String {
    reply.strip_prefix("250 2.0.0 queued as ").unwrap_or_else(|| panic!("{reply}")).to_owned()
}

#[test]
fn one_damaged_row_is_set_aside_with_a_reason_and_the_others_go_on() {
    // Nothing is answered by the sink before the platform is killed.
    let mut stage = Stage::new(Manners { delay: Duration::from_secs(30), ..Manners::default() });
    let mut posthouse = stage.start();
    let damaged: Vec<String> = DAMAGES.iter().map(|(_, bytes, ..)| id_of(&hand_in(&stage, *bytes))).collect();
    let sound: Vec<String> = [1000, 600_000].map(|bytes| id_of(&hand_in(&stage, bytes))).into();
    stage.kill(&mut posthouse);
    for ((what, _, change, _), id) in DAMAGES.iter().zip(&damaged) {
        let seq = sql(&stage, &format!("SELECT seq FROM messages WHERE id = '{id}'"));
        assert!(!seq.is_empty(), "{what}: {id} is queued");
        if change.is_empty() {
            let name = sql(&stage, &format!("SELECT body_file FROM messages WHERE id = '{id}'"));
            std::fs::remove_file(stage.site.state().join("queue/bodies").join(&id[id.len() - 2..]).join(name)).unwrap();
        } else {
            sql(&stage, &change.replace("$seq", &seq));
        }
    }
    stage.sink.set_manners(Manners::default());
    let posthouse = stage.start();
    let found = eventually("the sound ones to be delivered and the damaged ones to be held", || {
        let queued = stage.site.queued();
        let of: BTreeMap<String, (String, String)> = queued
            .iter()
            .map(|message| {
                let text = |name: &str| message["recipients"][0][name].as_str().unwrap_or_default().to_owned();
                (message["id"].as_str().unwrap_or_default().to_owned(), (text("state"), text("hold_reason")))
            })
            .collect();
        let held = damaged.iter().all(|id| of.get(id).is_some_and(|(state, _)| state == "held"));
        (held && sound.iter().all(|id| !of.contains_key(id))).then_some(of)
    });
    for ((what, _, _, reason), id) in DAMAGES.iter().zip(&damaged) {
        assert!(found[id].1.contains(reason), "{what}: {:?}", found[id]);
    }
    let arrived: Vec<String> =
        stage.ledger.records().arrivals.iter().filter(|arrival| arrival.whole).map(|a| a.queue_id.clone()).collect();
    assert!(sound.iter().all(|id| arrived.contains(id)), "{sound:?} are not among {arrived:?}");
    // It works on.
    let late = id_of(&hand_in(&stage, 1000));
    eventually("mail that came later to arrive", || {
        stage.ledger.records().arrivals.iter().any(|arrival| arrival.queue_id == late).then_some(())
    });
    assert_eq!(posthouse.get("/readyz").0, 200);
}
