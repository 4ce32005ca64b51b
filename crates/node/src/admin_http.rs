//! The administrator's port: metrics and probes, nothing that changes anything.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, Sleep, sleep};

use crate::{Node, Part, telemetry};

/// Connections at a time: a scraper or two, the probes of a kubelet, a person. More wait.
const CONNECTIONS_MAX: usize = 32;
/// A connection on which nothing is read for so long is closed: longer than usual scrape intervals.
const IDLE_MAX: Duration = Duration::from_secs(90);
/// Pause after accept(2) failed, so that running out of file descriptors does not burn the CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The administrator's port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// bind(2) or listen(2).
    #[error("the admin port {address} cannot be opened (change spec.admin of the MailPlatform): {cause}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        cause: io::Error,
    },
    /// The file that says where the port is.
    #[error("{path} cannot be written: {cause}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

/// Opens the port of the snapshot and follows it when it changes. Gives the address in use; the same is written to
/// `run/admin.json` in the state folder, for a port that the system chose.
pub async fn start(node: &Node, metrics: PrometheusHandle) -> Result<Option<SocketAddr>, AdminError> {
    let mut changed = node.snapshots().watch();
    let wanted = node.snapshots().current().platform.admin;
    let mut open = match wanted {
        Some(address) => Some(Open::bind(node, &metrics, address).await?),
        None => None,
    };
    write_address(node, open.as_ref())?;
    let address = open.as_ref().map(|open| open.address);
    let node = node.clone();
    tokio::spawn(async move {
        let mut bound = wanted;
        while changed.changed().await.is_ok() {
            let wanted = node.snapshots().current().platform.admin;
            if wanted == bound {
                continue;
            }
            match rebind(&node, &metrics, wanted, &mut open).await {
                Ok(()) => {
                    bound = wanted;
                    node.health().set("admin", Part::Ready);
                }
                Err(error) => {
                    tracing::error!(%error, "the old admin port stays");
                    node.health().set("admin", Part::Degraded(error.to_string()));
                }
            }
        }
    });
    Ok(address)
}

async fn rebind(
    node: &Node,
    metrics: &PrometheusHandle,
    wanted: Option<SocketAddr>,
    open: &mut Option<Open>,
) -> Result<(), AdminError> {
    let next = match wanted {
        Some(address) => Some(Open::bind(node, metrics, address).await?),
        None => None,
    };
    *open = next;
    write_address(node, open.as_ref())
}

fn write_address(node: &Node, open: Option<&Open>) -> Result<(), AdminError> {
    let path = node.state_dir().join("run").join("admin.json");
    let text = match open {
        Some(open) => format!("{{\"address\": \"{}\"}}\n", open.address),
        None => "{\"address\": null}\n".to_owned(),
    };
    let written = std::fs::create_dir_all(node.state_dir().join("run"))
        .and_then(|()| std::fs::write(path.with_extension("json.new"), text))
        .and_then(|()| std::fs::rename(path.with_extension("json.new"), &path));
    written.map_err(|cause| AdminError::File { path, cause })
}

/// A port that is open; dropping it closes it.
struct Open {
    address: SocketAddr,
    _close: oneshot::Sender<()>,
}

impl Open {
    async fn bind(node: &Node, metrics: &PrometheusHandle, address: SocketAddr) -> Result<Self, AdminError> {
        let failed = |cause| AdminError::Bind { address, cause };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let bounded = Bounded { listener, permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)) };
        let (close, closed) = oneshot::channel::<()>();
        let app = app(node.clone(), metrics.clone());
        tokio::spawn(async move {
            let served = axum::serve(bounded, app).with_graceful_shutdown(async {
                let _ = closed.await;
            });
            if let Err(error) = served.await {
                tracing::error!(%error, "the admin port has failed");
            }
        });
        tracing::info!(%address, "admin port is open");
        Ok(Self { address, _close: close })
    }
}

fn app(node: Node, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz).with_state(node))
        .route("/metrics", get(scrape).with_state(metrics))
}

async fn scrape(State(metrics): State<PrometheusHandle>) -> Response {
    telemetry::measure_process();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render()).into_response()
}

/// The body of `/readyz`.
#[derive(Serialize)]
struct Readiness {
    ready: bool,
    version: String,
    parts: Vec<PartState>,
}

#[derive(Serialize)]
struct PartState {
    name: &'static str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

async fn readyz(State(node): State<Node>) -> Response {
    let readiness = Readiness {
        ready: node.health().is_ready(),
        version: node.snapshots().current().version.clone(),
        parts: node.health().parts().into_iter().map(part_state).collect(),
    };
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::to_string(&readiness).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, "application/json")], body + "\n").into_response()
}

