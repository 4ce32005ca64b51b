use std::sync::Arc;

use resources::snapshot::Certificate;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::tests::PATIENCE;

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An SMTP client that says what the test says.
pub(super) struct Client {
    io: BufReader<Box<dyn Io>>,
}

impl Client {
    pub(super) async fn connect(address: &str) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    pub(super) fn over(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self { io: BufReader::new(Box::new(io)) }
    }

    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        timeout(PATIENCE, self.io.write_all(bytes.as_ref())).await.unwrap().unwrap();
        self.io.flush().await.unwrap();
    }

    /// Reads one whole reply, its lines joined by LF; empty at the end of the connection.
    pub(super) async fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let mut line = String::new();
            // A reset is an end too.
            let read = timeout(PATIENCE, self.io.read_line(&mut line)).await.expect("no reply came");
            if read.unwrap_or(0) == 0 {
                return reply;
            }
            assert!(line.ends_with("\r\n"), "{line:?}");
            reply.push_str(line.trim_end());
            if line.as_bytes().get(3) != Some(&b'-') {
                return reply;
            }
            reply.push('\n');
        }
    }

    #[track_caller]
    pub(super) fn expect(&mut self, start: &str) -> impl Future<Output = String> {
        let caller = std::panic::Location::caller();
        async move {
            let reply = self.reply().await;
            assert!(reply.starts_with(start), "{caller}: expected {start:?}, got {reply:?}");
            reply
        }
    }

    #[track_caller]
    pub(super) fn command(&mut self, line: &str, start: &str) -> impl Future<Output = String> {
        let caller = std::panic::Location::caller();
        async move {
            self.send(format!("{line}\r\n")).await;
            let reply = self.reply().await;
            assert!(reply.starts_with(start), "{caller}: {line:?}: expected {start:?}, got {reply:?}");
            reply
        }
    }

    /// MAIL, RCPTs and DATA up to 354.
    pub(super) async fn begin(&mut self, recipients: &[&str]) {
        self.command("MAIL FROM:<sender@example.net>", "250").await;
        for recipient in recipients {
            self.command(&format!("RCPT TO:<{recipient}>"), "250").await;
        }
        self.command("DATA", "354").await;
    }

    /// A whole transaction; the reply to its end.
    pub(super) async fn message(&mut self, recipients: &[&str], text: &str) -> String {
        self.begin(recipients).await;
        self.send(format!("{text}\r\n.\r\n")).await;
        self.reply().await
    }

    /// The other side closes and says nothing more.
    pub(super) async fn expect_end(&mut self) {
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, self.io.read_to_end(&mut rest)).await.expect("the connection stays open");
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    }

    /// Starts TLS, trusting these certificates only.
    pub(super) async fn tls(self, trusted_pem: &[u8]) -> std::io::Result<Self> {
        self.tls_as(trusted_pem, None, rustls::DEFAULT_VERSIONS).await
    }

    /// The same with a certificate (and its key) of the client, if any, and these versions of TLS.
    pub(super) async fn tls_as(
        self,
        trusted_pem: &[u8],
        identity: Option<&Certificate>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> std::io::Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(trusted_pem) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            None => config.with_no_client_auth(),
            Some(Certificate { chain_pem, key_pem }) => {
                let chain = CertificateDer::pem_slice_iter(chain_pem).collect::<Result<_, _>>().unwrap();
                config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key_pem).unwrap()).unwrap()
            }
        };
        let name = ServerName::try_from("localhost").unwrap();
        assert!(self.io.buffer().is_empty(), "plain text before TLS");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, self.io.into_inner()).await?;
        Ok(Self::over(stream))
    }
}
