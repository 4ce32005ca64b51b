//! A server that says what the test wants, line by line.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

/// What the server does at a line.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Say(String),
    Hang,
    Close,
    /// Says 220 and makes a handshake.
    Tls,
}

pub(crate) fn say(text: &str) -> Act {
    Act::Say(format!("{text}\r\n"))
}

/// What a well-behaved server says: `""` is the greeting, `.` the end of the text.
pub(crate) fn well_behaved(line: &str) -> Act {
    match line.split(' ').next().unwrap_or_default() {
        "" => say("220 peer"),
        "EHLO" | "LHLO" => say("250-peer\r\n250-8BITMIME\r\n250 PIPELINING"),
        "DATA" => say("354 go"),
        "QUIT" => say("221 bye"),
        "STARTTLS" => Act::Tls,
        "AUTH" => say("235 2.7.0 welcome"),
        "." => say("250 2.0.0 taken"),
        _ => say("250 ok"),
    }
}

type Script = Arc<dyn Fn(usize, &str) -> Act + Send + Sync>;

pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    pub(crate) certificate_pem: Arc<[u8]>,
}

impl Peer {
    /// `script` is asked with the number of the connection (from 1) and the line.
    pub(crate) async fn start(script: impl Fn(usize, &str) -> Act + Send + Sync + 'static) -> Self {
        Self::start_tcp(script, false).await
    }

    /// The same with TLS from the first octet.
    pub(crate) async fn start_tls(script: impl Fn(usize, &str) -> Act + Send + Sync + 'static) -> Self {
        Self::start_tcp(script, true).await
    }

    async fn start_tcp(script: impl Fn(usize, &str) -> Act + Send + Sync + 'static, implicit: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (acceptor, certificate_pem) = tls();
        let peer = Self {
            address: listener.local_addr().unwrap(),
            heard: Arc::default(),
            connections: Arc::default(),
            certificate_pem,
        };
        let (heard, connections, script) = (peer.heard.clone(), peer.connections.clone(), Arc::new(script) as Script);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = connections.fetch_add(1, Ordering::SeqCst) + 1;
                let (heard, script, acceptor) = (heard.clone(), script.clone(), acceptor.clone());
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    if (implicit || serve(&mut stream, number, &script, &heard, true).await == Some(Ended::ForTls))
                        && let Ok(stream) = acceptor.accept(stream.into_inner()).await
                    {
                        heard.lock().unwrap().push("<tls>".into());
                        serve(&mut BufReader::new(stream), number, &script, &heard, implicit).await;
                    }
                });
            }
        });
        peer
    }

    /// The same on a Unix socket.
    pub(crate) async fn start_unix(
        path: &std::path::Path,
        script: impl Fn(usize, &str) -> Act + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let peer = Self {
            address: "127.0.0.1:0".parse().unwrap(),
            heard: Arc::default(),
            connections: Arc::default(),
            certificate_pem: Arc::default(),
        };
        let (heard, connections, script) = (peer.heard.clone(), peer.connections.clone(), Arc::new(script) as Script);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = connections.fetch_add(1, Ordering::SeqCst) + 1;
                let (heard, script) = (heard.clone(), script.clone());
                tokio::spawn(async move { serve(&mut BufReader::new(stream), number, &script, &heard, true).await });
            }
        });
        peer
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Every line, and every text as one.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    pub(crate) fn heard_beginning(&self, with: &str) -> usize {
        self.heard().iter().filter(|line| line.starts_with(with)).count()
    }
}

#[derive(PartialEq)]
enum Ended {
    ForTls,
}

async fn serve<S>(
    stream: &mut BufReader<S>,
    number: usize,
    script: &Script,
    heard: &Mutex<Vec<String>>,
    greets: bool,
) -> Option<Ended>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut line, mut text): (String, Option<String>) = (String::new(), None);
    let mut act = if greets { script(number, "") } else { Act::Say(String::new()) };
    loop {
        match act {
            Act::Say(reply) => {
                stream.get_mut().write_all(reply.as_bytes()).await.ok()?;
                stream.get_mut().flush().await.ok()?;
                if reply.starts_with("354") {
                    text = Some(String::new());
                }
            }
            Act::Hang => std::future::pending().await,
            Act::Close => return None,
            Act::Tls => {
                stream.get_mut().write_all(b"220 go\r\n").await.ok()?;
                return Some(Ended::ForTls);
            }
        }
        loop {
            line.clear();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            if let Some(text) = text.as_mut().filter(|_| line != ".\r\n") {
                text.push_str(&line);
                continue;
            }
            break;
        }
        let said = line.trim_end_matches("\r\n").to_owned();
        heard.lock().unwrap().push(match text.take() {
            Some(text) => format!("text: {text}"),
            None => said.clone(),
        });
        act = script(number, &said);
    }
}

fn tls() -> (TlsAcceptor, Arc<[u8]>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "mx.x.example".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), made.cert.pem().into_bytes().into())
}
