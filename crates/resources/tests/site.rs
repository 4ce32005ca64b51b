//! The small site that `posthouse init` writes, and the example made from it.

use std::path::{Path, PathBuf};

use resources::snapshot::{ClientTlsMode, Endpoint, RelayTo, TlsMode, TransportKind};
use resources::{Environment, Fault, Snapshot, compile, load, render_small_site};

/// The hash of `change-me`: openssl passwd -6 -salt Posthouse change-me
const HASH: &str =
    "$6$Posthouse$6ruv6AbqWTosvrUi8ujg7zb3wROQsi8FJ9FvzNaxACrwEVQPgG.M21O/M/mBoeYk3FB09LPJmEqAGPGmSi38f.";

const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: alice\n";
/// The example tells its password, to people and to `posthouse run`.
const PUBLISHED_SECRET: &str = "\
# Here the password is change-me. So change it: everybody has read this file.
apiVersion: v1
kind: Secret
metadata:
  name: alice
  annotations:
    # posthouse run prints it in what to try next. Remove this line with the password.
    posthouse.dev/demo-password: change-me
";

fn environment() -> Environment {
    Environment { is_root: false, state_dir: PathBuf::from("/state"), working_dir: PathBuf::from("/srv") }
}

fn compile_files(files: &[(PathBuf, String)]) -> (Option<Snapshot>, Vec<Fault>) {
    let (objects, mut faults) = load(files);
    let none = |_: &Path| Err("there are no files here".to_owned());
    let (snapshot, more) = compile(objects, &environment(), &none);
    faults.extend(more);
    (snapshot, faults)
}

fn small_site() -> Vec<(PathBuf, String)> {
    let files = render_small_site("mx1.example.org", "example.org", HASH);
    files.into_iter().map(|(name, text)| (PathBuf::from(name), text)).collect()
}

#[test]
fn the_small_site_compiles_without_faults() {
    let (snapshot, faults) = compile_files(&small_site());
    assert_eq!(faults, []);
    let snapshot = snapshot.unwrap();
    assert!(snapshot.demo_passwords.is_empty());
    assert_eq!(snapshot.resources, 7);
    assert_eq!(snapshot.platform.hostname.as_str(), "mx1.example.org");
    assert_eq!(snapshot.platform.admin, Some(([127, 0, 0, 1], 9090).into()));
    let tcp = |port| Endpoint::Tcp { addresses: vec![[127, 0, 0, 1].into()], port, v6_only: false };
    let (mx, submission) = (&snapshot.listeners["mx"], &snapshot.listeners["submission"]);
    assert_eq!((&mx.endpoint, mx.tls.mode, mx.auth.offered), (&tcp(2525), TlsMode::Opportunistic, false));
    assert_eq!((&submission.endpoint, submission.tls.mode), (&tcp(2587), TlsMode::Required));
    assert!(submission.auth.required && submission.tls.self_signed);
    assert!(submission.tls.certificates.is_empty());
    let kind = &snapshot.transports["mailboxes"].kind;
    assert!(matches!(kind, TransportKind::Maildir { path, as_user: None } if path == "mail/%d/%n"), "{kind:?}");
    let TransportKind::Relay(relay) = &snapshot.transports["mx"].kind else { panic!("mx is no relay") };
    assert!(matches!(&relay.to, RelayTo::Mx { port: 25, refuse } if refuse.len() == 17), "{:?}", relay.to);
    assert_eq!(relay.tls.mode, ClientTlsMode::Opportunistic);
    let alice = &snapshot.rules.users["info@example.org"];
    assert_eq!(alice.address.to_string(), "alice@example.org");
    assert_eq!(alice.password.as_ref().unwrap().reveal(), HASH);
}

#[test]
fn the_example_is_the_small_site_of_example_org() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/small-site");
    for (name, text) in small_site() {
        let path = folder.join(&name);
        let expected = text.replace(SECRET, PUBLISHED_SECRET);
        if std::env::var_os("POSTHOUSE_WRITE").is_some() {
            std::fs::write(&path, &expected).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap();
        assert_eq!(found, expected, "{} is stale: run the test with POSTHOUSE_WRITE=1", path.display());
    }
    let names = small_site().into_iter().map(|(name, _)| name);
    let files: Vec<_> = names.map(|name| (name.clone(), std::fs::read_to_string(folder.join(name)).unwrap())).collect();
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), files.len());
    let (snapshot, faults) = compile_files(&files);
    assert_eq!(faults, []);
    assert_eq!(snapshot.unwrap().demo_passwords["alice@example.org"], "change-me");
}

#[test]
fn the_version_is_that_of_the_content_whatever_the_order() {
    let files = small_site();
    let version = |files: &[(PathBuf, String)]| compile_files(files).0.unwrap().version;
    let first = version(&files);
    assert_eq!(first, version(&files));
    let mut turned = files.clone();
    turned.reverse();
    assert_eq!(first, version(&turned));
    let mut commented = files.clone();
    commented[0].1.push_str("# one more comment\n");
    assert_eq!(first, version(&commented));
    let mut changed = files;
    changed[3].1 = changed[3].1.replace("info@", "office@");
    assert_ne!(first, version(&changed));
}

#[test]
fn the_hash_is_nowhere_to_be_seen_in_what_is_printed() {
    let (objects, _) = load(&small_site());
    let snapshot = compile_files(&small_site()).0.unwrap();
    let printed = format!("{objects:?} {snapshot:?}");
    assert!(!printed.contains("6ruv6AbqWTosvrUi8ujg7zb3"), "{printed}");
}
