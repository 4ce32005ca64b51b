//! Users, aliases and tables from one SQLite file that Dovecot reads as well.

use std::path::Path;

use testkit::dovecot::{Dovecot, Users};
use testkit::posthouse::Site;
use testkit::smtp::{Client, queued_id};
use testkit::{eventually, imap};

use crate::documents::{self, HASH, PASSWORD, message};

fn sqlite(path: &Path, sql: &str) {
    let output = std::process::Command::new("sqlite3").arg(path).arg(sql).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn one_sqlite_file_serves_posthouse_and_dovecot() {
    let site = Site::new();
    std::fs::set_permissions(site.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = site.path().join("users.sqlite");
    sqlite(
        &path,
        &format!(
            "create table users (username text, domain text, password text, primary key (username, domain));
             create table aliases (address text primary key, target text);
             insert into users values ('alice', 'example.org', '{HASH}'), ('carol', 'example.org', '{{SHA512-CRYPT}}{HASH}');
             insert into aliases values ('info@example.org', 'carol@example.org');"
        ),
    );
    let password_query =
        "SELECT username || '@' || domain AS user, password FROM users WHERE username = '%n' AND domain = '%d'";
    let user_query = "SELECT 5000 AS uid, 5000 AS gid FROM users WHERE username = '%n' AND domain = '%d'";
    let dovecot = Dovecot::start(&Users::Sqlite { path: &path, password_query, user_query });
    let table = |name: &str, query: &str| {
        documents::document("MailTable", name, &format!("sqlite:\n  path: {}\n  query: \"{query}\"\n", path.display()))
    };
    let text = [
        documents::platform(""),
        documents::listener_mx(""),
        documents::listener_submission(),
        documents::domain("dovecot", "userTable: users\naliasTable: aliases\n"),
        table("users", password_query),
        table("aliases", "SELECT target FROM aliases WHERE address = '%u'"),
        documents::lmtp("dovecot", dovecot.lmtp()),
    ];
    // The very queries of Dovecot.
    let site = site.with("site.yaml", &text.concat());
    let posthouse = site.start();

    let mut client = Client::connect(posthouse.address("submission"));
    client.say("EHLO client.test", 250);
    let (mut client, _) = client.start_tls("localhost");
    client.say("EHLO client.test", 250);
    assert_eq!(client.auth_plain("carol@example.org", PASSWORD).code, 235);
    client.say("MAIL FROM:<carol@example.org>", 250);
    client.say("RCPT TO:<nobody@example.org>", 550);
    client.say("RCPT TO:<x'or'1'='1@example.org>", 550);
    client.say("RCPT TO:<\"x' or '1'='1\"@example.org>", 550);
    client.say("RSET", 250);
    let text = message("carol@example.org", "info@example.org", "from-a-table");
    queued_id(&client.deliver("carol@example.org", &["info@example.org"], &text));
    let found = eventually("the message", || imap::inbox(dovecot.imap(), "carol@example.org", PASSWORD).pop());
    assert!(found.contains("Subject: from-a-table"));

    // A user who is added is there without a reload.
    sqlite(&path, &format!("insert into users values ('dave', 'example.org', '{HASH}')"));
    let mut client = Client::connect(posthouse.address("mx"));
    client.say("EHLO elsewhere.test", 250);
    client.say("MAIL FROM:<b@elsewhere.test>", 250);
    client.say("RCPT TO:<dave@example.org>", 250);
}

#[test]
fn a_table_that_cannot_be_read_defers_and_never_lets_through() {
    let site = Site::new();
    let path = site.path().join("denied.sqlite");
    sqlite(&path, "create table denied (address text primary key); insert into denied values ('spam@evil.test')");
    let rules = "rules:\n\
         \x20 - name: nobody who is listed\n\
         \x20   match: { sender: { table: denied } }\n\
         \x20   action: { reject: { text: \"5.7.1 not you\" } }\n\
         \x20 - include: default\n";
    let table =
        format!("sqlite:\n  path: {}\n  query: \"SELECT 1 FROM denied WHERE address = '%u'\"\n", path.display());
    let text = [
        documents::platform("policyRef: main\n"),
        documents::listener_mx(""),
        documents::domain("disk", ""),
        documents::user("alice", ""),
        documents::transport("disk", "maildir: { path: mail/%n }\n"),
        documents::document("MailTable", "denied", &table),
        documents::document("MailPolicy", "main", rules),
    ];
    let site = site.with("site.yaml", &text.concat());
    let posthouse = site.start();
    let code = |sender: &str| {
        let mut client = Client::connect(posthouse.address("mx"));
        client.say("EHLO elsewhere.test", 250);
        client.say(&format!("MAIL FROM:<{sender}>"), 250);
        client.command("RCPT TO:<alice@example.org>").code
    };
    assert_eq!((code("spam@evil.test"), code("b@elsewhere.test")), (550, 250));
    std::fs::write(&path, "this is no database").unwrap();
    eventually("the table to be unreadable", || (code("somebody@else.test") == 451).then_some(()));
}
