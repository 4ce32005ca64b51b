//! Every kind of fault, at its line, with its remedy.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::path::{Path, PathBuf};

use resources::{Environment, Fault, Snapshot, compile, load, snapshot_from_yaml};

/// A site without faults in 42 lines, which each case adds to or changes.
const SITE: &str = "\
apiVersion: posthouse.dev/v1alpha1
kind: MailPlatform
metadata: { name: main }
spec:
  hostname: mx1.example.org
  postmaster: alice@example.org
---
apiVersion: posthouse.dev/v1alpha1
kind: MailListener
metadata: { name: mx }
spec:
  port: 2525
---
apiVersion: posthouse.dev/v1alpha1
kind: MailDomain
metadata: { name: example-org }
spec:
  domain: example.org
  delivery: { transport: dovecot }
---
apiVersion: posthouse.dev/v1alpha1
kind: MailUser
metadata: { name: alice }
spec:
  address: alice@example.org
---
apiVersion: posthouse.dev/v1alpha1
kind: MailTransport
metadata: { name: dovecot }
spec:
  lmtp: { address: \"127.0.0.1:24\" }
---
apiVersion: posthouse.dev/v1alpha1
kind: MailTable
metadata: { name: listed }
spec:
  list: [example.com]
---
apiVersion: v1
kind: Secret
metadata: { name: keys }
stringData: { hash: nonsense, username: alice }
---
";
/// Lines of [`SITE`]: what a case adds begins behind them.
const LINES: usize = 43;

fn run(files: &[(&str, &str)], contents: &[(&str, &str)]) -> (Option<Snapshot>, Vec<String>) {
    let files: Vec<_> = files.iter().map(|(name, text)| (PathBuf::from(name), (*text).to_owned())).collect();
    let (objects, mut faults) = load(&files);
    let environment =
        Environment { is_root: false, state_dir: PathBuf::from("/state"), working_dir: PathBuf::from("/srv") };
    let read = |path: &Path| {
        let found = contents.iter().find(|(name, _)| Path::new(name) == path);
        found.map(|(_, text)| text.as_bytes().to_vec()).ok_or_else(|| "no such file".to_owned())
    };
    let (snapshot, more) = compile(objects, &environment, &read);
    faults.extend(more);
    faults.sort();
    (snapshot, faults.iter().map(|fault: &Fault| fault.to_string()).collect())
}

/// Checks the faults of [`SITE`] with `added` behind it: `line:column: what: remedy`, the line counted within `added`.
#[track_caller]
fn check(added: &str, expected: &[&str]) {
    check_files(added, &[], expected);
}

#[track_caller]
fn check_files(added: &str, contents: &[(&str, &str)], expected: &[&str]) {
    let (_, found) = run(&[("site.yaml", &format!("{SITE}{added}"))], contents);
    let found: Vec<String> = found
        .iter()
        .map(|fault| {
            let rest = fault.strip_prefix("site.yaml:").unwrap();
            let (line, rest) = rest.split_once(':').unwrap();
            let line: usize = line.parse().unwrap();
            format!("{}:{rest}", line as isize - LINES as isize)
        })
        .collect();
    assert_eq!(found, expected, "\n{added}");
}

fn document(kind: &str, name: &str, spec: &str) -> String {
    let version = if matches!(kind, "Secret" | "ConfigMap") { "v1" } else { "posthouse.dev/v1alpha1" };
    format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{ name: {name} }}\n{spec}\n")
}

/// Faults of a `spec` whose first field is in line 5.
#[track_caller]
fn check_spec(kind: &str, spec: &str, expected: &[&str]) {
    check(&document(kind, "new", &format!("spec:\n{spec}")), expected);
}

#[test]
fn the_site_that_the_cases_add_to_has_no_faults() {
    assert_eq!(SITE.lines().count(), LINES);
    check("", &[]);
    assert!(snapshot_from_yaml(SITE).is_ok());
}

