//! `posthouse sendmail`, and the binary under the name `sendmail`: mail from cron and programs, over a Unix socket.

mod args;
mod dialogue;
mod text;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

pub use args::SendmailArgs;
use dialogue::{Envelope, Refusal};

use crate::exit::{Code, Failure, Outcome};

/// Octets of a message on stdin. The platform's own limit is lower by default (50 MiB).
const INPUT_MAX_BYTES: u64 = 256 << 20;
/// The platform answers an end of data within this, or not at all.
const REPLY_TIMEOUT: Duration = Duration::from_secs(330);

/// Reads a message from stdin and submits it.
pub fn main(arguments: Vec<OsString>) -> Outcome {
    let args = args::parse(arguments).map_err(|text| Failure::new(Code::Usage, text))?;
    let mut input = Vec::new();
    io::stdin().lock().take(INPUT_MAX_BYTES + 1).read_to_end(&mut input)?;
    if input.len() as u64 > INPUT_MAX_BYTES {
        return Err(Failure::new(Code::Data, format!("the message is larger than {} MiB", INPUT_MAX_BYTES >> 20)));
    }
    let (stream, socket) = connect(&args)?;
    stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
    stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
    let mut dialogue = dialogue::Dialogue::begin(stream)
        .map_err(|refusal| failure(&refusal, &format!("{} does not answer as it should", socket.display())))?;
    let user = user_name();
    let options = text::Options {
        dot_ends: !args.ignore_dots,
        recipients_of_header: args.recipients_of_header,
        full_name: args.full_name.as_deref(),
        from: &qualified(args.sender.as_deref().unwrap_or(&user), dialogue.hostname()),
    };
    let prepared = text::prepare(&input, &options).map_err(|text| Failure::new(Code::Data, text))?;
    let mut recipients = Vec::new();
    for recipient in args.recipients.iter().chain(&prepared.recipients) {
        let recipient = qualified(recipient, dialogue.hostname());
        if !recipients.contains(&recipient) {
            recipients.push(recipient);
        }
    }
    if recipients.is_empty() {
        return Err(Failure::new(Code::Usage, "no recipient: name one, or give -t and a To, Cc or Bcc field"));
    }
    let envelope = Envelope {
        // `-f ""` and `-f <>` are the null reverse-path.
        sender: match args.sender.as_deref() {
            Some("" | "<>") => String::new(),
            _ => options.from.to_owned(),
        },
        recipients,
        notify: args.notify,
        dsn_return: args.dsn_return,
        envid: args.envid,
    };
    let refused = dialogue.submit(&envelope, &prepared.message).map_err(|refusal| failure(&refusal, "not taken"))?;
    match refused.first() {
        None => Ok(()),
        Some(_) => {
            let list: Vec<String> = refused.iter().map(|(who, why)| format!("{who}: {why}")).collect();
            Err(Failure::new(Code::NoUser, format!("refused, the others were taken: {}", list.join("; "))))
        }
    }
}

fn connect(args: &SendmailArgs) -> Result<(UnixStream, PathBuf), Failure> {
    let candidates = match &args.state {
        Some(state) => vec![state.clone()],
        None => node::sendmail_state_dirs(),
    };
    let mut last = None;
    for socket in candidates.iter().map(|state| state.join("run").join("sendmail.sock")) {
        match UnixStream::connect(&socket) {
            Ok(stream) => return Ok((stream, socket)),
            Err(error) => last = Some((socket, error)),
        }
    }
    let text = match last {
        Some((socket, error)) => format!("{}: {error}: is the platform running?", socket.display()),
        None => "no state folder of a platform was found: name it with --state DIR".to_owned(),
    };
    Err(Failure::new(Code::TemporaryFailure, text))
}

fn failure(refusal: &Refusal, what: &str) -> Failure {
    let code = match refusal {
        Refusal::Later(_) | Refusal::Broken(_) => Code::TemporaryFailure,
        Refusal::Recipients(_) => Code::NoUser,
        Refusal::Never(_) => Code::Unavailable,
    };
    Failure::new(code, format!("{what}: {refusal}"))
}

/// The name of the user that we are; the number where it has none.
fn user_name() -> String {
    let uid = rustix::process::getuid().as_raw().to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    name.unwrap_or(uid)
}

/// A name without domain is one of this host.
fn qualified(address: &str, hostname: &str) -> String {
    let address = address.trim().trim_start_matches('<').trim_end_matches('>');
    if address.is_empty() || address.contains('@') { address.to_owned() } else { format!("{address}@{hostname}") }
}

/// Says on stderr why it failed, as programs and cron expect of sendmail.
pub fn report(failure: &Failure) {
    let _ = writeln!(io::stderr(), "sendmail: {}", crate::exit::text(failure));
}
