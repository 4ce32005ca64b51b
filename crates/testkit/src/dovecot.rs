//! A real Dovecot with LMTP and IMAP on an address of its own. Needs root, as Dovecot's processes change users.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{eventually, own_loopback_address};

/// uid and gid of the mailboxes: nobody's.
const MAIL_ID: u32 = 5000;
const IMAP_PORT: u16 = 14143;
const LMTP_PORT: u16 = 14024;

/// Where Dovecot finds its users.
pub enum Users<'a> {
    /// Lines of a passwd-file.
    Lines(&'a str),
    /// A passwd-file that somebody else keeps.
    File(&'a Path),
    /// A SQLite file and its queries for password and user.
    Sqlite {
        /// The file.
        path: &'a Path,
        /// As Dovecot's `password_query`.
        password_query: &'a str,
        /// As Dovecot's `user_query`.
        user_query: &'a str,
    },
}

/// A running Dovecot; ends when dropped.
pub struct Dovecot {
    folder: TempDir,
    child: Child,
    address: std::net::Ipv4Addr,
}

impl Dovecot {
    /// Starts it and waits until it takes connections.
    pub fn start(users: &Users<'_>) -> Self {
        let folder = TempDir::with_prefix("posthouse-dovecot-").expect("a temporary folder");
        let root = folder.path();
        // Its processes run under several users: they must reach what is below.
        fs::set_permissions(root, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("permissions");
        for name in ["run", "state", "mail"] {
            fs::create_dir(root.join(name)).expect("a folder");
        }
        chown(root.join("mail"), Some(MAIL_ID), Some(MAIL_ID)).expect("Dovecot wants root");
        let address = own_loopback_address();
        fs::write(root.join("dovecot.conf"), config(root, address, users)).expect("a configuration");
        let log = fs::File::create(root.join("stderr.log")).expect("a log file");
        let child = Command::new("dovecot")
            .arg("-F")
            .arg("-c")
            .arg(root.join("dovecot.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("dovecot is installed: `cargo xtask test` does it");
        let dovecot = Self { folder, child, address };
        let start = std::panic::AssertUnwindSafe(|| {
            eventually("Dovecot", || TcpStream::connect(dovecot.imap()).and(TcpStream::connect(dovecot.lmtp())).ok())
        });
        if std::panic::catch_unwind(start).is_err() {
            panic!("Dovecot did not start: {}", dovecot.log());
        }
        dovecot
    }

    /// IMAP without TLS.
    pub fn imap(&self) -> SocketAddr {
        (self.address, IMAP_PORT).into()
    }

    /// LMTP over TCP.
    pub fn lmtp(&self) -> SocketAddr {
        (self.address, LMTP_PORT).into()
    }

    /// LMTP over a Unix socket.
    pub fn lmtp_socket(&self) -> PathBuf {
        self.folder.path().join("run/lmtp")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        ["stderr.log", "dovecot.log"]
            .map(|name| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default())
            .concat()
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        // SIGTERM, so that the master ends its children.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of Dovecot\n{}", self.log());
        }
    }
}

fn config(root: &Path, address: std::net::Ipv4Addr, users: &Users<'_>) -> String {
    let root_text = root.display();
    let (passdb, userdb) = databases(root, users);
    format!(
        "base_dir = {root_text}/run
state_dir = {root_text}/state
log_path = {root_text}/dovecot.log
protocols = imap lmtp
ssl = no
disable_plaintext_auth = no
auth_username_format = %Lu
mail_location = maildir:{root_text}/mail/%d/%n
mail_uid = {MAIL_ID}
mail_gid = {MAIL_ID}
first_valid_uid = {MAIL_ID}
mail_plugins = quota
plugin {{
  quota = maildir:User quota
}}
passdb {{
{passdb}
}}
userdb {{
{userdb}
  default_fields = uid={MAIL_ID} gid={MAIL_ID} home={root_text}/mail/%u
}}
service imap-login {{
  inet_listener imap {{
    address = {address}
    port = {IMAP_PORT}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    address = {address}
    port = {LMTP_PORT}
  }}
}}
protocol lmtp {{
  postmaster_address = postmaster@example.org
}}
"
    )
}

fn databases(root: &Path, users: &Users<'_>) -> (String, String) {
    let file = match users {
        Users::Lines(lines) => {
            let path = root.join("passwd");
            fs::write(&path, lines).expect("a passwd-file");
            path
        }
        Users::File(path) => path.to_path_buf(),
        Users::Sqlite { path, password_query, user_query } => {
            let text = format!(
                "driver = sqlite\nconnect = {}\ndefault_pass_scheme = CRYPT\npassword_query = {password_query}\nuser_query = {user_query}\n",
                path.display()
            );
            let ext = root.join("sql.conf.ext");
            fs::write(&ext, text).expect("a configuration");
            let args = format!("  driver = sql\n  args = {}", ext.display());
            return (args.clone(), args);
        }
    };
    let file = file.display();
    (
        format!("  driver = passwd-file\n  args = scheme=CRYPT username_format=%u {file}"),
        format!("  driver = passwd-file\n  args = username_format=%u {file}"),
    )
}
