//! A session over a socket: the shell around `smtp::client::Session`.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use node::Clock;
use rustls::pki_types::ServerName;
use smtp::client::{ClientConfig, Session, Stage, Step, Trouble};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Wait for a connection.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Wait for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// Text is written in pieces of at least this size.
const WRITE_OCTETS: usize = 64 * 1024;
/// Room for replies.
const READ_OCTETS: usize = 4096;
/// After a write failed: wait for the reply that may explain it.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);
/// Wait for the reply to QUIT.
const QUIT_TIMEOUT: Duration = Duration::from_secs(5);

/// TLS to a peer of this name.
#[derive(Clone)]
pub(crate) struct TlsTo {
    pub(crate) config: Arc<rustls::ClientConfig>,
    pub(crate) name: ServerName<'static>,
}

/// An open session with a peer.
pub(crate) struct Connection {
    stream: Stream,
    pub(crate) session: Session,
    input: BytesMut,
    out: Vec<u8>,
    clock: Clock,
    tls: Option<TlsTo>,
    /// A write failed: nothing more is written.
    broken: bool,
    /// Host and address, for results and logs.
    pub(crate) remote: String,
    /// Messages that went this way.
    pub(crate) messages: usize,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
    Gone,
}

/// Why there is no session.
#[derive(Debug)]
pub(crate) struct OpenFault {
    pub(crate) trouble: Trouble,
    /// The handshake failed: where TLS is opportunistic, the clear may be tried.
    pub(crate) in_handshake: bool,
}

impl From<Trouble> for OpenFault {
    fn from(trouble: Trouble) -> Self {
        Self { trouble, in_handshake: false }
    }
}

impl Connection {
    /// Connects by TCP and opens the session, up to the point where a transaction may begin. `implicit`: TLS from the first octet.
    pub(crate) async fn tcp(
        address: SocketAddr,
        host: &str,
        config: Arc<ClientConfig>,
        tls: Option<TlsTo>,
        clock: &Clock,
        limit: Instant,
    ) -> Result<Self, OpenFault> {
        let remote = remote_name(host, address);
        let wait = CONNECT_TIMEOUT.min(limit.saturating_duration_since(clock.instant()));
        let stream = match timeout(wait, TcpStream::connect(address)).await {
            Err(_) => return Err(connect_fault("timed out").into()),
            Ok(Err(error)) => return Err(connect_fault(&error.to_string()).into()),
            Ok(Ok(stream)) => stream,
        };
        // Without it every message waits for a delayed acknowledgement. A socket that is gone says so when it is read.
        let _ = stream.set_nodelay(true);
        let implicit = config.tls == smtp::client::TlsUse::Active;
        let mut connection = Self::new(Stream::Tcp(stream), config, tls, clock, remote);
        if implicit {
            connection.handshake(limit).await?;
        }
        connection.open(limit).await
    }

    /// The same over a Unix socket.
    pub(crate) async fn unix(
        path: &Path,
        config: Arc<ClientConfig>,
        clock: &Clock,
        limit: Instant,
    ) -> Result<Self, OpenFault> {
        let stream = match timeout(CONNECT_TIMEOUT, UnixStream::connect(path)).await {
            Err(_) => return Err(connect_fault("timed out").into()),
            Ok(Err(error)) => return Err(connect_fault(&error.to_string()).into()),
            Ok(Ok(stream)) => stream,
        };
        let remote = path.display().to_string();
        Self::new(Stream::Unix(stream), config, None, clock, remote).open(limit).await
    }

    fn new(stream: Stream, config: Arc<ClientConfig>, tls: Option<TlsTo>, clock: &Clock, remote: String) -> Self {
        Self {
            stream,
            session: Session::new(config, clock.instant()),
            input: BytesMut::with_capacity(READ_OCTETS),
            out: Vec::new(),
            clock: clock.clone(),
            tls,
            broken: false,
            remote,
            messages: 0,
        }
    }

    async fn open(mut self, limit: Instant) -> Result<Self, OpenFault> {
        loop {
            match self.next(limit).await {
                Step::Ready => return Ok(self),
                Step::StartTls => {
                    self.handshake(limit).await?;
                    let now = self.clock.instant();
                    self.session.tls_started(&mut self.input, &mut self.out, now);
                }
                Step::Close(trouble) => return Err(trouble.into()),
                step => {
                    let text = format!("session is in disorder: {step:?}");
                    return Err(Trouble::Shell { code: (5, 0), text }.into());
                }
            }
        }
    }

    async fn handshake(&mut self, limit: Instant) -> Result<(), OpenFault> {
        let fault = |text: String| OpenFault {
            trouble: Trouble::Shell { code: (7, 5), text: format!("TLS handshake failed: {text}") },
            in_handshake: true,
        };
        let Some(tls) = self.tls.clone() else { return Err(fault("no configuration".into())) };
        let Stream::Tcp(stream) = std::mem::replace(&mut self.stream, Stream::Gone) else {
            return Err(fault("not a TCP connection".into()));
        };
        let wait = HANDSHAKE_TIMEOUT.min(limit.saturating_duration_since(self.clock.instant()));
        match timeout(wait, TlsConnector::from(tls.config).connect(tls.name, stream)).await {
            Err(_) => Err(fault("timed out".into())),
            Ok(Err(error)) => Err(fault(error.to_string())),
            Ok(Ok(stream)) => {
                self.stream = Stream::Tls(Box::new(stream));
                Ok(())
            }
        }
    }

