//! The calls of posthouse.queue.v1.Queue.

mod accept;
mod admin;
mod body;
mod lease;

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::stream::BoxStream;
use node::{Clock, Drain};
use posthouse_proto::queue::v1 as proto;
use posthouse_proto::queue::v1::queue_server::Queue;
use tonic::{Request, Response, Status, Streaming};

use crate::bodies::BodyStore;
use crate::context::{Cleaner, Condition, Settings, Space};
use crate::dispatch::Dispatch;
use crate::store::Store;
use crate::wire;
use crate::writer::{Answer, Writer};

/// Settlements of one call.
const SETTLEMENTS_MAX: usize = 10_000;

/// The service over a store and a home of large bodies. Cloning is cheap.
pub struct Service<S, B> {
    pub(crate) inner: Arc<Inner<S, B>>,
}

impl<S, B> Clone for Service<S, B> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

pub(crate) struct Inner<S, B> {
    pub store: Arc<S>,
    pub bodies: Arc<B>,
    pub dispatch: Arc<Dispatch>,
    pub writer: Writer,
    pub cleaner: Arc<Cleaner<B>>,
    pub settings: Settings,
    pub condition: Condition,
    pub space: Space,
    pub clock: Clock,
    /// `None`: the platform is stopped, and nothing is leased.
    pub drain: Option<Drain>,
    /// The queue's folder; a backup must not be made inside.
    pub folder: PathBuf,
    /// Held as long as the service lives.
    pub _lock: crate::lock::FolderLock,
}

type Answers<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl<S: Store, B: BodyStore> Queue for Service<S, B> {
    type LeaseStream = Answers<proto::LeaseResponse>;
    type ReadBodyStream = Answers<proto::ReadBodyResponse>;
    type ExportStream = Answers<proto::ReadBodyResponse>;

    async fn accept(
        &self,
        request: Request<Streaming<proto::AcceptRequest>>,
    ) -> Result<Response<proto::AcceptResponse>, Status> {
        self.take_message(request.into_inner()).await.map(Response::new)
    }

    async fn lease(
        &self,
        request: Request<Streaming<proto::LeaseRequest>>,
    ) -> Result<Response<Self::LeaseStream>, Status> {
        self.open_holder(request.into_inner()).await.map(Response::new)
    }

    async fn read_body(
        &self,
        request: Request<proto::ReadBodyRequest>,
    ) -> Result<Response<Self::ReadBodyStream>, Status> {
        self.stream_body(request.into_inner()).await.map(Response::new)
    }

    async fn settle(&self, request: Request<proto::SettleRequest>) -> Result<Response<proto::SettleResponse>, Status> {
        let settlements = request.into_inner().settlements;
        if settlements.len() > SETTLEMENTS_MAX {
            return Err(Status::invalid_argument(format!("more than {SETTLEMENTS_MAX} settlements")));
        }
        let settlements = settlements.into_iter().map(wire::settlement).collect::<Result<Vec<_>, _>>()?;
        let inner = &*self.inner;
        {
            let (now, instant) = (inner.dispatch.now().unix_ms(), inner.clock.instant());
            let mut state = inner.dispatch.lock();
            for settlement in &settlements {
                state.attempt_over(settlement.token, settlement.pause, now, instant);
            }
        }
        inner.dispatch.wake();
        let answers = inner.writer.settle(settlements).await.map_err(|error| wire::status(&error))?;
        let answer = |answer| match answer {
            Answer::Recorded => proto::SettleAnswer::Recorded as i32,
            Answer::Stale => proto::SettleAnswer::Stale as i32,
        };
        Ok(Response::new(proto::SettleResponse { answers: answers.into_iter().map(answer).collect() }))
    }

    async fn extend(&self, request: Request<proto::ExtendRequest>) -> Result<Response<proto::ExtendResponse>, Status> {
        let leases = wire::tokens(request.into_inner().leases);
        let instant = self.inner.clock.instant();
        let mut state = self.inner.dispatch.lock();
        let stale = leases.into_iter().filter(|(_, token)| !state.extend(*token, instant)).map(|(lease, _)| lease);
        Ok(Response::new(proto::ExtendResponse { stale: stale.collect() }))
    }

    async fn list(&self, request: Request<proto::ListRequest>) -> Result<Response<proto::ListResponse>, Status> {
        self.list_messages(request.into_inner()).await.map(Response::new)
    }

    async fn show(&self, request: Request<proto::ShowRequest>) -> Result<Response<proto::ShowResponse>, Status> {
        self.show_message(request.into_inner()).await.map(Response::new)
    }

    async fn export(&self, request: Request<proto::ExportRequest>) -> Result<Response<Self::ExportStream>, Status> {
        self.stream_text(request.into_inner()).await.map(Response::new)
    }

    async fn hold(&self, request: Request<proto::ChangeRequest>) -> Result<Response<proto::ChangeResponse>, Status> {
        self.change(request.into_inner(), admin::Change::Hold).await.map(Response::new)
    }

    async fn release(&self, request: Request<proto::ChangeRequest>) -> Result<Response<proto::ChangeResponse>, Status> {
        self.change(request.into_inner(), admin::Change::Release).await.map(Response::new)
    }

    async fn retry_now(
        &self,
        request: Request<proto::ChangeRequest>,
    ) -> Result<Response<proto::ChangeResponse>, Status> {
        self.change(request.into_inner(), admin::Change::Retry).await.map(Response::new)
    }

    async fn remove(&self, request: Request<proto::ChangeRequest>) -> Result<Response<proto::ChangeResponse>, Status> {
        self.change(request.into_inner(), admin::Change::Remove).await.map(Response::new)
    }

    async fn trace(&self, request: Request<proto::TraceRequest>) -> Result<Response<proto::TraceResponse>, Status> {
        self.trace_messages(request.into_inner()).await.map(Response::new)
    }

    async fn status(&self, _: Request<proto::StatusRequest>) -> Result<Response<proto::StatusResponse>, Status> {
        self.tell_status().await.map(Response::new)
    }

    async fn backup(&self, request: Request<proto::BackupRequest>) -> Result<Response<proto::BackupResponse>, Status> {
        self.back_up(request.into_inner()).await.map(Response::new)
    }
}