#[test]
fn a_folder_with_ten_faults_lists_ten_each_at_its_line() {
    let platform = "\
apiVersion: posthouse.dev/v1alpha1
kind: MailPlatform
metadata: { name: main }
spec:
  hostname: mx1.example.org
  postmaster: alice@example.org
  drainMax: soon
---
apiVersion: posthouse.dev/v1alpha1
kind: MailListener
metadata: { name: mx }
spec:
  port: 25
  adress: 127.0.0.1
---
apiVersion: posthouse.dev/v1alpha1
kind: MailListener
metadata: { name: other }
spec:
  address: 127.0.0.1
  port: 25
  policyRef: site
---
apiVersion: posthouse.dev/v1alpha1
kind: MailListner
metadata: { name: third }
spec: {}
";
    let directory = "\
apiVersion: posthouse.dev/v1alpha1
kind: MailDomain
metadata: { name: example-org }
spec:
  domain: example.org
  delivery: { transport: dovcot }
---
apiVersion: posthouse.dev/v1alpha1
kind: MailUser
metadata: { name: alice }
spec:
  address: alice@example.org
  aliases: [info@exmaple.org]
---
apiVersion: posthouse.dev/v1alpha1
kind: MailUser
metadata: { name: bob }
spec:
  address: bob.example.org
---
apiVersion: posthouse.dev/v1alpha1
kind: MailTransport
metadata: { name: dovecot }
spec:
  maildir: { path: mail/%d/%n, asUser: vmail }
---
apiVersion: posthouse.dev/v1alpha1
kind: MailTransport
metadata: { name: dovecot }
spec:
  mbox: { path: mbox/%u }
---
apiVersion: [
";
    let (_, found) = run(&[("a.yaml", platform), ("b.yaml", directory)], &[]);
    let expected = [
        "a.yaml:7:3: \"soon\" is no time span: write a number and ms, s, m, h or d, as in 30s, 5m, 4h, 5d or 1h30m (ten years at most)",
        "a.yaml:14:3: unknown field \"adress\": did you mean address?",
        "a.yaml:21:3: port 25 is used twice: MailListener mx at a.yaml:11 has it: choose another port or address",
        "a.yaml:22:3: there is no MailPolicy \"site\": add the MailPolicy, or name one that is there",
        "a.yaml:25:1: unknown kind \"MailListner\": did you mean MailListener?",
        "b.yaml:6:15: there is no MailTransport \"dovcot\": did you mean dovecot?",
        "b.yaml:13:13: info@exmaple.org is in no domain of ours: add a MailDomain for exmaple.org, or write an address in one",
        "b.yaml:19:3: \"bob.example.org\" is no mail address: address has no domain: write local-part@domain, as in alice@example.org",
        "b.yaml:25:32: mail cannot be written as user vmail: the platform does not run as root: remove asUser, or run the platform as root",
        "b.yaml:29:13: there is another MailTransport dovecot at b.yaml:23: rename or remove one of them",
    ];
    assert_eq!(found[..10], expected, "{found:#?}");
    assert_eq!(found.len(), 11);
    assert!(found[10].starts_with("b.yaml:34:") && found[10].contains("this is not YAML"), "{}", found[10]);
}

#[test]
fn what_is_no_resource_is_said_so() {
    check("- a\n", &["1:1: the document is no resource: write apiVersion, kind, metadata and spec"]);
    check(
        "a: 1\n",
        &[
            "1:1: kind is missing: add one of MailPlatform, MailListener, MailDomain, MailUser, MailTable, MailPolicy, MailTransport, Secret, ConfigMap",
            "1:1: metadata is missing: add metadata: { name: some-name }",
        ],
    );
    check(
        "apiVersion: posthouse.dev/v1\nkind: MailTable\nmetadata: { name: new }\nspec: { list: [] }\n",
        &["1:1: unknown apiVersion \"posthouse.dev/v1\" of MailTable: write posthouse.dev/v1alpha1"],
    );
    check(
        "kind: MailTable\nmetadata: { name: New_One }\nspec: { list: [] }\n",
        &[
            "1:1: apiVersion is missing: add apiVersion: posthouse.dev/v1alpha1",
            "2:13: \"New_One\" is no name of a resource: write lower-case letters, digits, - and ., beginning and ending with a letter or digit",
        ],
    );
    check(
        "apiVersion: posthouse.dev/v1alpha1\nkind: MailTable\nmetadata: { nam: new }\nspecs: { list: [] }\n",
        &[
            "3:1: metadata.name is missing: add a name, by which others refer to this",
            "3:13: unknown field \"nam\": did you mean name?",
            "4:1: unknown field \"specs\": did you mean spec?",
        ],
    );
    check(
        "apiVersion: posthouse.dev/v1alpha1\nkind: MailTable\nmetadata: { name: new }\n",
        &["1:1: spec is missing: add what the MailTable should be; docs/configuration.md lists its fields"],
    );
    check("# nothing but a comment\n---\n", &[]);
    let (snapshot, faults) = run(&[], &[]);
    assert!(snapshot.is_none());
    assert_eq!(
        faults,
        [".:0:0: there is no MailPlatform: add one with hostname and postmaster; posthouse init writes an example"]
    );
}

#[test]
fn fields_are_held_to_their_schema() {
    for (kind, spec, expected) in [
        (
            "MailListener",
            "  port: 2526\n  protocol: stmp",
            &["6:3: spec.protocol cannot be \"stmp\": did you mean smtp? (smtp, submission, lmtp)"][..],
        ),
        (
            "MailListener",
            "  port: 2526\n  lineEnds: banana",
            &["6:3: spec.lineEnds cannot be \"banana\": write one of refuse, normalise"],
        ),
        ("MailListener", "  port: 70000", &["5:3: spec.port cannot be 70000: write a number from 0 to 65535"]),
        (
            "MailListener",
            "  port: '2526'",
            &["5:3: spec.port is a text, but should be a number: write a number, without quotes"],
        ),
        (
            "MailListener",
            "  port: 2526\n  hostname:\n  loopbackIsLocal: 'yes'\n  tags: from-world",
            &[
                "7:3: spec.loopbackIsLocal is a text, but should be true or false: write true or false",
                "8:3: spec.tags is a text, but should be a list: write a list: [a, b], or a line for each with - in front",
            ],
        ),
        (
            "MailListener",
            "  port: 2526\n  clientIdentity:\n    mode: proxyProtocol\n    trusted:\n      - 10.0.0.0/8\n      - 10.0.0.0/64",
            &["10:9: \"10.0.0.0/64\" is no network: write an address or a CIDR, as in 192.0.2.0/24 or 2001:db8::/32"],
        ),
        (
            "MailListener",
            "  port: 2526\n  address: localhost\n  limits: { messageMax: 50MB, sessionsMax: 0 }",
            &[
                "6:3: \"localhost\" is no IP address: write an address such as 192.0.2.1 or ::1, without port or name",
                "7:13: \"50MB\" is no size: write a number of bytes, possibly with Ki, Mi, Gi or Ti, as in 50Mi",
                "7:31: spec.limits.sessionsMax cannot be 0: write a number from 1 on",
            ],
        ),
        (
            "MailDomain",
            "  domain: example..com",
            &[
                "4:1: spec.delivery is missing: add it (How mail reaches the mailboxes)",
                "5:3: \"example..com\" is no domain: domain has a label that is empty, longer than 63 octets or not made of letters, digits and hyphens: write a name such as example.org, without a dot at the end",
            ],
        ),
        (
            "MailUser",
            "  address: bob@example.org\n  sendAs: ['*@']\n  passwordHash: change-me",
            &[
                "6:12: \"\" is no domain: domain is empty: write a name such as example.org, without a dot at the end",
                "7:3: the password hash is not of the form SHA-512-crypt ($6$), bcrypt ($2b$) or argon2id: make one with posthouse hash-password, or with doveadm pw -s SHA512-CRYPT",
            ],
        ),
        (
            "MailPolicy",
            "  rules:\n    - match: { sender: { tabel: x } }\n      action: { accept: {} }\n    - match: { recipient: [] , helo: 5 }\n      action: { accept: {} }",
            &[
                "6:16: spec.rules[0].match.sender.table is missing: write { table: name }",
                "6:26: unknown field \"tabel\": did you mean table?",
                "8:16: spec.rules[1].match.recipient is an empty list: add a value, or remove the criterion",
                "8:32: spec.rules[1].match.helo is a number, but should be a value, a list of values or { table: name }: put it in quotes, or write a list",
            ],
        ),
        (
            "MailPolicy",
            "  rules:\n    - action: { reject: { code: 250 } }",
            &["6:27: spec.rules[0].action.reject.code cannot be 250: write a number from 500 to 599"],
        ),
        (
            "MailTransport",
            "  program: { argv: [] }\n  retry: { delayFirst: 5 }",
            &[
                "5:14: spec.program.argv is an empty list: add an item, or remove the field",
                "6:12: spec.retry.delayFirst is a number, but should be a text: put it in quotes",
            ],
        ),
        (
            "MailTransport",
            "  relay: { hosts: ['mail example org'] }\n  colour: blue",
            &[
                "5:20: \"mail example org\" is no host with a port: write host:port, as in smtp.example.org:587 or [2001:db8::1]:25",
                "6:3: unknown field \"colour\": remove it; known here are limits, lmtp, maildir, mbox, program, relay, retry",
            ],
        ),
        (
            "MailTable",
            "  map: { a: 5 }",
            &[
                "5:10: spec.map.a is a number, but should be a text or a list of texts: put it in quotes, or write a list",
            ],
        ),
    ] {
        check_spec(kind, spec, expected);
    }
}

#[test]
fn keys_are_written_once() {
    check_spec(
        "MailTable",
        "  list: [a]\n  list: [b]",
        &["6:3: \"list\" is written twice: first in line 48: keep one of them"],
    );
}

#[test]
fn a_document_with_a_fault_is_not_blamed_for_what_follows_from_it() {
    // The domain is known by what else it says: its users are not in "no domain of ours".
    let domain = "apiVersion: posthouse.dev/v1alpha1\nkind: MailDomain\nmetadata: { name: other }\nspec:\n";
    let user = "---\napiVersion: posthouse.dev/v1alpha1\nkind: MailUser\nmetadata: { name: bob }\nspec:\n  address: bob@example.edu\n";
    for (fields, expected) in [
        (
            "  domian: example.edu\n  delivery: { transport: dovecot }\n",
            "5:3: unknown field \"domian\": did you mean domain?",
        ),
        (
            "  domain: example.edu\n  delivery: { transport: [] }\n",
            "6:15: spec.delivery.transport is a list, but should be a text: write a text",
        ),
        (
            "  domain: 5\n  delivery: { transport: dovecot }\n",
            "5:3: spec.domain is a number, but should be a text: put it in quotes",
        ),
    ] {
        check(&format!("{domain}{fields}{user}"), &[expected]);
    }
    // What is wrong beside the misspelled field is said too.
    check_spec(
        "MailDomain",
        "  domian: example.org\n  delivery: { transport: nowhere }",
        &[
            "5:3: example.org has two owners: MailDomain example-org at site.yaml:16 has it: remove it from one of them",
            "5:3: unknown field \"domian\": did you mean domain?",
            "6:15: there is no MailTransport \"nowhere\": add the MailTransport, or name one that is there",
        ],
    );
    // A document that is not even YAML is still there for those who refer to it.
    let broken = document("MailTransport", "broken", "spec: { lmtp: [ }");
    let domain = document("MailDomain", "other", "spec: { domain: example.edu, delivery: { transport: broken } }");
    let (_, found) = run(&[("site.yaml", &format!("{SITE}{broken}---\n{domain}"))], &[]);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].contains("this is not YAML"), "{found:#?}");
}

