use std::sync::Mutex;
use std::time::Instant;

use proto::authenticate_response::Answer;

use super::*;
use crate::auth::{Authenticator, Outcome};
use crate::judge::Judge;
use crate::password::cost_of;
use crate::{PasswordError, Scheme, hash_password};

fn request(user: &str, password: &str) -> proto::AuthenticateRequest {
    proto::AuthenticateRequest {
        session: Some(session("submission", "")),
        authorization_id: String::new(),
        user: user.to_owned(),
        password: password.as_bytes().to_vec().into(),
    }
}

async fn answer(running: &mut Running, request: proto::AuthenticateRequest) -> String {
    match running.client.authenticate(request).await.unwrap().into_inner().answer.unwrap() {
        Answer::User(user) => user,
        Answer::Refuse(reply) => format!("{} {} {}", reply.code, reply.enhanced_code, reply.text),
    }
}

const REFUSED: &str = "535 5.7.8 authentication failed";
const TROUBLE: &str = "454 4.7.0 authentication is not possible now, try again later";

fn site() -> Site {
    let mut site = Site::new();
    let hash = hash_password(b"change-me", Scheme::Sha512Crypt).unwrap();
    site.user(User { aliases: vec![address("info@example.org")], ..user("alice@example.org", Some(&hash)) });
    site.user(user("bob@example.org", Some("{PLAIN}secret")));
    site.user(user("nopass@example.org", None));
    site.user(User { disabled: true, ..user("off@example.org", Some("{PLAIN}secret")) });
    site.user(user("broken@example.org", Some("{MD5}nonsense")));
    site
}

#[tokio::test]
async fn a_user_logs_in_by_mailbox_or_alias_and_every_failure_has_one_text() {
    let mut running = site().start().await;
    let long = "x".repeat(5000);
    let cases = [
        ("alice@example.org", "change-me", "alice@example.org"),
        ("Alice@Example.NET", "change-me", "alice@example.org"),
        ("info@example.org", "change-me", "alice@example.org"),
        ("bob@example.org", "secret", "bob@example.org"),
        ("alice@example.org", "Change-me", REFUSED),
        ("alice@example.org", "", REFUSED),
        ("alice@example.org", &long, REFUSED),
        ("alice", "change-me", REFUSED),
        ("alice+x@example.org", "change-me", REFUSED),
        ("nobody@example.org", "change-me", REFUSED),
        ("alice@remote.example", "change-me", REFUSED),
        ("nopass@example.org", "", REFUSED),
        ("off@example.org", "secret", REFUSED),
        ("a\nb", "secret", REFUSED),
        ("", "", REFUSED),
        ("broken@example.org", "secret", TROUBLE),
    ];
    for (name, password, expected) in cases {
        assert_eq!(answer(&mut running, request(name, password)).await, expected, "{name}");
    }
}

#[tokio::test]
async fn an_authorization_id_is_empty_or_the_user() {
    let mut running = site().start().await;
    for (id, expected) in [
        ("alice@example.org", "alice@example.org"),
        ("INFO@example.net", "alice@example.org"),
        ("bob@example.org", REFUSED),
        ("nobody@example.org", REFUSED),
        ("root", REFUSED),
    ] {
        let request =
            proto::AuthenticateRequest { authorization_id: id.to_owned(), ..request("alice@example.org", "change-me") };
        assert_eq!(answer(&mut running, request).await, expected, "{id}");
    }
}

#[tokio::test]
async fn a_refusal_takes_the_floor_whatever_its_cause_and_a_welcome_does_not() {
    let mut slow = site();
    slow.platform.auth_failure_floor = Duration::from_millis(300);
    let mut running = slow.start().await;
    for (name, password) in [
        ("bob@example.org", "wrong"),
        ("nobody@example.org", "x"),
        ("not an address", "x"),
        ("off@example.org", "secret"),
    ] {
        #[allow(clippy::disallowed_methods, reason = "the test measures what a client sees")]
        let start = Instant::now();
        assert_eq!(answer(&mut running, request(name, password)).await, REFUSED);
        assert!(start.elapsed() >= Duration::from_millis(300), "{name}");
    }
    let mut never = site();
    never.platform.auth_failure_floor = Duration::from_secs(3600);
    let mut running = never.start().await;
    assert_eq!(answer(&mut running, request("bob@example.org", "secret")).await, "bob@example.org");
}

