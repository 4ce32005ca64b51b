//! What to try next with a site that has just started.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use resources::Snapshot;
use resources::snapshot::{Endpoint, Listener, Protocol, TlsMode, TransportKind};
use rules::User;

/// Addresses that can log in, sorted.
pub fn users(snapshot: &Snapshot) -> Vec<String> {
    let users = snapshot.rules.users.values().filter(|user| user.password.is_some() && !user.disabled);
    let mut addresses: Vec<String> = users.map(|user| user.address.to_string()).collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

/// A way to submit a message to oneself, and where it arrives.
#[derive(Debug, PartialEq, Eq)]
pub struct Hint {
    /// A shell command.
    pub command: String,
    /// `None`: the mailbox is not a file of ours.
    pub arrives_in: Option<PathBuf>,
    /// The password is known: it is published in the documents, or stands for one that only the user knows.
    pub password_is_known: bool,
}

/// Derives the hint from a snapshot. `bound` are the addresses of listeners by name, as ingress publishes them.
pub fn derive(snapshot: &Snapshot, bound: &BTreeMap<String, Vec<String>>, state_dir: &Path) -> Option<Hint> {
    let listener = snapshot.listeners.values().find(|listener| takes_users(listener))?;
    let address = bound.get(&listener.name)?.iter().find_map(|text| text.parse::<std::net::SocketAddr>().ok())?;
    let known = |address: &String| snapshot.demo_passwords.contains_key(address);
    let users = users(snapshot);
    let user = users.iter().find(|address| known(address)).or_else(|| users.first())?;
    let password = snapshot.demo_passwords.get(user);
    let scheme = if listener.tls.mode == TlsMode::Implicit { "smtps" } else { "smtp" };
    let tls = match listener.tls.mode {
        TlsMode::Off => "",
        _ if listener.tls.self_signed => " --insecure --ssl-reqd",
        _ => " --ssl-reqd",
    };
    let command = format!(
        "printf 'From: {user}\\r\\nTo: {user}\\r\\nSubject: hello\\r\\n\\r\\nIt works.\\r\\n' | \
         curl --silent --show-error{tls} {scheme}://{} --user {user}:{} --mail-from {user} --mail-rcpt {user} --upload-file -",
        reachable(address),
        password.map_or("PASSWORD", String::as_str),
    );
    Some(Hint { command, arrives_in: arrives_in(snapshot, user, state_dir), password_is_known: password.is_some() })
}

fn takes_users(listener: &Listener) -> bool {
    listener.protocol == Protocol::Submission
        && listener.auth.offered
        && matches!(listener.endpoint, Endpoint::Tcp { .. })
}

/// Nobody connects to every address at once.
fn reachable(mut address: std::net::SocketAddr) -> std::net::SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    address
}

fn arrives_in(snapshot: &Snapshot, user: &str, state_dir: &Path) -> Option<PathBuf> {
    let user: &User = snapshot.rules.users.values().find(|known| known.address.to_string() == user)?;
    let domain = snapshot.rules.domains.get(user.address.domain())?;
    let transport = snapshot.transports.get(user.transport.as_ref().unwrap_or(&domain.transport))?;
    let (path, inside) = match &transport.kind {
        TransportKind::Maildir { path, .. } => (path, "new"),
        TransportKind::Mbox { path, .. } => (path, ""),
        _ => return None,
    };
    let (local, domain) = (user.address.local().to_lowercase(), user.address.domain().as_str());
    let path = path.replace("%u", &user.address.key()).replace("%n", &local).replace("%d", domain);
    let path = state_dir.join(path);
    Some(if inside.is_empty() { path } else { path.join(inside) })
}

/// What is printed.
pub fn text(hint: &Hint) -> String {
    let mut text = format!("\ntry it:\n\n  {}\n\n", hint.command);
    if !hint.password_is_known {
        text.push_str("with the user's password for PASSWORD; ");
    }
    match &hint.arrives_in {
        Some(path) => text.push_str(&format!("the message arrives in {}\n", path.display())),
        None => text.push_str("see what became of the message with `posthouse trace`\n"),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: &str = "
apiVersion: posthouse.dev/v1alpha1
kind: MailPlatform
metadata: { name: main }
spec: { hostname: mx1.example.org, postmaster: bob@example.org, tls: { selfSigned: true } }
---
apiVersion: posthouse.dev/v1alpha1
kind: MailListener
metadata: { name: submission }
spec: { protocol: submission, port: 0, tls: { mode: MODE } }
---
apiVersion: posthouse.dev/v1alpha1
kind: MailDomain
metadata: { name: example-org }
spec: { domain: example.org, delivery: { transport: mailboxes } }
---
apiVersion: posthouse.dev/v1alpha1
kind: MailTransport
metadata: { name: mailboxes }
spec: { maildir: { path: mail/%d/%n } }
---
apiVersion: posthouse.dev/v1alpha1
kind: MailUser
metadata: { name: bob }
spec: { address: bob@example.org, passwordSecretRef: { name: bob, key: hash } }
---
apiVersion: v1
kind: Secret
metadata: { name: bob, annotations: { ANNOTATION } }
stringData: { hash: $6$abcdefgh$6ruv6AbqWTosvrUi8ujg7zb3wROQsi8FJ9FvzNaxACrwEVQPgG.M21O/M/mBoeYk3FB09LPJmEqAGPGmSi38f. }
";

    fn hint(mode: &str, annotation: &str) -> Option<Hint> {
        let text = SITE.replace("MODE", mode).replace("ANNOTATION", annotation);
        let snapshot = resources::snapshot_from_yaml(&text).unwrap();
        let bound = BTreeMap::from([("submission".to_owned(), vec!["[::]:2587".to_owned()])]);
        derive(&snapshot, &bound, Path::new("/state"))
    }

    #[test]
    fn a_published_password_is_in_the_command_and_any_other_is_not() {
        let published = hint("required", "posthouse.dev/demo-password: open-sesame").unwrap();
        assert!(published.password_is_known);
        assert!(
            published
                .command
                .contains("--insecure --ssl-reqd smtp://127.0.0.1:2587 --user bob@example.org:open-sesame ")
        );
        assert_eq!(published.arrives_in.as_deref(), Some(Path::new("/state/mail/example.org/bob/new")));
        assert!(text(&published).ends_with("the message arrives in /state/mail/example.org/bob/new\n"));
        let secret = hint("required", "").unwrap();
        assert!(!secret.password_is_known && secret.command.contains(":PASSWORD "), "{}", secret.command);
        assert!(text(&secret).contains("for PASSWORD"));
    }

    #[test]
    fn the_command_speaks_tls_as_the_listener_does() {
        assert!(hint("implicit", "").unwrap().command.contains(" smtps://127.0.0.1:2587 "));
        assert!(hint("opportunistic", "").unwrap().command.contains("--ssl-reqd smtp://"));
    }
}
