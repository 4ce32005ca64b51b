//! `posthouse hash-password`.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::{Args, ValueEnum};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::exit::{Code, Failure, Outcome};

/// Octets of a password: more is a file that was piped in by mistake.
const PASSWORD_MAX_BYTES: usize = 1024;

/// How a password is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scheme {
    /// What every crypt(3) and Dovecot verify
    #[value(name = "sha512-crypt")]
    Sha512Crypt,
    /// $2b$
    Bcrypt,
    /// $argon2id$
    Argon2id,
}

/// `hash-password`.
#[derive(Debug, Args)]
pub struct HashArgs {
    /// How it is hashed
    #[arg(long, value_enum, default_value = "sha512-crypt")]
    scheme: Scheme,
}

/// Reads a password from the terminal, twice, or a line of stdin, and writes its hash.
pub fn hash(args: &HashArgs, out: &mut dyn Write) -> Outcome {
    let stdin = io::stdin();
    let password = if stdin.is_terminal() {
        let first = ask("password: ")?;
        if first != ask("again: ")? {
            return Err(Failure::new(Code::Usage, "the two are not the same"));
        }
        first
    } else {
        read_line(&mut stdin.lock())?
    };
    let scheme = match args.scheme {
        Scheme::Sha512Crypt => policy::Scheme::Sha512Crypt,
        Scheme::Bcrypt => policy::Scheme::Bcrypt,
        Scheme::Argon2id => policy::Scheme::Argon2id,
    };
    writeln!(out, "{}", policy::hash_password(password.as_bytes(), scheme)?)?;
    Ok(())
}

fn ask(prompt: &str) -> Result<String, Failure> {
    let mut terminal = io::stderr();
    write!(terminal, "{prompt}")?;
    terminal.flush()?;
    let echo = EchoOff::new()?;
    let line = read_line(&mut io::stdin().lock());
    drop(echo);
    writeln!(terminal)?;
    line
}

fn read_line(input: &mut dyn BufRead) -> Result<String, Failure> {
    let mut line = String::new();
    io::Read::take(input, PASSWORD_MAX_BYTES as u64 + 2).read_line(&mut line)?;
    let password = line.strip_suffix('\n').unwrap_or(&line);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() {
        return Err(Failure::new(Code::Usage, "an empty password lets everybody in: give one"));
    }
    if password.len() > PASSWORD_MAX_BYTES {
        return Err(Failure::new(Code::Usage, format!("a password has at most {PASSWORD_MAX_BYTES} octets")));
    }
    Ok(password.to_owned())
}

/// Keeps the terminal from showing what is typed, while it lives.
struct EchoOff {
    before: Termios,
}

impl EchoOff {
    fn new() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Self { before })
    }
}

impl Drop for EchoOff {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_a_line_and_not_empty() {
        let read = |text: &str| read_line(&mut text.as_bytes()).ok();
        assert_eq!(read("secret word\r\nmore\n").as_deref(), Some("secret word"));
        assert_eq!(read(" spaces stay ").as_deref(), Some(" spaces stay "));
        assert_eq!(read("\n"), None);
        assert_eq!(read(""), None);
        assert_eq!(read(&"x".repeat(2000)), None);
    }
}
