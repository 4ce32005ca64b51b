//! Lease: a holder's stream.

use std::sync::Arc;

use futures_util::StreamExt;
use posthouse_proto::queue::v1 as proto;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Answers, Service};
use crate::bodies::BodyStore;
use crate::dispatch::Dispatch;
use crate::store::Store;
use crate::wire;

/// A holder that is taken off the list when its stream ends, however it does.
struct Open {
    dispatch: Arc<Dispatch>,
    id: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.dispatch.lock().holders.close(self.id);
    }
}

impl<S: Store, B: BodyStore> Service<S, B> {
    pub(super) async fn open_holder(
        &self,
        mut requests: Streaming<proto::LeaseRequest>,
    ) -> Result<Answers<proto::LeaseResponse>, Status> {
        let Some(drain) = &self.inner.drain else {
            return Err(Status::failed_precondition("the platform is stopped: nothing is leased"));
        };
        if drain.has_begun() {
            return Err(Status::unavailable("the queue is about to stop"));
        }
        let dispatch = Arc::clone(&self.inner.dispatch);
        let (id, batches) = dispatch.lock().holders.open();
        let open = Open { dispatch, id };
        let drain = drain.clone();
        tokio::spawn(async move {
            loop {
                let request = tokio::select! {
                    request = requests.message() => request,
                    () = drain.begun() => break,
                };
                let Ok(Some(request)) = request else { break };
                let now = open.dispatch.now().unix_ms();
                let mut state = open.dispatch.lock();
                if !request.holder.is_empty() {
                    tracing::info!(holder = request.holder, "lease holder came");
                }
                if !request.limits.is_empty() {
                    state.holders.limit(open.id, wire::limits(request.limits));
                }
                state.holders.credit(open.id, request.credit);
                state.unblock(now);
                drop(state);
                open.dispatch.wake();
            }
        });
        Ok(ReceiverStream::new(batches).map(|batch| Ok(wire::handout(batch))).boxed())
    }
}
