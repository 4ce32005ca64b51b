use std::path::{Path, PathBuf};

use proto::authenticate_response::Answer;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode};
use sqlx::{ConnectOptions as _, Connection as _};

use super::*;
use crate::{Scheme, hash_password};

/// Dovecot's query shape.
pub(crate) const USERS: &str =
    "SELECT password, mailbox AS user, forward FROM users WHERE login = '%n' AND domain = '%d'";
const ALIASES: &str = "SELECT target FROM aliases WHERE address = '%u'";
const DENIED: &str = "SELECT 1 FROM denied WHERE '%u' LIKE '%%@' || domain";

pub(crate) async fn database(path: &Path, mode: SqliteJournalMode) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true).journal_mode(mode);
    let mut writer = options.connect().await.unwrap();
    sqlx::raw_sql(
        "CREATE TABLE users (login TEXT, domain TEXT, password TEXT, mailbox TEXT, forward TEXT);
         CREATE TABLE aliases (address TEXT, target TEXT);
         CREATE TABLE denied (domain TEXT);
         INSERT INTO users VALUES ('carol', 'sql.example', '{PLAIN}pw', NULL, NULL), ('sales', 'sql.example', '{PLAIN}pw', 'carol@sql.example', NULL),
           ('away', 'sql.example', NULL, NULL, 'x@remote.example, carol@sql.example');
         INSERT INTO aliases VALUES ('team@sql.example', 'carol'), ('team@sql.example', 'bob@example.org');
         INSERT INTO denied VALUES ('bad.example');",
    )
    .execute(&mut writer)
    .await
    .unwrap();
    writer
}

fn site(path: &Path) -> Site {
    let mut site = Site::new();
    site.user(user("bob@example.org", None));
    site.domain("sql.example", Some("people"));
    site.sqlite("people", path, USERS);
    site.sqlite("aliases", path, ALIASES);
    site.sqlite("denied", path, DENIED);
    let denied = Test::Sender(Matcher::Table("denied".to_owned()));
    let aliases = Deliver { alias_table: Some("aliases".to_owned()), ..Deliver::default() };
    site.policy(vec![
        rule("denied", vec![denied], Action::Reject(types::Reply::enhanced(550, 5, 7, 1, "no"))),
        rule("ours", vec![Test::RecipientDomainIsOurs], Action::Deliver(aliases)),
    ]);
    site
}

async fn run(path: &Path, sql: &'static str) {
    let mut writer = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
    sqlx::raw_sql(sql).execute(&mut writer).await.unwrap();
    writer.close().await.unwrap();
}

async fn log_in(running: &mut Running, user: &str, password: &str) -> Option<String> {
    let request = proto::AuthenticateRequest {
        user: user.to_owned(),
        password: password.as_bytes().to_vec().into(),
        ..proto::AuthenticateRequest::default()
    };
    match running.client.authenticate(request).await.unwrap().into_inner().answer {
        Some(Answer::User(user)) => Some(user),
        _ => None,
    }
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("users.sqlite")
}

#[tokio::test]
async fn users_aliases_and_lists_come_from_a_sqlite_file_in_any_journal_mode() {
    for mode in [SqliteJournalMode::Wal, SqliteJournalMode::Delete] {
        let folder = TempDir::new().unwrap();
        // The writer stays: in WAL mode its rows are not in the main file yet.
        let _writer = database(&file(&folder), mode).await;
        let mut running = site(&file(&folder)).start().await;
        for (recipient, expected) in [
            ("carol@sql.example", "carol@sql.example"),
            ("Carol+x@SQL.example", "carol@sql.example"),
            ("sales@sql.example", "carol@sql.example"),
            ("away@sql.example", "carol@sql.example x@remote.example"),
            ("team@sql.example", "bob@example.org carol@sql.example"),
            ("nobody@sql.example", "550 5.1.1"),
            ("bob@example.org", "bob@example.org"),
            ("\"' OR '1'='1\"@sql.example", "550 5.1.1"),
            ("\"'||(select password from users)--\"@sql.example", "550 5.1.1"),
        ] {
            assert_eq!(running.says_to(recipient).await, expected, "{mode:?} {recipient}");
        }
        let denied = running.says(envelope("mx", "", "x@bad.example", &["bob@example.org"])).await;
        assert_eq!(denied, ["550 5.7.1"]);
        assert_eq!(log_in(&mut running, "carol@sql.example", "pw").await.as_deref(), Some("carol@sql.example"));
        assert_eq!(log_in(&mut running, "sales@sql.example", "pw").await.as_deref(), Some("carol@sql.example"));
        assert_eq!(log_in(&mut running, "carol@sql.example", "no").await, None);
        assert_eq!(log_in(&mut running, "away@sql.example", "").await, None);
    }
}

