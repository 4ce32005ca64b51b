//! Dovecot's passwd-file: it logs the same users in.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use node::{Node, Part};
use rules::{RuleSet, User};
use types::Address;

use crate::StartError;
use crate::password::Stored;

/// A password that crypt(3) never makes: nobody logs in by it.
const NO_PASSWORD: &str = "{CRYPT}!";

/// The passwd-file of all MailUsers that are not disabled, sorted: `user:{SCHEME}hash::::::extra fields`. A login by an alias, or
/// by another name of the domain, becomes the mailbox.
pub fn dovecot_passwd_file(rules: &RuleSet) -> String {
    let mut other_names: HashMap<&str, Vec<&str>> = HashMap::new();
    for (name, of) in rules.domains.iter().filter(|(name, of)| **name != of.name) {
        other_names.entry(of.name.as_str()).or_default().push(name.as_str());
    }
    // Two MailUsers never share an address: the compiler refuses it.
    let mut lines: BTreeMap<String, &User> = BTreeMap::new();
    for (key, user) in rules.users.iter().filter(|(_, user)| !user.disabled) {
        let Some((local, domain)) = key.rsplit_once('@') else { continue };
        for other in other_names.get(domain).into_iter().flatten() {
            lines.insert(format!("{local}@{other}"), user);
        }
        lines.insert(key.clone(), user);
    }
    let mut text = String::new();
    for (login, user) in lines {
        // A colon or a line break would end the field.
        if !login.contains([':', '\n', '\r']) {
            write_line(&mut text, &login, user);
        }
    }
    text
}

fn write_line(text: &mut String, login: &str, user: &User) {
    let password = user.password.as_ref().map_or_else(|| NO_PASSWORD.to_owned(), |secret| with_scheme(secret.reveal()));
    let mut extra = Vec::new();
    let mailbox = mailbox(&user.address);
    if mailbox != login {
        extra.push(format!("user={mailbox}"));
    }
    if let Some(quota_bytes) = user.quota_bytes {
        extra.push(format!("userdb_quota_rule=*:bytes={quota_bytes}"));
    }
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{login}:{password}::::::{}", extra.join(" "));
}

fn mailbox(address: &Address) -> String {
    address.key()
}

/// Dovecot guesses no scheme: a bare `$6$` fails where the default scheme is another one.
fn with_scheme(stored: &str) -> String {
    match Stored::parse(stored) {
        Ok(Stored::Plain(plain)) => format!("{{PLAIN.b64}}{}", STANDARD.encode(plain)),
        Ok(stored) => format!("{{{}}}{}", stored.dovecot_scheme(), stored.hash()),
        // Dovecot may know a scheme that we do not; what could break the line is left out.
        Err(_) if stored.starts_with('{') && !stored.contains([':', '\n', '\r']) => stored.to_owned(),
        Err(_) => NO_PASSWORD.to_owned(),
    }
}

/// Puts the file in place in one step, readable by its owner only.
pub fn write_dovecot_passwd_file(path: &Path, rules: &RuleSet) -> std::io::Result<()> {
    let text = dovecot_passwd_file(rules);
    if std::fs::read(path).is_ok_and(|current| current == text.as_bytes()) {
        return Ok(());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = folder.join(format!(".{name}.{}.new", std::process::id()));
    let written = write_synced(&new, text.as_bytes())
        .and_then(|()| keep_owner(path, &new))
        .and_then(|()| std::fs::rename(&new, path));
    if written.is_err() {
        // What is left of it is of no use; the first error is the one to tell.
        let _ = std::fs::remove_file(&new);
    }
    written?;
    std::fs::File::open(folder)?.sync_all()
}

/// A file that is there says by its owner and mode who may read it: Dovecot's auth process runs under a user of its own.
fn keep_owner(old: &Path, new: &Path) -> std::io::Result<()> {
    let Ok(metadata) = std::fs::metadata(old) else { return Ok(()) };
    std::os::unix::fs::chown(new, Some(metadata.uid()), Some(metadata.gid()))?;
    std::fs::set_permissions(new, metadata.permissions())
}

fn write_synced(path: &Path, content: &[u8]) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Writes the file that the platform names, now and whenever the snapshot changes.
pub(crate) async fn keep_current(node: &Node) -> Result<(), StartError> {
    let mut changed = node.snapshots().watch();
    changed.mark_unchanged();
    if let Some(path) = path_of(node) {
        write_now(node, path.clone()).await.map_err(|source| StartError::DovecotPasswdFile { path, source })?;
    }
    let node = node.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = node.drain().begun() => return,
                change = changed.changed() => if change.is_err() { return },
            }
            let Some(path) = path_of(&node) else { continue };
            match write_now(&node, path).await {
                Ok(()) => node.health().set("dovecot_passwd_file", Part::Ready),
                Err(error) => {
                    tracing::error!(error = %error, "cannot write the passwd-file of dovecot");
                    let detail = format!("the passwd-file of dovecot is old: {error}");
                    node.health().set("dovecot_passwd_file", Part::Degraded(detail));
                }
            }
        }
    });
    Ok(())
}

fn path_of(node: &Node) -> Option<PathBuf> {
    let path = node.snapshots().current().platform.dovecot_passwd_file.clone()?;
    Some(node.state_dir().join(path))
}

async fn write_now(node: &Node, path: PathBuf) -> std::io::Result<()> {
    let snapshot = node.snapshots().current();
    let write = move || write_dovecot_passwd_file(&path, &snapshot.rules);
    tokio::task::spawn_blocking(write).await.map_err(std::io::Error::other)?
}
