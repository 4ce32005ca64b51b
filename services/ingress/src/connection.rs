use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use node::DrainGuard;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use types::Reply;

use crate::census::{Census, Seat};
use crate::certificates::subject;
use crate::identity::identify;
use crate::panics::guarded;
use crate::shared::Shared;
use crate::shell::Shell;
use crate::socket::{Connected, Listening};
use crate::stream::{Plain, Socket, Stream};
use crate::terms::Terms;

/// How long accepting rests when the system has no file descriptors left: the sessions that run give some back.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How long a client that is not served may take to read why.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);

/// A socket's connections, one task each, until the listener closes or the node drains.
pub(crate) async fn accept(
    listening: Listening,
    terms: Arc<ArcSwap<Terms>>,
    census: Arc<Census>,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) {
    let drain = shared.node.drain().clone();
    let mut drained = std::pin::pin!(drain.begun());
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => return,
            () = &mut drained => return,
            accepted = listening.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => start(socket, peer, terms.load_full(), &census, &shared),
            // The client gave up before it was accepted: its trouble.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                metrics::counter!("posthouse_accept_errors_total").increment(1);
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

fn start(socket: Socket, peer: Connected, terms: Arc<Terms>, census: &Arc<Census>, shared: &Arc<Shared>) {
    terms.metrics.sessions_total.increment(1);
    let Some(seat) = census.admit(terms.listener.limits.sessions_max) else {
        terms.metrics.sessions_refused_total.increment(1);
        // TLS from the first byte has no words for it.
        if !terms.is_implicit_tls() {
            tokio::spawn(guarded("refusal", turn_away(socket, terms)));
        }
        return;
    };
    let guard = shared.node.drain().guard();
    let session = serve(socket, peer, terms, (seat, guard), Arc::clone(census), Arc::clone(shared));
    tokio::spawn(guarded("session", session));
}

async fn turn_away(socket: Socket, terms: Arc<Terms>) {
    let mut stream = Stream::Plain(Plain::new(socket, bytes::Bytes::new()));
    let mut out = Vec::new();
    smtp::syntax::write_reply(&too_many(), &mut out);
    // Courtesy only: a client that does not read it is closed all the same.
    let _ = timeout(REFUSAL_TIMEOUT, stream.write_all(&out)).await;
    tracing::debug!(listener = terms.listener.name, "session refused, sessionsMax reached");
}

fn too_many() -> Reply {
    Reply::enhanced(421, 4, 7, 0, "too many sessions, try again later")
}

/// A session from its first byte to its last.
async fn serve(
    socket: Socket,
    peer: Connected,
    terms: Arc<Terms>,
    _held: (Seat, DrainGuard),
    census: Arc<Census>,
    shared: Arc<Shared>,
) {
    // Boxed: what is rare or early must not make every idle session larger.
    let identified = match Box::pin(identify(socket, peer, &terms)).await {
        Ok(identified) => identified,
        Err(refusal) => return count_proxy_refusal(&terms, refusal.reason()),
    };
    let limit = terms.listener.limits.sessions_per_source_max;
    let known = identified.client.address.filter(|_| identified.client.address_known);
    let seat = known.map(|address| census.admit_source(address, limit));
    let refused = matches!(seat, Some(None));
    if refused {
        terms.metrics.sessions_refused_total.increment(1);
    }
    let mut shell = Shell::new(shared, Arc::clone(&terms), identified);
    if terms.is_implicit_tls() && (refused || !Box::pin(shell.start_tls()).await) {
        return;
    }
    if refused {
        shell.refuse(&too_many());
    } else if !Box::pin(shell.welcome()).await {
        return;
    }
    shell.run().await;
    drop(seat);
}

pub(crate) fn count_proxy_refusal(terms: &Terms, reason: &'static str) {
    let listener = terms.listener.name.clone();
    tracing::info!(listener, reason, "connection closed, PROXY header");
    metrics::counter!("posthouse_proxy_refused_total", "listener" => listener, "reason" => reason).increment(1);
}

/// What a handshake agreed on.
#[derive(Debug, Clone)]
pub(crate) struct TlsInfo {
    /// As in `TLSv1.3`.
    pub(crate) version: &'static str,
    /// The IANA name.
    pub(crate) cipher: String,
    /// Subject of the verified certificate of the client; empty: none.
    pub(crate) client_certificate: String,
}

/// Does the handshake on a socket.
pub(crate) async fn handshake(plain: Plain, terms: &Terms) -> std::io::Result<(Stream, TlsInfo)> {
    let config = terms.tls.clone().ok_or(std::io::ErrorKind::Unsupported)?;
    let accepting = TlsAcceptor::from(config).accept(plain);
    let stream = timeout(terms.listener.limits.handshake_timeout, accepting).await??;
    let (_, connection) = stream.get_ref();
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLS",
    };
    let suite = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
    let leaf = connection.peer_certificates().and_then(|chain| chain.first());
    let info = TlsInfo {
        version,
        // The library marks TLS 1.3 suites; the IANA registry does not.
        cipher: suite.unwrap_or("unknown").replace("TLS13_", "TLS_"),
        client_certificate: leaf.and_then(|leaf| subject(leaf)).unwrap_or_default(),
    };
    Ok((Stream::Tls(Box::new(stream)), info))
}