#[test]
fn one_platform_rules() {
    check(
        &document("MailPlatform", "second", "spec: { hostname: mx2.example.org, postmaster: alice@example.org }"),
        &["3:13: there is a second MailPlatform; the first is main at site.yaml:3: keep one of them"],
    );
    let (snapshot, found) = run(&[("sites/site.yaml", &SITE.replace("kind: MailPlatform", "kind: MailPlatfrom"))], &[]);
    assert!(snapshot.is_some());
    assert_eq!(found, ["sites/site.yaml:2:1: unknown kind \"MailPlatfrom\": did you mean MailPlatform?"]);
    for (field, expected) in [
        (
            "postmaster: nobody@example.org",
            "6:3: nobody has the postmaster's address nobody@example.org: add it to the aliases of a MailUser, or name another address",
        ),
        (
            "postmaster: alice@example.org\n  policyRef: site",
            "7:3: there is no MailPolicy \"site\": add the MailPolicy, or name one that is there",
        ),
        (
            "postmaster: alice@example.org\n  relayTransport: dovecot",
            "7:3: MailTransport dovecot does not lead to other servers: name one of kind relay, or the built-in mx",
        ),
        (
            "postmaster: alice@example.org\n  relayTransport: smarthost",
            "7:3: there is no MailTransport \"smarthost\": add the MailTransport, or name one that is there",
        ),
    ] {
        let (_, found) = run(&[("site.yaml", &SITE.replacen("postmaster: alice@example.org", field, 1))], &[]);
        assert_eq!(found, [format!("site.yaml:{expected}")]);
    }
}

