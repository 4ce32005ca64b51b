//! The folder changes while mail flows.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use testkit::eventually;
use testkit::posthouse::{Posthouse, Signal, Site};
use testkit::smtp::{Client, queued_id};

use crate::documents::{self, message};

const DISK: &str = "maildir: { path: mail/%n }\n";

fn site() -> Site {
    Site::new().with("site.yaml", &(documents::base("disk") + &documents::transport("disk", DISK)))
}

fn say_hello(posthouse: &Posthouse) -> Client {
    let mut client = Client::connect(posthouse.address("mx"));
    client.say("EHLO elsewhere.test", 250);
    client
}

fn recipient_code(posthouse: &Posthouse, recipient: &str) -> u16 {
    let mut client = say_hello(posthouse);
    client.say("MAIL FROM:<bob@elsewhere.test>", 250);
    client.command(&format!("RCPT TO:<{recipient}>")).code
}

#[test]
fn a_faulty_folder_keeps_the_last_good_snapshot_and_the_next_good_one_is_taken() {
    let site = site();
    let posthouse = site.start();
    let mut before = say_hello(&posthouse);
    assert_eq!(recipient_code(&posthouse, "bob@example.org"), 550);

    site.write("bob.yaml", &(documents::user("bob", "") + "  colour: blue\n"));
    eventually("the fault to be seen", || (posthouse.metric("posthouse_snapshot_faults", &[]) == 1.0).then_some(()));
    assert!(posthouse.log().contains("bob.yaml:"), "the log names the place");
    let (status, detail) = posthouse.get("/readyz");
    assert_eq!(status, 200, "it still works: {detail}");
    assert!(
        detail.contains("bob.yaml") || detail.contains("fault"),
        "readiness says why it is not as it should be: {detail}"
    );
    assert_eq!(recipient_code(&posthouse, "alice@example.org"), 250);
    assert_eq!(recipient_code(&posthouse, "bob@example.org"), 550);

    site.write("bob.yaml", &documents::user("bob", ""));
    eventually("bob", || (recipient_code(&posthouse, "bob@example.org") == 250).then_some(()));
    assert_eq!(posthouse.metric("posthouse_snapshot_faults", &[]), 0.0);
    // The session of before goes on, with the new users.
    before.say("MAIL FROM:<bob@elsewhere.test>", 250);
    before.say("RCPT TO:<bob@example.org>", 250);

    std::fs::remove_file(site.documents().join("bob.yaml")).unwrap();
    posthouse.signal(Signal::HUP);
    eventually("no bob", || (recipient_code(&posthouse, "bob@example.org") == 550).then_some(()));
}

#[test]
fn no_session_is_dropped_and_no_mail_refused_while_folder_and_certificate_change() {
    let site = site();
    let own = |n: usize| certificate(&site, n);
    let listener = documents::listener_mx("").replace("selfSigned: true", "secretName: mx-tls");
    site.write(
        "site.yaml",
        &(documents::base("disk").replace(&documents::listener_mx(""), &listener)
            + &documents::transport("disk", DISK)),
    );
    let (secret, first) = own(0);
    site.write("tls.yaml", &secret);
    let posthouse = site.start();
    assert_eq!(served_certificate(&posthouse), first);

    let stop = AtomicBool::new(false);
    let accepted = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let traffic = |tls: bool| {
            let mut client = say_hello(&posthouse);
            if tls {
                client = client.start_tls("mx.example.org").0;
                client.say("EHLO elsewhere.test", 250);
            }
            while !stop.load(Ordering::Relaxed) {
                let text = message("bob@elsewhere.test", "alice@example.org", "traffic");
                queued_id(&client.deliver("bob@elsewhere.test", &["alice@example.org"], &text));
                accepted.fetch_add(1, Ordering::Relaxed);
            }
        };
        let threads = [false, true].map(|tls| scope.spawn(move || traffic(tls)));
        // The threads above must end whatever becomes of the rest.
        let changes = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for n in 1..4 {
                let (secret, certificate) = own(n);
                site.write("tls.yaml", &secret);
                site.write("more.yaml", &documents::user(&format!("user{n}"), ""));
                eventually("the new certificate", || (served_certificate(&posthouse) == certificate).then_some(()));
                let before = accepted.load(Ordering::Relaxed);
                eventually("traffic to go on", || (accepted.load(Ordering::Relaxed) > before + 5).then_some(()));
            }
        }));
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().expect("no session is dropped");
        }
        changes.expect("the changes are taken");
    });
    let all = accepted.load(Ordering::Relaxed);
    let new = site.state().join("mail/alice/new");
    eventually("every message", || (std::fs::read_dir(&new).ok()?.count() == all).then_some(()));
}

fn served_certificate(posthouse: &Posthouse) -> Vec<u8> {
    say_hello(posthouse).start_tls("mx.example.org").1.to_vec()
}

/// A Secret document with a certificate of its own, and the certificate in DER.
fn certificate(site: &Site, n: usize) -> (String, Vec<u8>) {
    let file = |name: &str| site.path().join(format!("{n}.{name}"));
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new("openssl").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let (key, pem) = (file("key"), file("pem"));
    let (key_path, pem_path) = (key.to_str().unwrap(), pem.to_str().unwrap());
    run(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "30",
        "-subj",
        "/CN=mx.example.org",
        "-addext",
        "subjectAltName=DNS:mx.example.org",
        "-keyout",
        key_path,
        "-out",
        pem_path,
    ]);
    let der = run(&["x509", "-in", pem_path, "-outform", "DER"]);
    let indent =
        |path| std::fs::read_to_string(path).unwrap().lines().map(|line| format!("    {line}\n")).collect::<String>();
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{ name: mx-tls }}\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}",
        indent(&pem),
        indent(&key)
    );
    (secret, der)
}
