//! `posthouse check`, `init` and what `run` says to a faulty folder.

use testkit::posthouse::Site;
use testkit::smtp::Client;

use crate::documents;

fn text(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn ten_different_faults_are_listed_each_at_its_line() {
    let faulty = include_str!("ten-faults.yaml");
    let site = Site::new().with("site.yaml", faulty);
    let documents = site.documents();
    let documents = documents.to_str().unwrap();
    for arguments in [vec!["check", documents], vec!["run", documents, "--state", site.state().to_str().unwrap()]] {
        let output = site.cli(&arguments);
        assert_eq!(output.status.code(), Some(64), "{}", text(&output));
        let found = text(&output);
        let found: Vec<&str> = found.lines().filter(|line| line.contains("site.yaml:")).collect();
        let expected: Vec<(usize, &str)> = faulty
            .lines()
            .enumerate()
            .filter_map(|(index, line)| Some((index + 1, line.split_once("# fault: ")?.1)))
            .collect();
        assert_eq!(expected.len(), 10);
        for (line, word) in &expected {
            let place = format!("site.yaml:{line}:");
            let here: Vec<_> = found.iter().filter(|fault| fault.contains(&place)).collect();
            assert_eq!(here.len(), 1, "one fault at line {line} ({word}), found: {found:#?}");
            assert!(here[0].contains(word), "{word} at line {line}: {}", here[0]);
            assert!(here[0].matches(": ").count() >= 2, "place: what: remedy: {}", here[0]);
        }
        assert_eq!(found.len(), expected.len(), "{found:#?}");
    }
}

#[test]
fn init_writes_a_site_that_checks_and_runs() {
    let site = Site::new();
    let folder = site.path().join("new");
    let folder = folder.to_str().unwrap();
    let output = site.cli(&["init", folder, "--hostname", "mx.example.net", "--domain", "example.net"]);
    assert!(output.status.success(), "{}", text(&output));
    let checked = site.cli(&["check", folder]);
    assert!(checked.status.success(), "{}", text(&checked));
    assert!(text(&checked).contains("resources, no faults"), "{}", text(&checked));
    let again = site.cli(&["init", folder, "--hostname", "mx.example.net", "--domain", "example.net"]);
    assert!(!again.status.success(), "a folder that is not empty is left alone");
}

#[test]
fn the_example_checks() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/small-site");
    let output = Site::new().cli(&["check", example]);
    assert!(output.status.success() && text(&output).contains("resources, no faults"), "{}", text(&output));
}

#[test]
fn explain_gives_the_answer_that_the_server_gives_and_its_reasons() {
    let rules = "rules:\n\
         \x20 - name: no mail from evil\n\
         \x20   match: { sender: \"*@evil.test\" }\n\
         \x20   action: { reject: { text: \"5.7.1 not you\" } }\n\
         \x20 - include: default\n";
    let documents = [
        documents::platform("policyRef: main\n"),
        documents::listener_mx(""),
        documents::domain("disk", "aliases: [example.net]\n"),
        documents::user("alice", "forwards: [carol@world.test]\nkeepCopy: true\n"),
        documents::transport("disk", "maildir: { path: mail/%n }\n"),
        documents::document("MailPolicy", "main", rules),
    ];
    let site = Site::new().with("site.yaml", &documents.concat());
    let posthouse = site.start();
    let folder = site.documents();
    for (sender, recipient, code) in [
        ("x@evil.test", "alice@example.org", 550),
        ("x@good.test", "alice+tag@example.net", 250),
        ("x@good.test", "nobody@example.org", 550),
        ("x@good.test", "carol@world.test", 550),
    ] {
        let arguments = [
            "explain",
            folder.to_str().unwrap(),
            "--listener",
            "mx",
            "--client-ip",
            "127.0.0.1",
            "--helo",
            "h.test",
            "--from",
            sender,
            "--to",
            recipient,
        ];
        let output = site.cli(&arguments);
        let story = text(&output);
        let mut client = Client::connect(posthouse.address("mx"));
        client.say("EHLO h.test", 250);
        client.say(&format!("MAIL FROM:<{sender}>"), 250);
        let reply = client.command(&format!("RCPT TO:<{recipient}>"));
        assert_eq!(reply.code, code, "{recipient}: {reply}");
        assert!(story.contains("no mail from evil"), "every rule that was tried: {story}");
        if code == 250 {
            assert!(
                story.contains("alice@example.org") && story.contains("carol@world.test") && story.contains("disk"),
                "{story}"
            );
        } else {
            assert!(story.contains(&reply.text()), "{reply} in {story}");
        }
    }
}