#[test]
fn listeners_say_what_works() {
    for (spec, expected) in [
        (
            "  port: 2525",
            &["5:3: port 2525 is used twice: MailListener mx at site.yaml:10 has it: choose another port or address"][..],
        ),
        (
            "  port: 2525\n  address: 127.0.0.1",
            &["5:3: port 2525 is used twice: MailListener mx at site.yaml:10 has it: choose another port or address"],
        ),
        (
            "  port: 9090",
            &[
                "5:3: port 9090 is used twice: the admin port of the MailPlatform at site.yaml:3 has it: choose another port or address",
            ],
        ),
        ("  port: 9090\n  address: 127.0.0.2", &[]),
        ("  port: 0", &[]),
        (
            "  socket: in.sock\n  port: 5",
            &["6:3: socket and port are both given: keep one of them: a listener is a Unix socket or a TCP port"],
        ),
        (
            "  port: 26\n  tls: {}",
            &[
                "6:3: TLS is on, but there is no certificate: name a Secret in secretName, or files, or set selfSigned: true",
            ],
        ),
        ("  port: 26\n  tls: { selfSigned: true }", &[]),
        ("  port: 26\n  tls: { mode: off }", &[]),
        (
            "  port: 26\n  tls: { secretName: mx-tls }",
            &["6:10: there is no Secret \"mx-tls\": add the Secret, or name one that is there"],
        ),
        (
            "  port: 26\n  tls: { secretNames: [keys] }",
            &[
                "6:24: Secret keys has no key \"tls.crt\": add it at site.yaml:41: a certificate is tls.crt and tls.key, both PEM",
                "6:24: Secret keys has no key \"tls.key\": add it at site.yaml:41: a certificate is tls.crt and tls.key, both PEM",
            ],
        ),
        (
            "  port: 26\n  tls:\n    files:\n      - certificate: mx.crt\n        key: mx.key",
            &[
                "8:9: file \"mx.crt\" cannot be read: no such file: put the file there, readable for the platform; the path is relative to the document",
                "9:9: file \"mx.key\" cannot be read: no such file: put the file there, readable for the platform; the path is relative to the document",
            ],
        ),
        (
            "  port: 26\n  tls:\n    selfSigned: true\n    clientCertificates:\n      mode: required\n      authoritiesFile: ca.crt",
            &[
                "9:7: client certificates are required, but sessions without TLS have none: set tls.mode to required or implicit",
                "10:7: file \"ca.crt\" cannot be read: no such file: put the file there, readable for the platform; the path is relative to the document",
            ],
        ),
        (
            "  port: 26\n  tls: { mode: required, selfSigned: true, clientCertificates: { mode: required } }",
            &[
                "6:44: client certificates are asked for, but there are no authorities to verify them by: add authoritiesSecretRef or authoritiesFile",
            ],
        ),
        (
            "  port: 26\n  protocol: submission",
            &[
                "4:1: AUTH is offered, but TLS is off: nobody could log in: add tls with mode required, or auth.allowWithoutTls: true where the network is safe",
            ],
        ),
        (
            "  port: 26\n  auth: { optional: true }",
            &[
                "6:3: AUTH is offered, but TLS is off: nobody could log in: add tls with mode required, or auth.allowWithoutTls: true where the network is safe",
            ],
        ),
        ("  port: 26\n  auth: { optional: true, allowWithoutTls: true }", &[]),
        (
            "  port: 26\n  clientIdentity: { mode: proxyProtocol }",
            &["6:3: proxyProtocol is on, but no proxy is trusted: list the addresses of the proxies in trusted"],
        ),
        (
            "  port: 26\n  clientIdentity: { trusted: [10.0.0.1] }",
            &[
                "6:21: proxies are trusted, but the mode is not proxyProtocol: set mode: proxyProtocol, or remove trusted",
            ],
        ),
        (
            "  port: 26\n  limits: { commandLineMax: 100 }",
            &["6:13: commandLineMax is 100 bytes: no server works with less than 512: write a larger size"],
        ),
        (
            "  port: 26\n  limits: { dataTimeout: 0s }",
            &["6:13: dataTimeout is 0s: every session would end at once: write a longer time"],
        ),
        ("  port: 26\n  tags: [a b]", &["6:10: \"a b\" is no tag: write letters, digits, -, _ and . only"]),
        (
            "  port: 26\n  hostname: '[192.0.2.1]'",
            &["6:3: hostname is an address literal: write the name that DNS has for this host"],
        ),
        (
            "  port: 26\n  policyRef: site",
            &["6:3: there is no MailPolicy \"site\": add the MailPolicy, or name one that is there"],
        ),
        ("  port: 26\n  addresses: ['::1', '::1']", &["6:22: address ::1 is given twice: remove one of them"]),
    ] {
        check_spec("MailListener", spec, expected);
    }
}

