use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tonic::body::Body;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

type Request = http::Request<Body>;
type Response = http::Response<Body>;
type Boxed = BoxCloneSyncService<Request, Response, Infallible>;

/// A service that can be reached over a [`Wire`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// posthouse.ingress.v1
    Ingress,
    /// posthouse.policy.v1
    Policy,
    /// posthouse.queue.v1
    Queue,
}

const PEERS: usize = 3;

/// What the generated servers are.
pub trait Server:
    Service<Request, Response = Response, Error = Infallible, Future: Send + 'static> + Clone + Send + Sync + 'static
{
}

impl<S> Server for S where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// The way to a service: the generated client is made over it.
///
/// Now it ends in the generated server of this process; the request and the answer pass through the same codec as over a
/// network, so that a local run exercises the contract.
#[derive(Clone)]
pub struct Wire {
    server: Arc<OnceLock<Boxed>>,
}

impl Service<Request> for Wire {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The generated servers are always ready: they queue nothing.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match self.server.get() {
            Some(server) => Box::pin(server.clone().oneshot(request)),
            None => Box::pin(std::future::ready(Ok(
                tonic::Status::unavailable("the service has not started yet").into_http()
            ))),
        }
    }
}

#[derive(Default)]
pub(crate) struct Wires {
    servers: [Arc<OnceLock<Boxed>>; PEERS],
}

impl Wires {
    pub(crate) fn to(&self, peer: Peer) -> Wire {
        Wire { server: Arc::clone(&self.servers[peer as usize]) }
    }

    pub(crate) fn provide<S: Server>(&self, peer: Peer, server: S) {
        let first = self.servers[peer as usize].set(BoxCloneSyncService::new(server)).is_ok();
        debug_assert!(first, "{peer:?} is provided once");
    }
}
