//! A blocking SMTP and LMTP client that says exactly what the test says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

/// One dialogue.
pub struct Client {
    stream: BufReader<Box<dyn Stream>>,
}

/// A handshake that takes any certificate, for clients that are about something else.
///
/// # Errors
/// When the handshake fails or the connection ends.
pub fn tls_stream<S: Read + Write + Send>(
    mut stream: S,
) -> std::io::Result<rustls::StreamOwned<rustls::ClientConnection, S>> {
    let name = ServerName::try_from("localhost").expect("a server name");
    let mut connection = rustls::ClientConnection::new(client_config(), name).map_err(std::io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    Ok(rustls::StreamOwned::new(connection, stream))
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A reply: its code and its lines without codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// At least one.
    pub lines: Vec<String>,
}

impl Reply {
    /// All lines in one.
    pub fn text(&self) -> String {
        self.lines.join("\n")
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.code, self.text())
    }
}

const REPLY_TIMEOUT: Duration = Duration::from_secs(60);

impl Client {
    /// Connects without reading the greeting.
    pub fn connect_silently(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the listener takes connections");
        stream.set_nodelay(true).expect("no delay");
        stream.set_read_timeout(Some(REPLY_TIMEOUT)).expect("a time-out");
        Self { stream: BufReader::new(Box::new(stream)) }
    }

    /// Connects and expects 220.
    pub fn connect(address: SocketAddr) -> Self {
        let mut client = Self::connect_silently(address);
        client.expect(220);
        client
    }

    /// Connects to a Unix socket and expects 220.
    pub fn connect_unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("the socket takes connections");
        stream.set_read_timeout(Some(REPLY_TIMEOUT)).expect("a time-out");
        let mut client = Self { stream: BufReader::new(Box::new(stream)) };
        client.expect(220);
        client
    }

    /// TLS from the first byte, then expects 220.
    pub fn connect_tls(address: SocketAddr) -> Self {
        let mut client = Self::connect_silently(address).into_tls("localhost").0;
        client.expect(220);
        client
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let stream = self.stream.get_mut();
        stream.write_all(bytes.as_ref()).expect("the peer reads");
        stream.flush().expect("the peer reads");
    }

    /// Reads one reply; `None` at the end of the connection.
    pub fn read(&mut self) -> Option<Reply> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.strip_suffix("\r\n").unwrap_or_else(|| panic!("a reply line ends in CRLF: {line:?}"));
            let code = line.get(..3).and_then(|code| code.parse().ok());
            let code = code.unwrap_or_else(|| panic!("a reply line begins with a code: {line:?}"));
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Some(Reply { code, lines });
            }
        }
    }

    /// Reads one reply and checks its code.
    #[track_caller]
    pub fn expect(&mut self, code: u16) -> Reply {
        let reply = self.read().unwrap_or_else(|| panic!("the connection ended where {code} was expected"));
        assert_eq!(reply.code, code, "{reply}");
        reply
    }

    /// Sends a line and reads its reply.
    #[track_caller]
    pub fn command(&mut self, line: &str) -> Reply {
        self.send(format!("{line}\r\n"));
        self.read().unwrap_or_else(|| panic!("the connection ended after {line:?}"))
    }

    /// Sends a line and checks the code of its reply.
    #[track_caller]
    pub fn say(&mut self, line: &str, code: u16) -> Reply {
        let reply = self.command(line);
        assert_eq!(reply.code, code, "{line}: {reply}");
        reply
    }

    /// STARTTLS and the handshake; returns the certificate of the server.
    #[track_caller]
    pub fn start_tls(mut self, name: &str) -> (Self, CertificateDer<'static>) {
        self.say("STARTTLS", 220);
        self.into_tls(name)
    }

    fn into_tls(self, name: &str) -> (Self, CertificateDer<'static>) {
        assert!(self.stream.buffer().is_empty(), "nothing comes between 220 and the handshake");
        let config = client_config();
        let name = ServerName::try_from(name.to_owned()).expect("a server name");
        let mut connection = rustls::ClientConnection::new(config, name).expect("a client");
        let mut stream = self.stream.into_inner();
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).expect("the handshake succeeds");
        }
        let certificate = connection.peer_certificates().expect("a certificate")[0].clone().into_owned();
        let tls = rustls::StreamOwned::new(connection, stream);
        (Self { stream: BufReader::new(Box::new(tls)) }, certificate)
    }

    /// AUTH PLAIN with an initial response.
    #[track_caller]
    pub fn auth_plain(&mut self, user: &str, password: &str) -> Reply {
        let response = base64::engine::general_purpose::STANDARD.encode(format!("\0{user}\0{password}"));
        self.command(&format!("AUTH PLAIN {response}"))
    }

    /// MAIL, RCPT, DATA and the text (CRLF lines, not yet dot-stuffed); returns the last reply.
    #[track_caller]
    pub fn deliver(&mut self, sender: &str, recipients: &[&str], text: &str) -> Reply {
        self.say(&format!("MAIL FROM:<{sender}>"), 250);
        for recipient in recipients {
            self.say(&format!("RCPT TO:<{recipient}>"), 250);
        }
        self.data(text)
    }

    /// DATA and the text; returns the last reply.
    #[track_caller]
    pub fn data(&mut self, text: &str) -> Reply {
        self.say("DATA", 354);
        self.send(dot_stuffed(text));
        self.read().expect("a reply to the end of data")
    }
}

/// The text as it goes through DATA, with its end.
pub fn dot_stuffed(text: &str) -> String {
    let mut stuffed = text.replace("\r\n.", "\r\n..");
    if stuffed.starts_with('.') {
        stuffed.insert(0, '.');
    }
    if !stuffed.ends_with("\r\n") {
        stuffed.push_str("\r\n");
    }
    stuffed.push_str(".\r\n");
    stuffed
}

/// Base64, as AUTH wants it.
pub fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// The id in `250 2.0.0 queued as <id>`.
#[track_caller]
pub fn queued_id(reply: &Reply) -> String {
    assert_eq!(reply.code, 250, "{reply}");
    let text = reply.text();
    let id = text.strip_prefix("2.0.0 queued as ").unwrap_or_else(|| panic!("no id in {text:?}"));
    id.to_owned()
}

fn client_config() -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Arc::new(config)
}

/// The tests look at certificates themselves.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
