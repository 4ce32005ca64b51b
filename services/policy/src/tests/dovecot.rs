use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::{Scheme, dovecot_passwd_file, hash_password, write_dovecot_passwd_file};

#[test]
fn the_passwd_file_has_a_line_for_every_login_with_the_scheme_spelled_out() {
    let mut site = Site::new();
    let with = |text: &str, password: Option<&str>| user(text, password);
    site.user(User {
        aliases: vec![address("info@example.org")],
        quota_bytes: Some(1 << 30),
        ..with("alice@example.org", Some("$6$salt$digest"))
    });
    site.user(with("bob@example.org", Some("{BLF-CRYPT}$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW")));
    site.user(with("carol@example.org", None));
    site.user(User { disabled: true, ..with("off@example.org", Some("$6$salt$digest")) });
    site.user(with("plain@example.org", Some("{PLAIN}a:b")));
    site.user(with("odd@example.org", Some("{SSHA512}abc")));
    site.user(with("bad@example.org", Some("a:b")));
    site.rules.domains.remove("example.net");
    assert_eq!(
        dovecot_passwd_file(&site.rules),
        "alice@example.org:{SHA512-CRYPT}$6$salt$digest::::::userdb_quota_rule=*:bytes=1073741824\n\
         bad@example.org:{CRYPT}!::::::\n\
         bob@example.org:{BLF-CRYPT}$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW::::::\n\
         carol@example.org:{CRYPT}!::::::\n\
         info@example.org:{SHA512-CRYPT}$6$salt$digest::::::user=alice@example.org userdb_quota_rule=*:bytes=1073741824\n\
         odd@example.org:{SSHA512}abc::::::\n\
         plain@example.org:{PLAIN.b64}YTpi::::::\n"
    );
}

#[test]
fn the_file_is_put_in_place_in_one_step_for_its_owner_or_for_whom_the_old_one_was() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("passwd");
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    let mut site = Site::new();
    site.user(user("alice@example.org", None));
    write_dovecot_passwd_file(&path, &site.rules).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), dovecot_passwd_file(&site.rules));
    assert_eq!(mode(), 0o600, "nobody else's, unless somebody says so");
    // Dovecot's auth process has a user of its own: the administrator gives it the file.
    std::fs::write(&path, "old").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    write_dovecot_passwd_file(&path, &site.rules).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), dovecot_passwd_file(&site.rules));
    assert_eq!(mode(), 0o640);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    let nowhere = folder.path().join("missing/passwd");
    assert!(write_dovecot_passwd_file(&nowhere, &site.rules).is_err());
}

#[tokio::test]
async fn the_file_follows_the_snapshot_while_running() {
    let mut first = Site::new();
    first.platform.dovecot_passwd_file = Some("dovecot.passwd".into());
    first.user(user("alice@example.org", None));
    let running = first.start().await;
    let path = running.folder.path().join("dovecot.passwd");
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("alice@example.net:"), "there before start returns");
    let mut second = Site::new();
    second.platform.dovecot_passwd_file = Some("dovecot.passwd".into());
    second.user(user("zoe@example.org", None));
    running.node.snapshots().replace(second.snapshot());
    let deadline = tokio::time::sleep(Duration::from_secs(60));
    tokio::pin!(deadline);
    while !std::fs::read_to_string(&path).unwrap().starts_with("zoe@example.net:") {
        tokio::select! {
            () = &mut deadline => panic!("the file stays as it was"),
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
    }
}

#[test]
fn a_file_that_cannot_be_written_stops_the_start() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut site = Site::new();
    site.platform.dovecot_passwd_file = Some("missing/folder/passwd".into());
    let folder = TempDir::new().unwrap();
    let node = Node::new(Snapshots::new(site.snapshot()), folder.path().to_owned(), Clock::system());
    assert!(runtime.block_on(crate::start(&node)).is_err());
}

#[test]
fn dovecot_logs_the_same_users_in() {
    let mut site = Site::new();
    for (name, scheme) in [("sha", Scheme::Sha512Crypt), ("bcrypt", Scheme::Bcrypt), ("argon", Scheme::Argon2id)] {
        let hash = hash_password(b"change-me", scheme).unwrap();
        let aliases = vec![address(&format!("{name}.alias@example.org"))];
        site.user(User { aliases, quota_bytes: Some(1 << 20), ..user(&format!("{name}@example.org"), Some(&hash)) });
    }
    site.user(user("plain@example.org", Some("{PLAIN}change-me")));
    let dovecot = testkit::dovecot::Dovecot::start(&testkit::dovecot::Users::Lines(&dovecot_passwd_file(&site.rules)));
    for login in ["sha@example.org", "bcrypt.alias@example.org", "argon@example.net", "plain@example.org"] {
        assert_eq!(testkit::imap::inbox(dovecot.imap(), login, "change-me").len(), 0, "{login}");
    }
}