#[test]
fn certificates_and_keys_belong_together() {
    let make = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let (one, other) = (make("mx1.example.org"), make("mx2.example.org"));
    let spec = "spec:\n  port: 26\n  tls: { files: [{ certificate: tls/crt, key: tls/key }] }";
    let added = document("MailListener", "new", spec);
    let (chain, key) = (one.cert.pem(), one.signing_key.serialize_pem());
    for (chain, key, expected) in [
        (chain.as_str(), key.as_str(), &[][..]),
        (
            chain.as_str(),
            &other.signing_key.serialize_pem(),
            &[
                "6:18: tls/crt: the key does not belong to the certificate: give the key that the certificate was made for, leaf first",
            ],
        ),
        (
            "",
            key.as_str(),
            &["6:18: tls/crt: there is no certificate in it: give PEM: -----BEGIN CERTIFICATE-----, leaf first"],
        ),
        (
            chain.as_str(),
            "secret",
            &[
                "6:18: tls/crt: there is no private key in it: give PEM: -----BEGIN PRIVATE KEY-----, without a pass phrase",
            ],
        ),
    ] {
        check_files(&added, &[("/srv/tls/crt", chain), ("/srv/tls/key", key)], expected);
    }
    let listener = document("MailListener", "new", "spec: { port: 26, tls: { secretName: mx-tls } }");
    let indent = |text: &str| text.replace('\n', "\n    ");
    let secret = format!("stringData:\n  tls.crt: |\n    {}\n  tls.key: |\n    {}", indent(&chain), indent(&key));
    let text = format!("{SITE}{listener}---\n{}", document("Secret", "mx-tls", &secret));
    let snapshot = snapshot_from_yaml(&text).unwrap();
    assert_eq!(snapshot.listeners["new"].tls.certificates, ["mx-tls"]);
    assert!(!snapshot.listeners["new"].tls.self_signed);
    assert!(!format!("{snapshot:?}").contains("PRIVATE KEY"));
}