    /// Advances the session, reading and writing as it asks for, until something else is to be done.
    pub(crate) async fn next(&mut self, limit: Instant) -> Step {
        loop {
            let step = self.session.advance(&mut self.input, &mut self.out, self.clock.instant());
            match step {
                Step::Read => {
                    self.flush(limit).await;
                    if let Err(trouble) = self.read(limit).await {
                        return Step::Close(trouble);
                    }
                }
                Step::SendText if self.broken => {
                    if let Err(trouble) = self.read(limit).await {
                        return Step::Close(trouble);
                    }
                }
                step => return step,
            }
        }
    }

    pub(crate) fn begin(&mut self, envelope: smtp::client::Envelope) {
        self.messages += 1;
        self.session.begin(envelope, &mut self.out, self.clock.instant());
    }

    /// Text on its way; it is written when there is enough of it, and with the end. False: the peer takes no more.
    pub(crate) async fn text(&mut self, text: &[u8], limit: Instant) -> bool {
        self.session.text(text, &mut self.out, self.clock.instant());
        if self.out.len() >= WRITE_OCTETS {
            self.flush(limit).await;
        }
        !self.broken
    }

    /// The text is whole.
    pub(crate) fn finish(&mut self) {
        self.session.finish(&mut self.out, self.clock.instant());
    }

    /// Whether the peer has neither closed nor said anything since the last transaction, as far as it can be told
    /// without waiting.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut octet = [0];
        let read = match &self.stream {
            Stream::Tcp(stream) => stream.try_read(&mut octet),
            Stream::Tls(stream) => stream.get_ref().0.try_read(&mut octet),
            Stream::Unix(stream) => stream.try_read(&mut octet),
            Stream::Gone => return false,
        };
        self.input.is_empty() && matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Gives back memory that a large text took.
    pub(crate) fn rest(&mut self) {
        self.out.shrink_to(READ_OCTETS);
    }

    /// Ends the session in good manners.
    pub(crate) async fn quit(mut self) {
        self.session.quit(&mut self.out);
        let limit = self.clock.instant() + QUIT_TIMEOUT;
        self.flush(limit).await;
        if !self.broken {
            let _ = timeout(QUIT_TIMEOUT, self.fill()).await;
        }
    }

    fn patience(&self, limit: Instant) -> Duration {
        self.session.deadline().min(limit).saturating_duration_since(self.clock.instant())
    }

    async fn read(&mut self, limit: Instant) -> Result<(), Trouble> {
        let stage = self.session.stage();
        let wait = if self.broken { LAST_WORDS_TIMEOUT } else { self.patience(limit) };
        match timeout(wait, self.fill()).await {
            Err(_) if self.broken => Err(Trouble::Lost(stage)),
            Err(_) => Err(Trouble::TimedOut(stage)),
            Ok(Ok(0) | Err(_)) => Err(Trouble::Lost(stage)),
            Ok(Ok(_)) => Ok(()),
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.input.reserve(READ_OCTETS);
        match &mut self.stream {
            Stream::Tcp(stream) => stream.read_buf(&mut self.input).await,
            Stream::Unix(stream) => stream.read_buf(&mut self.input).await,
            Stream::Tls(stream) => stream.read_buf(&mut self.input).await,
            Stream::Gone => Ok(0),
        }
    }

    /// Writes what waits, in one go. A failure is remembered: the peer may have said why before it closed.
    async fn flush(&mut self, limit: Instant) {
        if self.out.is_empty() || self.broken {
            self.out.clear();
            return;
        }
        let wait = self.patience(limit);
        let written = timeout(wait, async {
            match &mut self.stream {
                Stream::Tcp(stream) => stream.write_all(&self.out).await,
                Stream::Unix(stream) => stream.write_all(&self.out).await,
                Stream::Tls(stream) => {
                    stream.write_all(&self.out).await?;
                    stream.flush().await
                }
                Stream::Gone => Err(io::ErrorKind::NotConnected.into()),
            }
        });
        self.broken = !matches!(written.await, Ok(Ok(())));
        self.out.clear();
    }
}

fn connect_fault(text: &str) -> Trouble {
    Trouble::Shell { code: (4, 1), text: format!("no connection: {text}") }
}

/// `mx.example.org [192.0.2.1]:25`
fn remote_name(host: &str, address: SocketAddr) -> String {
    if host.parse::<std::net::IpAddr>().is_ok() {
        return format!("[{}]:{}", address.ip(), address.port());
    }
    format!("{host} [{}]:{}", address.ip(), address.port())
}

/// The session could not be lost at a better place: before anything was sent.
pub(crate) fn is_before_anything(trouble: &Trouble) -> bool {
    matches!(trouble, Trouble::Lost(Stage::Mail | Stage::Idle) | Trouble::Ended(_))
}
