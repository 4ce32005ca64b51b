//! A queue that hands out what the test gives it, and keeps what it is told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use posthouse_proto::queue::v1::queue_server::Queue;
use posthouse_proto::queue::v1::*;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

type Answers<T> = ReceiverStream<Result<T, Status>>;
type Sink = mpsc::Sender<Result<LeaseResponse, Status>>;

#[derive(Clone, Default)]
pub(crate) struct FakeQueue {
    pub(crate) state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub(crate) struct State {
    /// Of the stream that is open.
    sink: Option<Sink>,
    pub(crate) credit: u64,
    pub(crate) streams: usize,
    /// Streams whose requests were read to their end.
    pub(crate) half_closed: usize,
    pub(crate) limits: Vec<Vec<RouteLimit>>,
    pub(crate) settle_calls: Vec<Vec<Settlement>>,
    /// So many calls of Settle fail.
    pub(crate) settles_fail: usize,
    /// So many calls of Extend fail.
    pub(crate) extends_fail: usize,
    pub(crate) extended: Vec<Vec<LeaseToken>>,
    pub(crate) bodies: HashMap<String, Vec<Bytes>>,
}

impl FakeQueue {
    /// Hands deliveries out over the open stream.
    pub(crate) async fn hand_out(&self, deliveries: Vec<Delivery>) {
        let sink = self.wait_for(|state| state.sink.clone()).await;
        self.state.lock().unwrap().credit -= deliveries.len() as u64;
        sink.send(Ok(LeaseResponse { deliveries, ..Default::default() })).await.unwrap();
    }

    /// Ends the open stream with this.
    pub(crate) async fn break_off(&self, status: Option<Status>) {
        let sink = self.wait_for(|state| state.sink.take()).await;
        if let Some(status) = status {
            sink.send(Err(status)).await.unwrap();
        }
    }

    pub(crate) async fn wait_for<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        for _ in 0..3000 {
            if let Some(found) = look(&mut self.state.lock().unwrap()) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("waited in vain");
    }

    pub(crate) async fn settled(&self, n: usize) -> Vec<Settlement> {
        self.wait_for(|state| {
            let all: Vec<_> = state.settle_calls.iter().flatten().cloned().collect();
            (all.len() >= n).then_some(all)
        })
        .await
    }
}

fn none<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not part of this test"))
}

#[tonic::async_trait]
impl Queue for FakeQueue {
    type LeaseStream = Answers<LeaseResponse>;
    type ReadBodyStream = Answers<ReadBodyResponse>;
    type ExportStream = Answers<ReadBodyResponse>;

    async fn lease(&self, request: Request<Streaming<LeaseRequest>>) -> Result<Response<Self::LeaseStream>, Status> {
        let (sink, receiver) = mpsc::channel(16);
        let mut requests = request.into_inner();
        {
            let mut state = self.state.lock().unwrap();
            state.sink = Some(sink);
            state.credit = 0;
            state.streams += 1;
        }
        let queue = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let mut state = queue.state.lock().unwrap();
                state.credit += u64::from(request.credit);
                if !request.limits.is_empty() {
                    state.limits.push(request.limits);
                }
            }
            let mut state = queue.state.lock().unwrap();
            state.half_closed += 1;
            state.sink = None;
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn read_body(&self, request: Request<ReadBodyRequest>) -> Result<Response<Self::ReadBodyStream>, Status> {
        let id = request.into_inner().message_id;
        let chunks =
            self.state.lock().unwrap().bodies.get(&id).cloned().ok_or_else(|| Status::unavailable("no disk"))?;
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(async move {
            for chunk in chunks {
                let answer =
                    if chunk == "trouble" { Err(Status::unavailable("lost")) } else { Ok(ReadBodyResponse { chunk }) };
                if sender.send(answer).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn settle(&self, request: Request<SettleRequest>) -> Result<Response<SettleResponse>, Status> {
        let mut state = self.state.lock().unwrap();
        if state.settles_fail > 0 {
            state.settles_fail -= 1;
            return Err(Status::unavailable("the disk is full"));
        }
        let settlements = request.into_inner().settlements;
        let answers = vec![SettleAnswer::Recorded as i32; settlements.len()];
        state.settle_calls.push(settlements);
        Ok(Response::new(SettleResponse { answers }))
    }

    async fn extend(&self, request: Request<ExtendRequest>) -> Result<Response<ExtendResponse>, Status> {
        let mut state = self.state.lock().unwrap();
        if state.extends_fail > 0 {
            state.extends_fail -= 1;
            return Err(Status::unavailable("restart"));
        }
        state.extended.push(request.into_inner().leases);
        Ok(Response::new(ExtendResponse::default()))
    }
    async fn accept(&self, _: Request<Streaming<AcceptRequest>>) -> Result<Response<AcceptResponse>, Status> {
        none()
    }
    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        none()
    }
    async fn show(&self, _: Request<ShowRequest>) -> Result<Response<ShowResponse>, Status> {
        none()
    }
    async fn export(&self, _: Request<ExportRequest>) -> Result<Response<Self::ExportStream>, Status> {
        none()
    }
    async fn hold(&self, _: Request<ChangeRequest>) -> Result<Response<ChangeResponse>, Status> {
        none()
    }
    async fn release(&self, _: Request<ChangeRequest>) -> Result<Response<ChangeResponse>, Status> {
        none()
    }
    async fn retry_now(&self, _: Request<ChangeRequest>) -> Result<Response<ChangeResponse>, Status> {
        none()
    }
    async fn remove(&self, _: Request<ChangeRequest>) -> Result<Response<ChangeResponse>, Status> {
        none()
    }
    async fn trace(&self, _: Request<TraceRequest>) -> Result<Response<TraceResponse>, Status> {
        none()
    }
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        none()
    }
    async fn backup(&self, _: Request<BackupRequest>) -> Result<Response<BackupResponse>, Status> {
        none()
    }
}