#[test]
fn domains_and_users_have_one_owner_and_reach_somebody() {
    for (kind, spec, expected) in [
        (
            "MailDomain",
            "  domain: example.com\n  aliases: [Example.ORG]\n  delivery: { transport: mx }",
            &[
                "6:13: example.org has two owners: MailDomain example-org at site.yaml:16 has it: remove it from one of them",
            ][..],
        ),
        (
            "MailDomain",
            "  domain: example.com\n  aliases: [example.com]\n  delivery: { transport: mx }",
            &["6:13: example.com is named twice: remove one of them"],
        ),
        (
            "MailDomain",
            "  domain: example.com\n  delivery: { transport: mx }\n  catchAll: bob@example.com\n  subAddress: { delimiters: '+a' }",
            &[
                "7:3: nobody has the address bob@example.com: add it to a MailUser, or name another address",
                "8:17: 'a' cannot begin a detail: write signs such as + or -",
            ],
        ),
        ("MailDomain", "  domain: example.com\n  delivery: { transport: mx }\n  catchAll: alice@example.org", &[]),
        (
            "MailDomain",
            "  domain: example.com\n  delivery: { transport: mx }\n  userTable: listed\n  aliasTable: listed",
            &[
                "7:3: MailTable listed has no columns: users come from a query: use a MailTable with sqlite, or write MailUsers",
                "8:3: MailTable listed has no address for \"example.com\": write a map from addresses to addresses, not a list",
            ],
        ),
        (
            "MailUser",
            "  address: bob@example.org\n  aliases: [Alice@example.org]",
            &[
                "6:13: Alice@example.org has two owners: MailUser alice at site.yaml:23 has it: remove it from one of them",
            ],
        ),
        (
            "MailUser",
            "  address: bob@example.org\n  aliases: [BOB@example.org]",
            &["6:13: BOB@example.org is named twice (an alias of a domain is that domain): remove one of them"],
        ),
        (
            "MailUser",
            "  address: bob@example.com",
            &[
                "5:3: bob@example.com is in no domain of ours: add a MailDomain for example.com, or write an address in one",
            ],
        ),
        (
            "MailUser",
            "  address: bob@example.org\n  forwards: [bob@example.org, nobody@example.org, x@example.com, abuse@example.org, alice+x@example.org]",
            &[
                "6:14: mail for bob@example.org is forwarded to the same mailbox: remove it; keepCopy: true keeps a copy",
                "6:31: nobody has the address nobody@example.org: add it to a MailUser, or name another address",
            ],
        ),
        (
            "MailUser",
            "  address: bob@example.org\n  keepCopy: true",
            &["6:3: keepCopy is set, but nothing is forwarded: add forwards, or remove it"],
        ),
        (
            "MailUser",
            "  address: bob@example.org\n  transport: dovecott",
            &["6:3: there is no MailTransport \"dovecott\": did you mean dovecot?"],
        ),
        (
            "MailUser",
            "  address: bob@example.org\n  passwordSecretRef: { name: keys }",
            &[
                "6:3: Secret keys, key \"hash\": the password hash is not of the form SHA-512-crypt ($6$), bcrypt ($2b$) or argon2id: make one with posthouse hash-password, or with doveadm pw -s SHA512-CRYPT",
            ],
        ),
        (
            "MailUser",
            "  address: bob@example.org\n  passwordSecretRef: { name: keys, key: has }",
            &["6:3: Secret keys has no key \"has\": did you mean hash?"],
        ),
        (
            "MailUser",
            "  address: bob@example.org\n  passwordSecretRef: { name: bob }",
            &["6:24: there is no Secret \"bob\": add the Secret, or name one that is there"],
        ),
    ] {
        check_spec(kind, spec, expected);
    }
}

#[test]
fn tables_have_one_source_that_can_be_read() {
    for (spec, expected) in [
        ("  {}", &["4:1: the table has no source: add one of list, map, file, sqlite, secretRef and configMapRef"][..]),
        ("  list: [a]\n  map: { b: c }", &["6:3: the table has list and map: keep one of them"]),
        ("  list: [a, A]", &["5:13: \"a\" is in the table twice (number 2): keep one of them"]),
        (
            "  file: { path: table }",
            &[
                "5:11: file \"table\" cannot be read: no such file: put the file there, readable for the platform; the path is relative to the document",
            ],
        ),
        (
            "  configMapRef: { name: lists, key: a }",
            &["5:19: there is no ConfigMap \"lists\": add the ConfigMap, or name one that is there"],
        ),
        (
            "  secretRef: { name: keys, key: table }",
            &["5:3: Secret keys has no key \"table\": add it at site.yaml:41, or name one of hash, username"],
        ),
        (
            "  sqlite: { path: a.sqlite, query: \"DELETE FROM users\" }",
            &["5:29: the query does not select anything: write SELECT ... FROM ... WHERE ... = '%u'"],
        ),
        (
            "  sqlite: { path: a.sqlite, query: \"SELECT a FROM b WHERE c = '%w'\" }",
            &["5:29: \"%w\" is no variable of a query: write %u, %n, %d, or %% for a percent sign"],
        ),
        ("  sqlite: { path: a.sqlite, query: \"SELECT a FROM b WHERE c = '%u'\" }", &[]),
    ] {
        check_spec("MailTable", spec, expected);
    }
}

