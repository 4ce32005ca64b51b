use std::collections::BTreeMap;
use std::path::Path;

use types::Address;

use super::*;
use crate::job::Outcome;

fn shell(script: &str) -> snapshot::Program {
    snapshot::Program {
        argv: vec!["/bin/sh".into(), "-c".into(), script.into()],
        as_user: None,
        timeout: Duration::from_secs(30),
        output_max_bytes: 4096,
        environment: Vec::new(),
        variables: BTreeMap::new(),
    }
}

fn call(program: &snapshot::Program) -> Call {
    Call {
        argv: program.argv.clone(),
        variables: [
            ("SENDER", "bob@example.net".into()),
            ("RECIPIENT", "alice@example.org".into()),
            ("MESSAGE_ID", "id".into()),
        ],
        text: [
            Bytes::from_static(b"Return-Path: <>\r\n"),
            Bytes::from_static(b"Subject: x\r\n"),
            Bytes::from_static(b"\r\n"),
        ],
        body_size: 6,
    }
}

async fn outcome(program: &snapshot::Program) -> AttemptResult {
    let body = BodyReader::inline(Bytes::from_static(b"body\r\n"));
    run(program, &call(program), None, body, program.timeout).await
}

#[tokio::test]
async fn exit_codes_decide() {
    let delivered = Outcome::Delivered { relayed: false, final_: true };
    for (script, expected, code, reply) in [
        ("exit 0", delivered, "2.0.0", "delivered"),
        ("echo stored; exit 0", delivered, "2.0.0", "stored"),
        ("exit 64", Outcome::Deferred, "4.3.5", "exit code 64: the program was called wrongly (EX_USAGE)"),
        ("exit 65", Outcome::Failed, "5.6.0", "exit code 65: the program cannot read the message (EX_DATAERR)"),
        ("echo who?; exit 67", Outcome::Failed, "5.1.1", "who?"),
        ("exit 69", Outcome::Failed, "5.3.0", "exit code 69: the program refuses the message (EX_UNAVAILABLE)"),
        ("exit 70", Outcome::Deferred, "4.3.0", "exit code 70: the program is broken (EX_SOFTWARE)"),
        ("exit 71", Outcome::Deferred, "4.3.0", "exit code 71: the system is in trouble (EX_OSERR)"),
        ("exit 75", Outcome::Deferred, "4.3.0", "exit code 75: try again later (EX_TEMPFAIL)"),
        ("exit 77", Outcome::Failed, "5.7.0", "exit code 77: not allowed (EX_NOPERM)"),
        ("exit 78", Outcome::Deferred, "4.3.5", "exit code 78: the program is configured wrongly (EX_CONFIG)"),
        ("exit 1", Outcome::Deferred, "4.3.0", "exit code 1: an exit code without a meaning"),
        ("/nonexistent 2>/dev/null", Outcome::Deferred, "4.3.5", "exit code 127: a program was not found or is none"),
        ("echo 5.7.1 spam >&2; exit 77", Outcome::Failed, "5.7.1", "5.7.1 spam"),
        ("echo 2.0.0 fine; exit 77", Outcome::Failed, "5.7.0", "2.0.0 fine"),
        ("echo 4.2.2 full; exit 75", Outcome::Deferred, "4.2.2", "4.2.2 full"),
        ("kill -9 $$", Outcome::Deferred, "4.3.0", "the program ended by signal: 9 (SIGKILL)"),
    ] {
        let result = outcome(&shell(script)).await;
        let found = (result.outcome, result.enhanced.to_string(), result.reply);
        assert_eq!(found, (expected, code.to_owned(), reply.to_owned()), "{script}");
    }
}

#[tokio::test]
async fn the_message_is_on_stdin_in_local_form() {
    let result = outcome(&shell("cat")).await;
    assert_eq!(result.reply, "Return-Path: <>\nSubject: x\n\nbody");
    assert!(outcome(&shell("od -c | grep -c '\\\\r'")).await.reply.starts_with('0'));
}

#[tokio::test]
async fn a_program_does_not_take_a_part_for_the_whole() {
    let root = tempfile::tempdir().unwrap();
    let taken = root.path().join("taken");
    let program = shell(&format!("cat > /dev/null; touch {}", taken.display()));
    let call = Call { body_size: 7, ..call(&program) };
    let body = BodyReader::inline(Bytes::from_static(b"body\r\n"));
    let result = run(&program, &call, None, body, program.timeout).await;
    assert_eq!((result.outcome, result.reply.as_str()), (Outcome::Deferred, "the message came only in part"));
    assert!(!taken.exists());
}

#[tokio::test]
async fn a_program_need_not_read_a_large_message() {
    let body = BodyReader::inline(Bytes::from(vec![b'x'; 8 << 20]));
    let program = shell("exec 0<&-; exit 67");
    let call = Call { body_size: 8 << 20, ..call(&program) };
    let result = run(&program, &call, None, body, program.timeout).await;
    assert_eq!(result.enhanced.to_string(), "5.1.1", "{}", result.reply);
}