fn part_state((name, part): (&'static str, Part)) -> PartState {
    let (state, reason) = match part {
        Part::Ready => ("ready", None),
        Part::Degraded(reason) => ("degraded", Some(reason)),
        Part::NotReady(reason) => ("not_ready", Some(reason)),
    };
    PartState { name, state, reason }
}

/// Takes a bounded number of connections.
struct Bounded {
    listener: TcpListener,
    permits: Arc<Semaphore>,
}

impl axum::serve::Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            // The semaphore is never closed; should it be, nothing is taken rather than too much.
            let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else {
                std::future::pending::<()>().await;
                continue;
            };
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    return (Connection { stream, idle: Box::pin(sleep(IDLE_MAX)), _permit: permit }, peer);
                }
                Err(error) => {
                    tracing::debug!(%error, "the admin port cannot take a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that does not idle for ever.
struct Connection {
    stream: TcpStream,
    idle: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buf) {
            self.idle.as_mut().reset(Instant::now() + IDLE_MAX);
            return Poll::Ready(read);
        }
        ready!(self.idle.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::testing::snapshot;
    use crate::{Clock, Snapshots};

    fn node(dir: &std::path::Path) -> Node {
        Node::new(Snapshots::new(snapshot("7")), dir.to_owned(), Clock::system())
    }

    fn handle() -> PrometheusHandle {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || metrics::counter!("posthouse_test_total").increment(5));
        recorder.handle()
    }

    async fn ask(address: SocketAddr, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn probes_and_metrics_are_read_and_nothing_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let node = node(dir.path());
        let address = start(&node, handle()).await.unwrap().unwrap();
        let cases = [
            ("GET", "/livez", "HTTP/1.1 200 ", "ok\n"),
            ("HEAD", "/livez", "HTTP/1.1 200 ", ""),
            ("GET", "/metrics", "HTTP/1.1 200 ", "posthouse_test_total 5"),
            ("GET", "/readyz", "HTTP/1.1 200 ", "\"ready\":true"),
            ("GET", "/", "HTTP/1.1 404 ", ""),
            ("POST", "/metrics", "HTTP/1.1 405 ", ""),
            ("DELETE", "/readyz", "HTTP/1.1 405 ", ""),
        ];
        for (method, path, status, text) in cases {
            let answer = ask(address, method, path).await;
            assert!(answer.starts_with(status) && answer.contains(text), "{method} {path}: {answer}");
        }
        let written = std::fs::read_to_string(dir.path().join("run/admin.json")).unwrap();
        assert_eq!(written, format!("{{\"address\": \"{address}\"}}\n"));
    }

    #[tokio::test]
    async fn readiness_tells_its_reasons_and_a_degraded_part_stays_ready() {
        let dir = tempfile::tempdir().unwrap();
        let node = node(dir.path());
        let address = start(&node, handle()).await.unwrap().unwrap();
        node.health().set("configuration", Part::Degraded("2 faults".to_owned()));
        let answer = ask(address, "GET", "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains(r#"{"name":"configuration","state":"degraded","reason":"2 faults"}"#), "{answer}");
        node.health().set("queue", Part::NotReady("the disk is full".to_owned()));
        let answer = ask(address, "GET", "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains(r#""ready":false,"version":"7""#) && answer.contains("the disk is full"), "{answer}");
    }

    #[tokio::test]
    async fn the_port_follows_the_snapshot_and_an_impossible_one_leaves_the_old() {
        let dir = tempfile::tempdir().unwrap();
        let node = node(dir.path());
        let first = start(&node, handle()).await.unwrap().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut next = snapshot("8");
        next.platform.admin = Some(taken.local_addr().unwrap());
        node.snapshots().replace(next);
        while !matches!(node.health().parts().get("admin"), Some(Part::Degraded(_))) {
            tokio::task::yield_now().await;
        }
        assert!(ask(first, "GET", "/livez").await.starts_with("HTTP/1.1 200 "));
        let free = taken.local_addr().unwrap();
        drop(taken);
        let mut next = snapshot("9");
        next.platform.admin = Some(free);
        next.platform.drain_max = Duration::ZERO;
        node.snapshots().replace(next);
        while node.health().parts().get("admin") != Some(&Part::Ready) {
            tokio::task::yield_now().await;
        }
        assert!(ask(free, "GET", "/livez").await.starts_with("HTTP/1.1 200 "));
        assert!(std::fs::read_to_string(dir.path().join("run/admin.json")).unwrap().contains(&free.to_string()));
    }
}
