use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn deadline(shell: &Shell) -> u64 {
    shell.session.deadline().duration_since(shell.now).as_secs()
}

fn at(shell: &mut Shell, seconds: u64, octets: &[u8]) {
    shell.now += SECOND * u32::try_from(seconds).unwrap();
    shell.feed(octets);
}

#[test]
fn a_wait_is_for_a_whole_command_not_for_an_octet() {
    let mut shell = Shell::new(config());
    at(&mut shell, 0, b"");
    assert_eq!(deadline(&shell), 300);
    at(&mut shell, 10, b"E");
    at(&mut shell, 10, b"H");
    assert_eq!(deadline(&shell), 280, "a slow client gains nothing");
    at(&mut shell, 10, b"LO c\r\n");
    assert_eq!(deadline(&shell), 300);
}

#[test]
fn text_has_a_time_out_of_its_own() {
    let mut shell = Shell::new(config());
    shell.feed(b"EHLO c\r\n");
    shell.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
    assert_eq!(deadline(&shell), 180);
    at(&mut shell, 100, b"text\r\n");
    assert_eq!(deadline(&shell), 180);
    at(&mut shell, 100, b".");
    assert_eq!(deadline(&shell), 80, "an octet that may be the end or not is no progress");
    at(&mut shell, 10, b"\r\n");
    assert_eq!(deadline(&shell), 300);
}

#[test]
fn a_session_ends_whatever_its_client_does() {
    let mut shell = Shell::new(SessionConfig {
        limits: SessionLimits { session_timeout: SECOND * 400, commands_max: 0, ..config().limits },
        ..config()
    });
    at(&mut shell, 250, b"EHLO c\r\n");
    assert_eq!(deadline(&shell), 150);
    at(&mut shell, 149, b"NOOP\r\n");
    assert_eq!(deadline(&shell), 1);
}

#[test]
fn while_an_answer_is_owed_only_the_session_runs_out() {
    let mut shell = Shell::new(config());
    shell.feed(b"EHLO c\r\n");
    shell.feed(b"MAIL FROM:<a@b>\r\n");
    shell.input.extend_from_slice(b"RCPT TO:<c@d>\r\n");
    let step = shell.session.advance(&mut shell.input, &mut shell.out, shell.now);
    assert!(matches!(step, Step::Event(Event::Envelope { .. })));
    assert_eq!(deadline(&shell), 3600);
    shell.now += SECOND * 500;
    shell.session.answer_envelope(vec![Ok(())], &mut shell.out);
    shell.run();
    assert_eq!(deadline(&shell), 300, "the client did not wait for itself");
}

#[test]
fn a_time_out_says_421_and_gives_the_message_up() {
    let mut shell = Shell::new(config());
    shell.feed(b"EHLO c\r\n");
    shell.session.time_out(&mut shell.out);
    shell.session.time_out(&mut shell.out);
    shell.run();
    assert_eq!(codes(&shell.seen.replies), ["220", "250", "421 4.4.2"]);
    assert!(shell.seen.closed && shell.seen.events.is_empty());

    let mut shell = Shell::new(config());
    shell.feed(b"EHLO c\r\n");
    shell.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
    shell.feed(b"text\r\n");
    shell.session.time_out(&mut shell.out);
    shell.run();
    assert_eq!(shell.seen.events, ["<a@b> to c@d", "begin", "abandon Closed"]);
    assert!(shell.seen.closed);
}

#[test]
fn a_session_that_is_shut_down_finishes_its_transaction() {
    let mut shell = Shell::new(config());
    shell.session.shut_down();
    shell.run();
    assert_eq!(codes(&shell.seen.replies), ["220", "421 4.3.2"]);
    assert!(shell.seen.closed);

    let mut shell = Shell::new(config());
    shell.feed(b"EHLO c\r\n");
    shell.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
    shell.session.shut_down();
    shell.feed(b"DATA\r\n");
    shell.feed(b"x\r\n.\r\nMAIL FROM:<a@b>\r\n");
    assert_eq!(codes(&shell.seen.replies)[4..], ["354", "250 2.0.0", "421 4.3.2"]);
    assert!(shell.seen.closed);
}

#[test]
fn a_session_may_be_refused_instead_of_greeted() {
    let shell = Shell::new(config());
    let mut session = Session::new(Arc::new(config()), shell.now);
    let (mut input, mut out) = (BytesMut::from(&b"EHLO c\r\n"[..]), Vec::new());
    session.refuse(&Reply::enhanced(421, 4, 7, 0, "too many sessions"), &mut out);
    assert_eq!(session.advance(&mut input, &mut out, shell.now), Step::Close);
    assert_eq!(out, b"421 4.7.0 too many sessions\r\n");
}

#[test]
fn an_idle_session_is_small() {
    assert!(size_of::<Session>() <= 384, "{} octets", size_of::<Session>());
}

#[test]
fn answers_that_nobody_asked_for_are_ignored() {
    let mut shell = Shell::new(config());
    shell.session.answer_envelope(vec![Ok(())], &mut shell.out);
    shell.session.answer_authenticate(Ok("mallory".into()), &mut shell.out);
    shell.session.answer_message(MessageAnswer::Each(vec![]), &mut shell.out, shell.now);
    shell.session.tls_started(shell.now);
    assert!(shell.out.is_empty() && shell.session.user().is_none() && !shell.session.tls_active());
}