#[test]
fn policies_are_rules_that_can_be_followed() {
    for (rules, expected) in [
        ("    - include: default", &[][..]),
        (
            "    - include: site",
            &["6:7: there is no MailPolicy \"site\": add the MailPolicy, or name one that is there"],
        ),
        (
            "    - include: new",
            &["6:7: policies include each other in a circle: new -> new: remove one of the includes"],
        ),
        (
            "    - { include: default, action: { accept: {} } }",
            &["6:9: a rule with include has match or action as well: write them as two rules"],
        ),
        ("    - name: empty", &["6:7: the rule has no action: add action, or include with the name of a policy"]),
        (
            "    - action: {}",
            &[
                "6:7: the action says nothing: add one of accept, deliver, relay, reject, defer, tag, rewriteSender, aliases",
            ],
        ),
        (
            "    - action: { tag: a, accept: {} }",
            &["6:17: the action has accept and tag: write two rules: a rule does one thing"],
        ),
        (
            "    - { match: {}, action: { accept: {} } }",
            &["6:9: match holds no criterion, so the rule would always match: add a criterion, or remove match"],
        ),
        (
            "    - { match: { source: anywhere }, action: { accept: {} } }",
            &[
                "6:18: \"anywhere\" is no source: write any, local, an address, a network such as 192.0.2.0/24, or a list of networks",
            ],
        ),
        (
            "    - { match: { source: [local, 10.0.0.1] }, action: { accept: {} } }",
            &["6:27: local stands in a list: write two rules: one for it, one for the networks"],
        ),
        (
            "    - { match: { sender: { table: lsited } }, action: { accept: {} } }",
            &["6:28: there is no MailTable \"lsited\": did you mean listed?"],
        ),
        ("    - { match: { listener: sendmail }, action: { accept: {} } }", &[]),
        (
            "    - { match: { not: { listener: mxx } }, action: { accept: {} } }",
            &["6:25: there is no MailListener \"mxx\": did you mean mx?"],
        ),
        (
            "    - { match: { recipientDomain: a@b }, action: { accept: {} } }",
            &["6:18: \"a@b\" is no domain: write a domain, or *.example.org for all below it"],
        ),
        (
            "    - { match: { sender: a b }, action: { accept: {} } }",
            &["6:18: \"a b\" is neither an address nor a domain: write user@example.org, *@example.org or example.org"],
        ),
        (
            "    - { match: { helo: true }, action: { accept: {} } }",
            &[
                "6:18: spec.rules[0].match.helo is true or false, but should be a value, a list or a table: put it in quotes",
            ],
        ),
        (
            "    - { action: { reject: { text: 4.7.1 no } } }",
            &["6:29: enhanced code 4.7.1 does not go with code 550: begin the text with 5.x.y"],
        ),
        (
            "    - { action: { defer: { text: '' } } }",
            &[
                "6:28: the text of the reply is empty, too long or not plain ASCII: write one line of up to 490 characters",
            ],
        ),
        (
            "    - { action: { relay: { transport: dovecot } } }",
            &["6:28: MailTransport dovecot does not lead to other servers: name one of kind relay, or the built-in mx"],
        ),
        (
            "    - { action: { deliver: { virtual: { table: listed } } } }",
            &[
                "6:41: MailTable listed has no address for \"example.com\": write a map from addresses to addresses, not a list",
            ],
        ),
    ] {
        check_spec("MailPolicy", &format!("  rules:\n{rules}"), expected);
    }
    check(
        &document("MailPolicy", "default", "spec: { rules: [] }"),
        &["3:13: the name default belongs to the built-in policy: choose another name"],
    );
    check(
        &document("MailListener", "sendmail", "spec: { port: 26 }"),
        &["3:13: the name sendmail belongs to the built-in listener of posthouse sendmail: choose another name"],
    );
    // Each includes the next one eight times, and none has a rule of its own.
    let include = |next: usize| format!("spec: {{ rules: [{}] }}", format!("{{ include: p{next} }}, ").repeat(8));
    let bomb: Vec<String> = (0..12).map(|n| document("MailPolicy", &format!("p{n}"), &include(n + 1))).collect();
    let faults = snapshot_from_yaml(&bomb.join("---\n")).unwrap_err();
    assert!(faults.iter().any(|fault| fault.what.contains("more than 10000 rules")), "{}", faults.len());
    let one = document("MailPolicy", "one", "spec:\n  rules:\n    - include: two");
    let two = document("MailPolicy", "two", "spec:\n  rules:\n    - include: one");
    check(
        &format!("{one}---\n{two}"),
        &[
            "6:7: policies include each other in a circle: two -> one -> two: remove one of the includes",
            "13:7: policies include each other in a circle: one -> two -> one: remove one of the includes",
        ],
    );
}

#[test]
fn includes_of_includes_stay_within_bounds() {
    let mut text = document("MailPolicy", "p0", "spec: { rules: [{ action: { accept: {} } }] }");
    for level in 1..40 {
        let include = format!("{{ include: p{} }}", level - 1);
        let rules = format!("spec: {{ rules: [{include}, {include}] }}");
        text.push_str(&format!("---\n{}", document("MailPolicy", &format!("p{level}"), &rules)));
    }
    let (_, found) = run(&[("site.yaml", &format!("{SITE}{text}"))], &[]);
    assert!(!found.is_empty());
    assert!(found.iter().all(|fault| fault.contains("more than 10000 rules")), "{found:#?}");
}

