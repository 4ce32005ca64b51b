use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tonic::body::Body;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

use crate::Clock;
use crate::calls::Calls;

pub(crate) type Request = http::Request<Body>;
pub(crate) type Response = http::Response<Body>;
type Boxed = BoxCloneSyncService<Request, Response, Infallible>;
pub(crate) type Answering = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

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
/// It ends in the generated server of this process, or in a channel to another; the request and the answer pass through
/// the same codec either way, so that a local run exercises the contract. Every call is counted and timed.
#[derive(Clone)]
pub struct Wire {
    server: Arc<OnceLock<Boxed>>,
    calls: Calls,
}

impl Wire {
    /// A wire that ends in `server`, for callers that have no [`crate::Node`]: tools and tests.
    pub fn to_server<S: Server>(server: S, clock: Clock) -> Self {
        let cell = OnceLock::new();
        let _ = cell.set(BoxCloneSyncService::new(server));
        Self { server: Arc::new(cell), calls: Calls::new(clock) }
    }
}

impl Service<Request> for Wire {
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The generated servers are always ready: they queue nothing.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let call = self.calls.begin(request.uri().path());
        let server = self.server.get().cloned();
        Box::pin(async move {
            let response = match server {
                Some(server) => server.oneshot(request).await?,
                None => tonic::Status::unavailable("the service has not started yet").into_http(),
            };
            call.end(response.headers());
            Ok(response)
        })
    }
}

pub(crate) struct Wires {
    servers: [Arc<OnceLock<Boxed>>; PEERS],
    calls: Calls,
}

impl Wires {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { servers: Default::default(), calls: Calls::new(clock) }
    }

    pub(crate) fn to(&self, peer: Peer) -> Wire {
        Wire { server: Arc::clone(&self.servers[peer as usize]), calls: self.calls.clone() }
    }

    pub(crate) fn provide<S: Server>(&self, peer: Peer, server: S) {
        let first = self.servers[peer as usize].set(BoxCloneSyncService::new(server)).is_ok();
        debug_assert!(first, "{peer:?} is provided once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str) -> Request {
        http::Request::builder().uri(path).body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn a_call_before_the_service_is_there_answers_unavailable_and_later_ones_reach_it() {
        let wires = Wires::new(Clock::system());
        let wire = wires.to(Peer::Queue);
        let early = wire.clone().oneshot(request("/posthouse.queue.v1.Queue/Status")).await.unwrap();
        assert_eq!(early.headers()["grpc-status"], "14");
        wires.provide(
            Peer::Queue,
            tower::service_fn(|_: Request| async {
                Ok::<_, Infallible>(Response::new(Body::new(http_body_util::Full::from("x"))))
            }),
        );
        let late = wire.oneshot(request("/posthouse.queue.v1.Queue/Status")).await.unwrap();
        assert!(late.headers().get("grpc-status").is_none());
        let other = wires.to(Peer::Policy).oneshot(request("/posthouse.policy.v1.Policy/Decide")).await.unwrap();
        assert_eq!(other.headers()["grpc-status"], "14");
    }
}
