//! The administrator's socket: the calls of the services of this process, for whoever owns the state folder.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Endpoint, Server};
use tower::{Service, ServiceExt};

use crate::wire::{Answering, Request, Response};
use crate::{Clock, Node, Peer, Wire};

/// Calls of one connection at a time: a person and their scripts.
const CALLS_PER_CONNECTION_MAX: u32 = 64;
/// sockaddr_un(7): sun_path holds 108 octets with the final zero.
const SOCKET_PATH_OCTETS_MAX: usize = 107;

/// The socket could not be opened or reached.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The name is longer than the system allows.
    #[error("{0} is too long a name for a socket: choose a state folder with a shorter path (--state)")]
    TooLong(PathBuf),
    /// bind(2), mkdir(2), chmod(2).
    #[error("{path} cannot be opened: {cause}")]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Nobody listens.
    #[error("no platform runs with the state folder {}", .0.display())]
    NotRunning(PathBuf),
    /// connect(2).
    #[error("{path} cannot be reached: {cause}")]
    Connect {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: String,
    },
}

/// Where the socket of a state folder is. Its folder is closed to others, so that there is no moment in which the socket
/// is open to them.
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("admin").join("admin.sock")
}

/// Opens the socket. The caller holds the state folder: a socket that is there was left by a process that is gone.
pub fn start(node: &Node) -> Result<(), SocketError> {
    let path = path(node.state_dir());
    let listener = open(&path)?;
    let forward = Forward { node: node.clone() };
    let server = Server::builder().max_concurrent_streams(CALLS_PER_CONNECTION_MAX);
    tokio::spawn(async move {
        if let Err(error) = server.serve_with_incoming(forward, UnixListenerStream::new(listener)).await {
            tracing::error!(%error, "the admin socket has failed");
        }
    });
    Ok(())
}

fn open(path: &Path) -> Result<UnixListener, SocketError> {
    if path.as_os_str().len() > SOCKET_PATH_OCTETS_MAX {
        return Err(SocketError::TooLong(path.to_owned()));
    }
    let failed = |cause| SocketError::Open { path: path.to_owned(), cause };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
    }
    match std::fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(failed(cause)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Reaches the platform that runs with a state folder. The wire serves every service that [`Peer`] names.
pub async fn connect(state_dir: &Path, clock: Clock) -> Result<Wire, SocketError> {
    let path = path(state_dir);
    // A first connection of our own: it tells who is not there better than the channel would.
    match UnixStream::connect(&path).await {
        Ok(_) => {}
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Err(SocketError::NotRunning(state_dir.to_owned()));
        }
        Err(error) => return Err(SocketError::Connect { path, cause: error.to_string() }),
    }
    let to = path.clone();
    let connector = tower::service_fn(move |_: http::Uri| {
        let to = to.clone();
        async move { UnixStream::connect(to).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://admin.invalid")
        .connect_with_connector(connector)
        .await
        .map_err(|cause| SocketError::Connect { path, cause: cause.to_string() })?;
    Ok(Wire::to_server(Remote { channel }, clock))
}

/// Takes a call to the service that its path names.
#[derive(Clone)]
struct Forward {
    node: Node,
}

impl Service<Request> for Forward {
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let service = request.uri().path().strip_prefix('/').and_then(|path| path.split('/').next());
        let peer = match service {
            Some("posthouse.queue.v1.Queue") => Peer::Queue,
            Some("posthouse.policy.v1.Policy") => Peer::Policy,
            Some("posthouse.ingress.v1.Ingress") => Peer::Ingress,
            _ => {
                let status = tonic::Status::unimplemented("there is no such service behind this socket");
                return Box::pin(std::future::ready(Ok(status.into_http())));
            }
        };
        self.node.wire(peer).call(request)
    }
}

/// A channel to another process whose failures are answers, as those of a server are.
#[derive(Clone)]
struct Remote {
    channel: tonic::transport::Channel,
}

impl Service<Request> for Remote {
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let channel = self.channel.clone();
        Box::pin(async move {
            let answered = channel.oneshot(request).await;
            Ok(answered.unwrap_or_else(|error| tonic::Status::unavailable(error.to_string()).into_http()))
        })
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tonic::body::Body;

    use super::*;
    use crate::Snapshots;
    use crate::testing::snapshot;

    fn request(path: &str) -> Request {
        // What a generated client sends: the channel fills in the authority.
        http::Request::builder()
            .method("POST")
            .version(http::Version::HTTP_2)
            .uri(format!("http://admin.invalid{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Body::empty())
            .unwrap()
    }

    #[tokio::test]
    async fn calls_through_the_socket_reach_the_service_and_others_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::new(Snapshots::new(snapshot("1")), dir.path().to_owned(), Clock::system());
        node.provide(
            Peer::Queue,
            tower::service_fn(|request: Request| async move {
                let path = request.uri().path().to_owned();
                Ok::<_, Infallible>(Response::new(Body::new(http_body_util::Full::from(path))))
            }),
        );
        start(&node).unwrap();
        let wire = connect(dir.path(), Clock::system()).await.unwrap();
        let answer = wire.clone().oneshot(request("/posthouse.queue.v1.Queue/Status")).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "/posthouse.queue.v1.Queue/Status");
        let refused = wire.clone().oneshot(request("/posthouse.other.v1.Other/Do")).await.unwrap();
        assert_eq!(refused.headers()["grpc-status"], "12");
        let absent = wire.oneshot(request("/posthouse.policy.v1.Policy/Decide")).await.unwrap();
        assert_eq!(absent.headers()["grpc-status"], "14");
    }

    #[tokio::test]
    async fn the_socket_is_closed_to_others_and_replaces_one_that_was_left() {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::new(Snapshots::new(snapshot("1")), dir.path().to_owned(), Clock::system());
        let error = connect(dir.path(), Clock::system()).await.err().unwrap();
        assert!(matches!(error, SocketError::NotRunning(_)), "{error}");
        drop(open(&path(dir.path())).unwrap());
        let error = connect(dir.path(), Clock::system()).await.err().unwrap();
        assert!(matches!(error, SocketError::NotRunning(_)), "{error}");
        start(&node).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path(dir.path())), 0o600);
        assert_eq!(mode(path(dir.path()).parent().unwrap()), 0o700);
        connect(dir.path(), Clock::system()).await.unwrap();
        let long = dir.path().join("x".repeat(120));
        assert!(matches!(open(&path(&long)), Err(SocketError::TooLong(_))));
    }
}
