//! Just enough IMAP to read back what was delivered.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The texts of all messages in a user's INBOX, oldest first.
///
/// # Panics
/// When the server refuses the login or does not speak IMAP.
pub fn inbox(address: SocketAddr, user: &str, password: &str) -> Vec<String> {
    let stream = TcpStream::connect(address).expect("the IMAP server takes connections");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out");
    let mut imap = Imap { input: BufReader::new(stream.try_clone().expect("a second handle")), out: stream };
    imap.line();
    imap.command(&format!("a LOGIN {user} {password}"), "a ");
    imap.command("b EXAMINE INBOX", "b ");
    let texts = imap.command("c UID FETCH 1:* (BODY.PEEK[])", "c ");
    imap.command("d LOGOUT", "d ");
    texts
}

struct Imap {
    input: BufReader<TcpStream>,
    out: TcpStream,
}

impl Imap {
    fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.input.read_line(&mut line).expect("the IMAP server answers");
        assert!(read > 0, "the IMAP server hung up");
        line
    }

    /// Sends a command, returns the literals of the answer.
    fn command(&mut self, command: &str, tag: &str) -> Vec<String> {
        write!(self.out, "{command}\r\n").expect("the IMAP server reads");
        let mut literals = Vec::new();
        loop {
            let line = self.line();
            if let Some(size) = literal_size(&line) {
                let mut literal = vec![0; size];
                self.input.read_exact(&mut literal).expect("a whole literal");
                literals.push(String::from_utf8_lossy(&literal).into_owned());
            } else if let Some(answer) = line.strip_prefix(tag) {
                assert!(answer.starts_with("OK"), "{command}: {answer}");
                return literals;
            }
        }
    }
}

fn literal_size(line: &str) -> Option<usize> {
    let (_, size) = line.trim_end().strip_suffix('}')?.rsplit_once('{')?;
    size.parse().ok()
}
