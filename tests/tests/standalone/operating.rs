//! What an operator sees and relies on: metrics, probes, permissions, a full disk.

use std::os::unix::fs::PermissionsExt;

use testkit::eventually;
use testkit::posthouse::Site;
use testkit::smtp::{Client, queued_id};

use crate::documents::{self, message};

fn site(platform: &str) -> Site {
    let text = documents::base("disk").replace(&documents::platform(""), &documents::platform(platform));
    Site::new().with("site.yaml", &(text + &documents::transport("disk", "maildir: { path: mail/%n }\n")))
}

#[test]
fn metrics_tell_what_happened_and_logs_hold_no_addresses() {
    let site = site("");
    let posthouse = site.start();
    let mut client = Client::connect(posthouse.address("mx"));
    client.say("EHLO elsewhere.test", 250);
    queued_id(&client.deliver(
        "bob@elsewhere.test",
        &["alice@example.org"],
        &message("b@e.test", "alice@example.org", "m"),
    ));
    client.say("MAIL FROM:<bob@elsewhere.test>", 250);
    client.say("RCPT TO:<nobody@example.org>", 550);
    site.wait_until_empty();
    for (name, labels, at_least) in [
        ("posthouse_sessions", vec!["listener=\"mx\""], 1.0),
        ("posthouse_sessions_total", vec!["listener=\"mx\""], 1.0),
        ("posthouse_messages_total", vec!["result=\"accepted\""], 1.0),
        ("posthouse_recipients_total", vec!["result=\"rejected\""], 1.0),
        ("posthouse_calls_total", vec!["method=\"Accept\"", "code=\"ok\""], 1.0),
        ("posthouse_call_seconds_count", vec!["method=\"Envelope\""], 1.0),
        ("posthouse_queue_group_size_count", vec![], 1.0),
        ("posthouse_queue_commit_seconds_count", vec![], 1.0),
        ("posthouse_deliveries_total", vec!["transport=\"disk\"", "result=\"delivered\""], 1.0),
        ("posthouse_certificate_expiry_timestamp_seconds", vec![], 1_700_000_000.0),
    ] {
        let found = posthouse.metric(name, &labels);
        assert!(found >= at_least, "{name}{labels:?} is {found}");
    }
    let (_, text) = posthouse.get("/metrics");
    assert!(text.contains("posthouse_queue_oldest_due_seconds"), "{text}");
    assert_eq!(posthouse.get("/livez").0, 200);
    assert!(!posthouse.log().contains("elsewhere.test") && !posthouse.log().contains("alice@"), "{}", posthouse.log());
}

#[test]
fn the_admin_port_only_reads_and_the_socket_is_private() {
    let site = site("");
    let posthouse = site.start();
    for path in ["/queue", "/shutdown", "/"] {
        assert!(matches!(posthouse.get(path).0, 404 | 405), "{path}");
    }
    let sockets: Vec<_> = walk(&site.state()).into_iter().filter(|path| path.ends_with("admin.sock")).collect();
    assert_eq!(sockets.len(), 1);
    assert_eq!(std::fs::metadata(&sockets[0]).unwrap().permissions().mode() & 0o777, 0o600);
    let private: Vec<_> = walk(&site.state().join("tls")).into_iter().filter(|path| path.is_file()).collect();
    let key = private.iter().find(|path| std::fs::read_to_string(path).is_ok_and(|text| text.contains("PRIVATE KEY")));
    assert_eq!(std::fs::metadata(key.expect("a key")).unwrap().permissions().mode() & 0o077, 0);
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut all = Vec::new();
    for entry in entries.flatten() {
        if entry.path().is_dir() {
            all.extend(walk(&entry.path()));
        }
        all.push(entry.path());
    }
    all
}

#[test]
fn below_the_watermark_mail_is_put_off_and_the_session_lives_on() {
    let site = site("queue: { freeSpaceMin: 100000Gi }\n");
    let posthouse = site.spawn();
    let mut client = Client::connect(posthouse.address("mx"));
    client.say("EHLO elsewhere.test", 250);
    let text = message("b@elsewhere.test", "alice@example.org", "full");
    let reply = client.deliver("b@elsewhere.test", &["alice@example.org"], &text);
    assert_eq!(reply.code, 452, "{reply}");
    client.say("NOOP", 250);
    site.write(
        "site.yaml",
        &std::fs::read_to_string(site.documents().join("site.yaml")).unwrap().replace("100000Gi", "1Mi"),
    );
    eventually("mail to be taken again", || {
        (client.deliver("b@elsewhere.test", &["alice@example.org"], &text).code == 250).then_some(())
    });
}

#[test]
fn the_printed_curl_line_submits_a_message_that_arrives_where_it_says() {
    // The example itself, on ports of its own.
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/small-site");
    let mut site = Site::new();
    for entry in std::fs::read_dir(example).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replace("port: 2525", "port: 0").replace("port: 2587", "port: 0").replace(":9090", ":0");
        site = site.with(path.file_name().unwrap().to_str().unwrap(), &text);
    }
    let posthouse = site.start();
    let line = eventually("the hint", || {
        let log = posthouse.log();
        let line = log.lines().find(|line| line.contains("curl "))?;
        Some(line[line.find("curl ")?..].to_owned())
    });
    // What a person would paste: the whole line, in a shell.
    let command = posthouse
        .log()
        .lines()
        .find(|found| found.contains("curl "))
        .map_or(line.clone(), |found| found.trim().to_owned());
    let output = std::process::Command::new("sh").arg("-c").arg(&command).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    let new = site.state().join("mail/example.org/alice");
    assert!(posthouse.log().contains(new.to_str().unwrap()), "the hint names the folder {new:?}: {}", posthouse.log());
    eventually("the message", || std::fs::read_dir(new.join("new")).ok()?.next().map(drop));
}
