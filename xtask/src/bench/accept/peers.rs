//! The two servers, each in a folder of its own, both sending everything to the sink.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::group::Group;
use super::{free_port, greets, wait_until};

const START_TIMEOUT: Duration = Duration::from_secs(30);
const END_TIMEOUT: Duration = Duration::from_secs(30);
const SITE: &str = include_str!("site.yaml");
/// What Debian's package brings; the copy in /etc may have been changed.
const MASTER_CF: &str = "/usr/share/postfix/master.cf.dist";
const LOG_TAIL_LINES: usize = 15;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Who {
    Posthouse,
    Postfix,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Posthouse => "Posthouse",
            Self::Postfix => "Postfix",
        })
    }
}

/// A server that is set up and can be started again and again.
pub struct Server {
    pub who: Who,
    pub port: u16,
    folder: PathBuf,
    program: Vec<String>,
}

/// A server that runs.
pub struct Running {
    pub group: Group,
    pub log: PathBuf,
    child: Child,
    /// The process that is asked to end: the server, not what traces it.
    traced: bool,
}

impl Server {
    /// Posthouse with the site that relays to the sink.
    pub fn posthouse(binary: &Path, folder: &Path, sink_port: u16) -> Result<Self> {
        let port = free_port()?;
        let site = folder.join("site");
        fs::create_dir_all(&site)?;
        let text = SITE.replace("@PORT@", &port.to_string()).replace("@SINK@", &sink_port.to_string());
        fs::write(site.join("site.yaml"), text)?;
        let state = folder.join("state");
        let program =
            [binary, Path::new("run"), &site, Path::new("--state"), &state].map(|part| part.display().to_string());
        Ok(Self { who: Who::Posthouse, port, folder: folder.to_owned(), program: program.into() })
    }

    /// Debian's Postfix as an instance of its own.
    pub fn postfix(folder: &Path, sink_port: u16) -> Result<Self> {
        let port = free_port()?;
        let etc = folder.join("etc");
        fs::create_dir_all(&etc)?;
        fs::create_dir_all(folder.join("queue"))?;
        fs::create_dir_all(folder.join("data"))?;
        fs::write(etc.join("main.cf"), main_cf(folder, sink_port))?;
        let master = fs::read_to_string(MASTER_CF).with_context(|| format!("cannot read {MASTER_CF}"))?;
        fs::write(etc.join("master.cf"), master_cf(&master, port)?)?;
        let data = folder.join("data");
        let chown = Command::new("chown").arg("postfix").arg(&data).output().context("cannot run chown")?;
        if !chown.status.success() {
            bail!("chown: {}", String::from_utf8_lossy(&chown.stderr));
        }
        // Makes the folders of the queue.
        let check = Command::new("postfix").arg("-c").arg(&etc).arg("check").output().context("cannot run postfix")?;
        if !check.status.success() {
            bail!("postfix check: {}{}", String::from_utf8_lossy(&check.stderr), tail(&folder.join("log")));
        }
        let daemons = setting(&etc, "daemon_directory")?;
        let program = vec![format!("{daemons}/master"), "-c".to_owned(), etc.display().to_string(), "-s".to_owned()];
        Ok(Self { who: Who::Postfix, port, folder: folder.to_owned(), program })
    }

    /// Starts it and waits for its greeting. `tracer` is put in front of the command.
    pub fn start(&self, tracer: &[&str]) -> Result<Running> {
        let group = Group::new(&self.who.to_string().to_lowercase());
        let output = self.folder.join("output");
        let log = match self.who {
            Who::Posthouse => output.clone(),
            Who::Postfix => self.folder.join("log"),
        };
        let program: Vec<&str> = tracer.iter().copied().chain(self.program.iter().map(String::as_str)).collect();
        let file = File::create(&output)?;
        let errors = file.try_clone()?;
        let child = group.spawn(&program, |command| {
            command.stdin(Stdio::null()).stdout(file).stderr(errors);
            // A variable of the developer's must not change what is measured.
            command.env_remove("POSTHOUSE_LOG").env_remove("MAIL_CONFIG");
        })?;
        let mut running = Running { group, log, child, traced: !tracer.is_empty() };
        let mut ended = false;
        let greeted = wait_until(START_TIMEOUT, || {
            ended = running.child.try_wait().is_ok_and(|status| status.is_some());
            ended || greets(self.port)
        });
        if ended || !greeted {
            bail!("{} does not answer on port {}:\n{}{}", self.who, self.port, tail(&output), tail(&running.log));
        }
        Ok(running)
    }
}

