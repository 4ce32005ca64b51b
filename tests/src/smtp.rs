//! The client's side of a dialogue that may end at any octet.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a client waits for a reply: a platform that takes longer has failed the test.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What a dialogue goes over.
pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// An open connection.
pub struct Dialogue {
    stream: BufReader<Box<dyn Stream>>,
}

/// Code and text of the last line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// Without the code.
    pub text: String,
}

impl Reply {
    /// 2xx or 3xx.
    pub fn is_positive(&self) -> bool {
        self.code < 400
    }
}

impl Dialogue {
    /// Connects; the greeting is not read.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
        stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
        Ok(Self { stream: BufReader::new(Box::new(stream)) })
    }

    /// STARTTLS and the handshake, whatever the certificate.
    pub fn start_tls(mut self) -> io::Result<Self> {
        let reply = self.say("STARTTLS")?;
        if reply.code != 220 {
            return Err(io::Error::other(format!("STARTTLS: {} {}", reply.code, reply.text)));
        }
        let stream = testkit::smtp::tls_stream(self.stream.into_inner())?;
        Ok(Self { stream: BufReader::new(Box::new(stream)) })
    }

    /// Sends octets.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(bytes)?;
        stream.flush()
    }

    /// Sends a line and reads its reply.
    pub fn say(&mut self, line: &str) -> io::Result<Reply> {
        self.send(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    /// Reads a reply; its end before the last line is an error.
    pub fn reply(&mut self) -> io::Result<Reply> {
        loop {
            let mut line = Vec::new();
            if self.stream.read_until(b'\n', &mut line)? == 0 || !line.ends_with(b"\r\n") {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = String::from_utf8_lossy(&line);
            let code = line.get(..3).and_then(|code| code.parse().ok());
            let code = code.ok_or_else(|| io::Error::other(format!("no reply: {line:?}")))?;
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(Reply { code, text: line.get(4..).unwrap_or_default().trim_end().to_owned() });
            }
        }
    }
}

/// A text as it goes through DATA, with its end.
pub fn dot_stuffed(text: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(text.len() + text.len() / 64 + 8);
    let mut begins = true;
    for byte in text {
        if begins && *byte == b'.' {
            stuffed.push(b'.');
        }
        stuffed.push(*byte);
        begins = *byte == b'\n';
    }
    if !begins {
        stuffed.extend_from_slice(b"\r\n");
    }
    stuffed.extend_from_slice(b".\r\n");
    stuffed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_at_the_beginning_of_lines_are_doubled() {
        assert_eq!(dot_stuffed(b".a\r\nb.\r\n..\r\n"), b"..a\r\nb.\r\n...\r\n.\r\n");
        assert_eq!(dot_stuffed(b"a"), b"a\r\n.\r\n");
    }
}
