//! S16: guessing passwords and names.
//!
//! Budgets are in memory and of one process: that replicas share them comes with separate services.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use testkit::posthouse::Site;

use crate::documents;
use crate::kit::{Raw, site};

const GUESSES: usize = 1000;

fn open_auth(platform: &str) -> Site {
    let limits = "limits: { sessionsPerSourceMax: 2000 }\n";
    let listener = documents::listener_mx(&format!("auth: {{ optional: true, allowWithoutTls: true }}\n{limits}"));
    let tls = documents::listener_mx("auth: { optional: true }\n").replace("name: mx", "name: tls");
    site(&[listener, tls, documents::listener_submission()].concat(), platform)
}

/// Connects from an address of loopback.
fn connect_from(source: Ipv4Addr, to: SocketAddr) -> Raw {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from((source, 0))).unwrap();
    connect(&socket, &to).unwrap();
    let mut raw = Raw::over(socket.into());
    raw.expect("220 ");
    raw.check("EHLO guesser.test", "250");
    raw
}

fn auth(user: &str, password: &str) -> String {
    // Base64 by hand: the tests need no more of it.
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::from("AUTH PLAIN ");
    for chunk in format!("\0{user}\0{password}").as_bytes().chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, i| bits << 8 | u32::from(chunk.get(i).copied().unwrap_or(0)));
        for i in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

#[test]
fn s16_an_unknown_user_and_a_wrong_password_cannot_be_told_apart() {
    let site = open_auth("authentication: { failureFloor: 300ms }\n");
    let posthouse = site.start();
    let mut texts = Vec::new();
    for (user, password) in [
        ("alice@example.org", "wrong"),
        ("nobody@example.org", "wrong"),
        ("alice@world.test", "change-me"),
        ("root", "change-me"),
    ] {
        let mut client = Raw::hello(posthouse.address("mx"));
        #[allow(clippy::disallowed_methods, reason = "the test measures what a client sees")]
        let start = Instant::now();
        let reply = client.say(&auth(user, password));
        assert!(start.elapsed() >= Duration::from_millis(300), "{user}: an answer before the floor");
        texts.push(reply);
    }
    texts.dedup();
    assert_eq!(texts, ["535 5.7.8 authentication failed"]);
}

#[test]
fn s16_a_session_of_failures_ends_and_nobody_is_asked_for_a_password_in_the_clear() {
    let site = open_auth("authentication: { failureFloor: 10ms }\n");
    let posthouse = site.start();
    let mut client = Raw::hello(posthouse.address("mx"));
    client.check(&auth("alice@example.org", "1"), "535");
    client.check(&auth("alice@example.org", "2"), "535");
    client.check(&auth("alice@example.org", "3"), "535");
    client.expect("421 4.7.0");
    client.expect("closed");
    Raw::hello(posthouse.address("tls")).check(&auth("alice@example.org", "change-me"), "538 5.7.11");
    let mut client = Raw::hello(posthouse.address("submission"));
    client.check(&auth("alice@example.org", "change-me"), "530 5.7.0");
    client.check("MAIL FROM:<alice@example.org>", "530 5.7.0");
}

#[test]
fn s16_names_are_not_given_away_by_vrfy_and_expn_and_harvesting_by_rcpt_ends() {
    let site = open_auth("");
    let posthouse = site.start();
    let mut client = Raw::hello(posthouse.address("mx"));
    let known = client.check("VRFY alice@example.org", "252");
    assert_eq!(known, client.say("VRFY nobody@example.org"));
    let known = client.check("EXPN alice@example.org", "502");
    assert_eq!(known, client.say("EXPN nobody@example.org"));
    // RCPT has to say who is unknown (S23); a session may be wrong so often.
    let mut client = Raw::hello(posthouse.address("mx"));
    client.check("MAIL FROM:<carol@d.test>", "250");
    let mut asked = 0;
    while client.say(&format!("RCPT TO:<guess{asked}@example.org>")).starts_with("550") {
        asked += 1;
        assert!(asked <= 20, "harvesting goes on");
    }
}

/// Guesses so often, each on a connection of its own, by a few at a time; how many were looked at, and how many sent away.
fn guess(
    address: SocketAddr,
    source: impl Fn(usize) -> Ipv4Addr + Sync,
    user: impl Fn(usize) -> String + Sync,
) -> (usize, usize) {
    const AT_A_TIME: usize = 16;
    std::thread::scope(|scope| {
        let (source, user) = (&source, &user);
        let workers: Vec<_> = (0..AT_A_TIME)
            .map(|worker| {
                scope.spawn(move || {
                    let (mut looked_at, mut sent_away) = (0, 0);
                    for n in (worker..GUESSES).step_by(AT_A_TIME) {
                        let mut client = connect_from(source(n), address);
                        let reply = client.say(&auth(&user(n), &format!("guess {n}")));
                        if reply.starts_with("421 4.7.0") {
                            sent_away += 1;
                            client.expect("closed");
                        } else {
                            assert!(reply.starts_with("535 5.7.8"), "{reply}");
                            looked_at += 1;
                        }
                    }
                    (looked_at, sent_away)
                })
            })
            .collect();
        let counts = workers.into_iter().map(|worker| worker.join().unwrap());
        counts.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1))
    })
}

const BUDGETS: &str =
    "authentication: { failureFloor: 10ms, failuresPerSourceMax: 20, failuresPerUserMax: 30, failureWindow: 1d }\n";

#[test]
fn s16_a_thousand_guesses_from_one_address_get_its_budget() {
    let site = open_auth(BUDGETS);
    let posthouse = site.start();
    let address = posthouse.address("mx");
    let (looked_at, sent_away) = guess(address, |_| Ipv4Addr::new(127, 0, 1, 1), |n| format!("user{n}@example.org"));
    assert_eq!((looked_at, sent_away), (20, GUESSES - 20));
    // The right password is not looked at from there; from elsewhere it is.
    connect_from(Ipv4Addr::new(127, 0, 1, 1), address)
        .check(&auth("alice@example.org", documents::PASSWORD), "421 4.7.0");
    connect_from(Ipv4Addr::new(127, 0, 1, 2), address).check(&auth("alice@example.org", documents::PASSWORD), "235");
    assert_eq!(posthouse.metric("posthouse_auth_total", &["limited"]) as usize, GUESSES - 20 + 1);
}

#[test]
fn s16_a_thousand_guesses_from_five_hundred_addresses_get_the_budget_of_the_name() {
    let site = open_auth(BUDGETS);
    let posthouse = site.start();
    let address = posthouse.address("mx");
    let home = Ipv4Addr::new(127, 0, 9, 9);
    connect_from(home, address).check(&auth("alice@example.org", documents::PASSWORD), "235");
    let source = |n: usize| Ipv4Addr::new(127, 0, 2 + u8::from(n % 500 >= 250), (n % 250 + 1) as u8);
    let (looked_at, sent_away) = guess(address, source, |_| "alice@example.org".to_owned());
    assert_eq!((looked_at, sent_away), (30, GUESSES - 30));
    // Whoever is guessed at is not locked out where they log in from.
    connect_from(home, address).check(&auth("alice@example.org", documents::PASSWORD), "235");
    // A name that nobody has gets the same.
    let (looked_at, sent_away) =
        guess(address, |n| Ipv4Addr::new(127, 0, 5, (n % 250 + 1) as u8), |_| "no@example.org".to_owned());
    assert_eq!((looked_at, sent_away), (30, GUESSES - 30));
}