impl Running {
    /// Ends it and waits for that, so that the next one has the machine.
    pub fn stop(mut self) -> Result<()> {
        let server = if self.traced { first_child(self.child.id()) } else { Some(self.child.id()) };
        if let Some(pid) = server {
            Group::signal(pid, "-TERM");
        }
        let child = &mut self.child;
        if !wait_until(END_TIMEOUT, || child.try_wait().is_ok_and(|status| status.is_some())) {
            bail!("the server did not end within {END_TIMEOUT:?}:\n{}", tail(&self.log));
        }
        self.group.end();
        Ok(())
    }

    /// The end of its log, for an error.
    pub fn last_words(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The group ends what is left; this only takes its status.
        self.group.end();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn first_child(parent: u32) -> Option<u32> {
    super::group::parents().into_iter().find(|(_, of)| *of == parent).map(|(pid, _)| pid)
}

/// Debian's `main.cf` (`/usr/share/postfix/main.cf.debian` and what its installation adds for an Internet site), then
/// what sends everything to the sink without DNS, TLS or local delivery.
fn main_cf(folder: &Path, sink_port: u16) -> String {
    let folder = folder.display();
    format!(
        "# Debian's\n\
         smtpd_banner = $myhostname ESMTP $mail_name (Debian/GNU)\n\
         biff = no\n\
         append_dot_mydomain = no\n\
         readme_directory = no\n\
         compatibility_level = 3.6\n\
         smtpd_relay_restrictions = permit_mynetworks permit_sasl_authenticated defer_unauth_destination\n\
         mynetworks = 127.0.0.0/8\n\
         mailbox_size_limit = 0\n\
         recipient_delimiter = +\n\
         # this instance\n\
         queue_directory = {folder}/queue\n\
         data_directory = {folder}/data\n\
         maillog_file = {folder}/log\n\
         maillog_file_prefixes = {folder}\n\
         myhostname = mx.example.org\n\
         inet_interfaces = 127.0.0.1\n\
         inet_protocols = ipv4\n\
         # everything to the sink\n\
         mydestination =\n\
         local_recipient_maps =\n\
         alias_maps =\n\
         alias_database =\n\
         relayhost = [127.0.0.1]:{sink_port}\n\
         # no DNS, no TLS\n\
         disable_dns_lookups = yes\n\
         smtp_host_lookup = native\n\
         smtpd_peername_lookup = no\n\
         smtpd_tls_security_level = none\n\
         smtp_tls_security_level = none\n"
    )
}

/// Debian's `master.cf`, listening on our port, without chroot (its folder would need copies of half of /etc).
fn master_cf(debian: &str, port: u16) -> Result<String> {
    let mut lines = Vec::new();
    let mut listens = false;
    for line in debian.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        if line.starts_with([' ', '\t', '#']) || fields.len() < 8 {
            lines.push(line.to_owned());
            continue;
        }
        let mut fields = fields;
        fields[4] = "n";
        let name = format!("127.0.0.1:{port}");
        if fields[0] == "smtp" && fields[1] == "inet" {
            fields[0] = &name;
            listens = true;
        }
        lines.push(fields.join(" "));
    }
    if !listens {
        bail!("{MASTER_CF} has no line that listens for SMTP");
    }
    Ok(lines.join("\n") + "\n")
}

/// One setting of Postfix.
pub fn setting(etc: &Path, name: &str) -> Result<String> {
    let output =
        Command::new("postconf").arg("-c").arg(etc).args(["-h", name]).output().context("cannot run postconf")?;
    if !output.status.success() {
        bail!("postconf {name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn tail(file: &Path) -> String {
    let bytes = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
    last.iter().map(|line| format!("  {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postfix_listens_on_our_port_only_and_outside_a_chroot() {
        let debian = "# service type  private unpriv  chroot\n\
                      smtp      inet  n       -       y       -       -       smtpd\n\
                      #submission inet n       -       y       -       -       smtpd\n\
                      #  -o syslog_name=postfix/submission\n\
                      smtp      unix  -       -       y       -       -       smtp\n\
                      relay     unix  -       -       y       -       -       smtp\n        -o syslog_name=postfix/$service_name\n";
        let ours = master_cf(debian, 2525).unwrap();
        assert!(ours.contains("\n127.0.0.1:2525 inet n - n - - smtpd\n"), "{ours}");
        assert!(ours.contains("\nsmtp unix - - n - - smtp\n"), "{ours}");
        assert!(ours.contains("\n        -o syslog_name=postfix/$service_name\n"), "{ours}");
        assert_eq!(ours.matches(" inet ").count(), 2, "one line and one comment: {ours}");
    }

    #[test]
    fn a_master_cf_without_a_listener_is_refused() {
        assert!(master_cf("pickup unix n - y 60 1 pickup\n", 1).is_err());
    }

    #[test]
    fn the_site_names_both_ports_once() {
        assert_eq!(SITE.matches("@PORT@").count(), 1);
        assert_eq!(SITE.matches("@SINK@").count(), 1);
    }
}