#[test]
fn transports_say_how_mail_leaves() {
    for (spec, expected) in [
        (
            "  {}",
            &["4:1: the transport does not say how mail leaves: add one of lmtp, maildir, mbox, program and relay"][..],
        ),
        (
            "  lmtp: { socket: a }\n  relay: {}",
            &["6:3: the transport has lmtp and relay: keep one of them; write a second MailTransport for the other"],
        ),
        ("  lmtp: {}", &["5:3: lmtp does not say where mail goes: add address: host:port, or socket: /path"]),
        ("  lmtp: { socket: a, address: 'b:24' }", &["5:11: address and socket are both given: keep one of them"]),
        ("  lmtp: { socket: a, tls: { mode: required } }", &["5:22: a Unix socket needs no TLS: remove tls"]),
        (
            "  maildir: { path: mail/%x }",
            &["5:14: \"%x\" is no variable of a path: write %u, %n, %d, or %% for a percent sign"],
        ),
        (
            "  maildir: { path: mail }",
            &["5:14: path is the same for everybody: all mail would go into one mailbox: add %u, or %d and %n"],
        ),
        ("  maildir: { path: ../%u }", &["5:14: path leads upwards with ..: write the path without .."]),
        (
            "  mbox: { path: m/%u }\n  limits: { concurrencyMax: 2, recipientsMax: 1 }",
            &["6:13: concurrencyMax of this kind of transport is always 1: remove it"],
        ),
        (
            "  mbox: { path: m/%u, asUser: vmail }",
            &[
                "5:23: mail cannot be written as user vmail: the platform does not run as root: remove asUser, or run the platform as root",
            ],
        ),
        (
            "  program: { argv: [filter, '%q'] }",
            &[
                "5:21: \"filter\" is no absolute path: write where the program is, as in /usr/local/bin/filter",
                "5:29: \"%q\" is no variable of an argument: write %u, %n, %d, %s, %i, or %% for a percent sign",
            ],
        ),
        (
            "  program: { argv: [/bin/cat], variables: { 'A=B': c } }",
            &["5:45: \"A=B\" is no name of an environment variable: write a name such as PATH"],
        ),
        ("  relay: { hosts: [a.example], mx: {} }", &["5:32: hosts and mx are both given: keep one of them"]),
        (
            "  relay: { authSecretRef: { name: keys } }",
            &[
                "5:12: Secret keys has no key \"password\": add it at site.yaml:41, or name one of hash, username",
                "5:12: a password is given, but no host to give it to: add hosts: a password goes to named servers only",
            ],
        ),
        (
            "  relay: { hosts: [a.example], authSecretRef: { name: keys, passwordKey: hash }, tls: { mode: off } }",
            &[
                "5:82: a password is given, but TLS is off: it would never be sent: set tls.mode: required, or allowAuthWithoutTls: true",
            ],
        ),
        (
            "  relay: { hostTable: listed }",
            &[
                "5:12: MailTable listed has no host for \"example.com\": its values must be host:port, as in mail.example.org:25",
            ],
        ),
        (
            "  relay: { hostTable: hosts }",
            &["5:12: there is no MailTable \"hosts\": add the MailTable, or name one that is there"],
        ),
        (
            "  lmtp: { socket: a }\n  retry: { delayFirst: 1h, delayMax: 1m }",
            &["6:28: delayMax is shorter than delayFirst: write a longer time, or a shorter delayFirst"],
        ),
        (
            "  relay: { tls: { authoritiesFile: ca.pem } }",
            &[
                "5:19: file \"ca.pem\" cannot be read: no such file: put the file there, readable for the platform; the path is relative to the document",
            ],
        ),
    ] {
        check_spec("MailTransport", spec, expected);
    }
    let query = document("MailTable", "hosts", "spec: { sqlite: { path: a, query: SELECT a } }");
    let relay = document("MailTransport", "new", "spec: { relay: { hostTable: hosts } }");
    check(
        &format!("{query}---\n{relay}"),
        &[
            "9:18: MailTable hosts is a query, but a hostTable must be known beforehand: use a MailTable with map or file",
        ],
    );
}

#[test]
fn numbers_that_a_type_cannot_hold_are_faults_at_their_place() {
    let spec = "spec: { port: 26, limits: { sessionsMax: 5000000000 } }";
    let (_, found) = run(&[("site.yaml", &format!("{SITE}{}", document("MailListener", "new", spec)))], &[]);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with("site.yaml:47:29: spec.limits.sessionsMax does not fit"), "{found:#?}");
}

#[test]
fn no_text_stops_the_loader() {
    for at in (0..SITE.len()).filter(|at| SITE.is_char_boundary(*at)) {
        for piece in ["", "\n", "- ", "{", "]", ": ", "\t", "&a *a", "!!int x", "\0", "--- ", "'"] {
            let text = format!("{}{piece}{}", &SITE[..at], if piece.is_empty() { "" } else { &SITE[at..] });
            let (_, found) = run(&[("site.yaml", &text)], &[]);
            assert!(found.iter().all(|fault| !fault.is_empty()));
        }
    }
}

#[test]
fn secrets_are_text_or_base64() {
    check(
        &document("Secret", "new", "data: { a: '%%%', b: YQ== }\nstringData: { c: 5 }\nstringdata: {}"),
        &[
            "4:9: data.a is not base64: encode it, or write it below stringData as it is",
            "5:15: stringData.c is not a text: put it in quotes",
            "6:1: unknown field \"stringdata\": did you mean stringData?",
        ],
    );
}
