use proptest::prelude::*;

use super::*;

/// Lines that a client may send, good and bad, one to a group: whatever is cut, no group is pipelined where it must not be.
fn group() -> impl Strategy<Value = String> {
    let line = prop::sample::select(vec![
        "EHLO c",
        "HELO c",
        "MAIL FROM:<a@b>",
        "MAIL FROM:<midway@b> SIZE=10",
        "RCPT TO:<c@d>",
        "RCPT TO:<unknown@d>",
        "RCPT TO:<\u{fc}@d>",
        "DATA",
        "RSET",
        "NOOP",
        "AUTH PLAIN AGEAc2VjcmV0",
        "AUTH LOGIN YQ",
        "STARTTLS",
        "VRFY x",
        ".",
        "..",
        "text",
        "",
        "raw:BDAT 4\r\na\r\n\r",
        "raw:BDAT 3 LAST\r\n\na\n",
        "raw:BDAT 0 LAST\r\n",
        "raw:BDAT 2\r\nab",
        "raw:a\nb\r\n",
        "raw:\r",
        "raw:\n",
        "raw:x",
        "raw:\0",
    ]);
    line.prop_map(str::to_owned)
}

fn configs() -> impl Strategy<Value = SessionConfig> {
    let ends = prop_oneof![Just(LineEnds::Refuse), Just(LineEnds::Normalise)];
    ends.prop_map(|line_ends| {
        let mut config = SessionConfig { line_ends, ..clear_auth() };
        config.limits.errors_max = 30;
        config.limits.commands_max = 30;
        config
    })
}

/// Lines around AUTH: nothing may follow a response, so none of them is two lines.
fn response() -> impl Strategy<Value = String> {
    let line = prop::sample::select(vec![
        "EHLO c",
        "AUTH PLAIN",
        "AUTH LOGIN",
        "YQ==",
        "AGEAc2VjcmV0",
        "*",
        "",
        "NOOP",
        "raw:x",
        "raw:\r",
    ]);
    line.prop_map(str::to_owned)
}

fn groups() -> impl Strategy<Value = Vec<String>> {
    prop_oneof![3 => prop::collection::vec(group(), 0..25), 1 => prop::collection::vec(response(), 0..15)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_dialogue_is_the_same_wherever_it_is_cut(
        config in configs(), groups in groups(), head in any::<bool>()
    ) {
        let mut groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        if head {
            groups.splice(0..0, ["EHLO c", "MAIL FROM:<a@b>\nRCPT TO:<c@d>"]);
        }
        let seen = play(&config, &groups, Cut::Nowhere);
        codes(&seen.replies);
        prop_assert_eq!(play(&config, &groups, Cut::Everywhere), seen);
    }

    #[test]
    fn no_octets_make_a_session_panic_or_talk_nonsense(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..20), lines in prop::collection::vec(group(), 20)
    ) {
        let mut shell = Shell::new(clear_auth());
        for (piece, line) in pieces.iter().zip(&lines) {
            let (line, _) = octets(line);
            shell.feed(&line);
            shell.feed(piece);
            prop_assert!(shell.seen.closed || shell.input.len() <= 512);
        }
        codes(&shell.seen.replies);
        let begins = shell.seen.events.iter().filter(|event| *event == "begin").count();
        let ends = shell.seen.events.iter().filter(|event| *event == "end" || event.starts_with("abandon")).count();
        prop_assert!(ends <= begins);
    }
}