#[tokio::test]
async fn hits_and_misses_are_used_again_for_their_age_and_no_longer() {
    let folder = TempDir::new().unwrap();
    drop(database(&file(&folder), SqliteJournalMode::Wal).await);
    let mut running = site(&file(&folder)).start().await;
    assert_eq!(running.says_to("carol@sql.example").await, "carol@sql.example");
    assert_eq!(running.says_to("new@sql.example").await, "550 5.1.1");
    run(&file(&folder), "DELETE FROM users; INSERT INTO users (login, domain) VALUES ('new', 'sql.example')").await;
    running.node.clock().advance(Duration::from_secs(11));
    assert_eq!(running.says_to("carol@sql.example").await, "550 5.1.1");
    assert_eq!(running.says_to("new@sql.example").await, "new@sql.example");
}

#[tokio::test]
async fn a_file_that_is_missing_broken_or_foreign_is_451_and_comes_back() {
    let folder = TempDir::new().unwrap();
    let path = file(&folder);
    let mut running = site(&path).start().await;
    assert_eq!(running.says_to("carol@sql.example").await, "451 4.3.0", "missing");
    assert!(!path.exists(), "it is never created");
    std::fs::write(&path, "this is no database, this is no database, this is no database, this is no database")
        .unwrap();
    assert_eq!(running.says_to("carol@sql.example").await, "451 4.3.0", "broken");
    std::fs::remove_file(&path).unwrap();
    let other = folder.path().join("new.sqlite");
    database(&other, SqliteJournalMode::Delete).await.close().await.unwrap();
    std::fs::rename(&other, &path).unwrap();
    assert_eq!(running.says_to("carol@sql.example").await, "carol@sql.example", "there at last");
    let replaced = folder.path().join("next.sqlite");
    database(&replaced, SqliteJournalMode::Delete).await.close().await.unwrap();
    run(&replaced, "UPDATE users SET mailbox = 'moved@sql.example' WHERE login = 'carol'").await;
    std::fs::rename(&replaced, &path).unwrap();
    running.node.clock().advance(Duration::from_secs(11));
    assert_eq!(running.says_to("carol@sql.example").await, "moved@sql.example", "put in its place");
    run(&path, "DROP TABLE denied").await;
    running.node.clock().advance(Duration::from_secs(11));
    assert_eq!(running.says_to("bob@example.org").await, "451 4.3.0", "a list that cannot be read is not empty");
}

#[tokio::test]
async fn a_statement_without_end_is_ended_and_451() {
    let folder = TempDir::new().unwrap();
    drop(database(&file(&folder), SqliteJournalMode::Wal).await);
    let mut endless = site(&file(&folder));
    let query = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n WHERE '%u' <> ''";
    endless.sqlite("denied", &file(&folder), query);
    let mut running = endless.start().await;
    let clock = running.node.clock().clone();
    let asked = tokio::spawn(async move { running.says_to("bob@example.org").await });
    // The clock runs until it is noticed.
    while !asked.is_finished() {
        clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    assert_eq!(asked.await.unwrap(), "451 4.3.0");
}

#[tokio::test]
async fn an_expansion_from_a_database_has_its_bounds() {
    let folder = TempDir::new().unwrap();
    drop(database(&file(&folder), SqliteJournalMode::Wal).await);
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1001)
                INSERT INTO aliases SELECT 'big@sql.example', 'u' || i || '@remote.example' FROM n;
                INSERT INTO aliases SELECT 'ping@sql.example', 'pong' UNION SELECT 'pong@sql.example', 'ping'";
    run(&file(&folder), fill).await;
    let mut running = site(&file(&folder)).start().await;
    assert_eq!(running.says_to("big@sql.example").await, "554 5.4.6");
    assert_eq!(running.says_to("ping@sql.example").await, "554 5.4.6");
}

#[test]
fn one_file_is_read_by_dovecot_too() {
    let folder = TempDir::with_prefix("posthouse-policy-").unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let path = file(&folder);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let hash = hash_password(b"change-me", Scheme::Sha512Crypt).unwrap();
    let mut running = runtime.block_on(async {
        let mut writer = database(&path, SqliteJournalMode::Delete).await;
        sqlx::query("UPDATE users SET password = ?").bind(&hash).execute(&mut writer).await.unwrap();
        writer.close().await.unwrap();
        site(&path).start().await
    });
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let dovecot = testkit::dovecot::Dovecot::start(&testkit::dovecot::Users::Sqlite {
        path: &path,
        password_query: "SELECT password, login || '@' || domain AS user FROM users WHERE login = '%n' AND domain = '%d'",
        user_query: "SELECT login FROM users WHERE login = '%n' AND domain = '%d'",
    });
    assert_eq!(testkit::imap::inbox(dovecot.imap(), "carol@sql.example", "change-me").len(), 0);
    let here = runtime.block_on(log_in(&mut running, "carol@sql.example", "change-me"));
    assert_eq!(here.as_deref(), Some("carol@sql.example"));
}