#[tokio::test]
async fn more_logins_than_may_verify_at_a_time_wait_for_their_turn() {
    let mut narrow = site();
    narrow.platform.auth_concurrency_max = 1;
    let running = narrow.start().await;
    let logins = (0..8).map(|i| {
        let mut client = running.client.clone();
        tokio::spawn(async move {
            let password = if i % 2 == 0 { "change-me" } else { "wrong" };
            let answer = client.authenticate(request("alice@example.org", password)).await.unwrap().into_inner().answer;
            (i % 2 == 0, matches!(answer, Some(Answer::User(_))))
        })
    });
    for login in logins.collect::<Vec<_>>() {
        let (expected, found) = login.await.unwrap();
        assert_eq!(expected, found);
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_read_is_454() {
    let mut site = Site::new();
    site.domain("sql.example", Some("people"));
    site.sqlite(
        "people",
        std::path::Path::new("/nowhere/users.sqlite"),
        "SELECT password FROM users WHERE user = '%u'",
    );
    let mut running = site.start().await;
    assert_eq!(answer(&mut running, request("a@sql.example", "x")).await, TROUBLE);
    assert_eq!(answer(&mut running, request("a@example.org", "x")).await, REFUSED, "others go on");
}

/// What was compared with, and how long the password was.
static COMPARED: Mutex<Vec<(String, usize)>> = Mutex::new(Vec::new());

fn compare(stored: &str, password: &[u8]) -> Result<bool, PasswordError> {
    COMPARED.lock().unwrap().push((stored.to_owned(), password.len()));
    Ok(true)
}

#[tokio::test]
async fn whoever_is_unknown_is_verified_once_too_against_a_dummy_of_the_scheme_and_cost_that_most_users_have() {
    let mut site = Site::new();
    let sha = "$6$posthouse$GZvnUT7gwBRiMLAwDIeNKEwBXNfawg63A1P1kMUu9pnIfndbPoNx9RsE.ydW4J3ZgnpCMQ466hH.qtPLEMMUB1";
    let bcrypt = |salt: char| format!("{{BLF-CRYPT}}$2y$05${}", salt.to_string().repeat(53));
    site.user(user("sha@example.org", Some(sha)));
    site.user(user("one@example.org", Some(&bcrypt('a'))));
    site.user(user("two@example.org", Some(&bcrypt('b'))));
    site.user(User { disabled: true, ..user("off@example.org", Some(&bcrypt('c'))) });
    site.user(user("nopass@example.org", None));
    let (snapshot, judge) = (site.snapshot(), Judge::new(Clock::system()));
    let authenticator = Authenticator::new(compare, Clock::system());
    let long = "x".repeat(5000);
    for (name, password) in [
        ("nobody@example.org", "x"),
        ("nobody@remote.example", "x"),
        ("no address", "x"),
        ("nopass@example.org", "x"),
        ("off@example.org", "x"),
        ("sha@example.org", &long),
    ] {
        // Even where the dummy's own password is given, nobody is logged in.
        let outcome = authenticator.authenticate(&snapshot, &judge, request(name, password)).await;
        assert!(matches!(outcome, Outcome::Refused(_)), "{name}");
        let compared = std::mem::take(&mut *COMPARED.lock().unwrap());
        let [(stored, octets)] = &compared[..] else { panic!("{name}: {compared:?}") };
        assert_eq!(cost_of(stored), cost_of(&bcrypt('a')), "{name}");
        assert_eq!(*octets, password.len().min(1024), "{name}");
    }
    let outcome = authenticator.authenticate(&snapshot, &judge, request("sha@example.org", "x")).await;
    assert!(matches!(outcome, Outcome::User(_)));
    assert_eq!(COMPARED.lock().unwrap()[0].0, sha);
}