#[tokio::test]
async fn the_environment_holds_only_what_is_named() {
    let mut program = shell("env | grep -v -e ^PWD= -e ^SHLVL= -e ^_= | sort; pwd");
    program.environment = vec!["CARGO_PKG_NAME".into(), "NOT_SET_ANYWHERE".into()];
    program.variables = BTreeMap::from([("FIXED".into(), "a b".into()), ("SENDER".into(), "replaced".into())]);
    let result = outcome(&program).await;
    let expected = format!(
        "CARGO_PKG_NAME=delivery\nFIXED=a b\nMESSAGE_ID=id\nPATH={PATH}\nRECIPIENT=alice@example.org\nSENDER=replaced\n/"
    );
    assert_eq!(result.reply, expected);
}

#[tokio::test]
async fn output_is_bounded_and_harmless() {
    let mut program = shell("printf 'a\\r\\n\\033[31mb\\000'; head -c 10000000 /dev/zero | tr '\\0' x; exit 67");
    program.output_max_bytes = 20;
    let result = outcome(&program).await;
    assert_eq!(result.reply, "a\n?[31mb?xxxxxxxxxx");
    assert_eq!(result.outcome, Outcome::Failed);
}

#[tokio::test]
async fn a_program_that_hangs_is_ended_with_its_children() {
    let root = tempfile::tempdir().unwrap();
    let pids = root.path().join("pids");
    let mut program = shell(&format!("trap '' TERM; sleep 600 & echo $! $$ > {}; wait; sleep 600", pids.display()));
    program.timeout = Duration::from_secs(1);
    let result = outcome(&program).await;
    assert_eq!((result.outcome, result.reply.as_str()), (Outcome::Deferred, "the program did not end within 1 s"));
    let numbers = std::fs::read_to_string(&pids).unwrap();
    for number in numbers.split_whitespace() {
        gone(number).await;
    }
}

#[tokio::test]
async fn a_program_ends_with_the_attempt_that_started_it() {
    let root = tempfile::tempdir().unwrap();
    let pids = root.path().join("pids");
    let program = shell(&format!("sleep 600 & echo $! $$ > {}; wait", pids.display()));
    let attempt = tokio::spawn(async move { outcome(&program).await });
    let numbers = loop {
        match std::fs::read_to_string(&pids) {
            Ok(numbers) if numbers.ends_with('\n') => break numbers,
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    attempt.abort();
    for number in numbers.split_whitespace() {
        gone(number).await;
    }
}

/// Waits until a process has ended; a zombie that nobody reaped yet has.
async fn gone(number: &str) {
    let stat = Path::new("/proc").join(number).join("stat");
    for _ in 0..2000 {
        match std::fs::read_to_string(&stat) {
            Err(_) => return,
            Ok(stat) if stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")) => return,
            Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    panic!("process {number} still runs");
}

#[tokio::test]
async fn a_background_process_does_not_hold_the_attempt_up() {
    let result = outcome(&shell("sleep 30 & echo $!; exit 0")).await;
    assert!(matches!(result.outcome, Outcome::Delivered { .. }));
    let _ = std::process::Command::new("kill").arg(&result.reply).status();
}

#[tokio::test]
async fn a_program_that_is_not_there_defers() {
    let mut program = shell("");
    program.argv = vec!["/nonexistent/program".into()];
    let result = outcome(&program).await;
    assert_eq!((result.outcome, result.enhanced.to_string().as_str()), (Outcome::Deferred, "4.3.5"));
}

#[test]
fn arguments_are_filled_in_as_literal_text() {
    let sender = "\"; rm -rf /\"@example.net";
    for (template, expected) in [
        ("%u", "alice+x@example.org"),
        ("-d%n", "-dalice+x"),
        ("--to=%u --from=%s", "--to=alice+x@example.org --from=\"; rm -rf /\"@example.net"),
        ("%d/%i/%%s/%z%", "example.org/id7/%s/%z%"),
        ("$(id) `id` %s", "$(id) `id` \"; rm -rf /\"@example.net"),
    ] {
        let found = argument(template, &Address::parse("Alice+X@Example.org").unwrap(), sender, "id7").unwrap();
        assert_eq!(found, expected, "{template}");
    }
}

#[test]
fn an_address_cannot_become_an_option() {
    let dashed = Address::parse("-oQ/tmp@example.org").unwrap();
    for (template, sender, expected) in [
        ("%u", "", Some((1, 3))),
        ("%n", "", Some((1, 3))),
        ("%s", "-f@example.net", Some((1, 7))),
        ("%s%u", "", Some((1, 3))),
        ("--user=%u", "", None),
        ("x%n", "", None),
        ("--sender=%s", "-f@example.net", None),
        ("%d", "", None),
    ] {
        let found = argument(template, &dashed, sender, "id").err().map(|done| (done.subject, done.detail));
        assert_eq!(found, expected, "{template} {sender}");
    }
}

#[tokio::test]
async fn one_argument_stays_one_argument() {
    let mut program = shell("");
    program.argv = vec!["/bin/sh".into(), "-c".into(), "echo \"$#:$1\"".into(), "sh".into(), "a b; id $(id)".into()];
    assert_eq!(outcome(&program).await.reply, "1:a b; id $(id)");
}
