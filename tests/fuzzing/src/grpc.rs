//! Calls of a service as octets: what a peer sends need not be what the generated client would.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Once};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use node::Wire;
use tokio::runtime::Runtime;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::ServiceExt;

/// An answer of ours comes long before this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);
/// What is read of a stream that has no end.
const ENDLESS_WAIT: Duration = Duration::from_millis(2);
const THREADS: &str = "service";

static PANICKED: AtomicBool = AtomicBool::new(false);

/// Runs the services' tasks.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name(THREADS).enable_all().build().unwrap()
});

/// A panic of a task of a service is a finding, though it ends nothing but the task. To be called before the runtime is used.
pub(crate) fn watch_for_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name() == Some(THREADS) {
                PANICKED.store(true, Ordering::SeqCst);
            }
            before(panic);
        }));
    });
    assert!(!PANICKED.load(Ordering::SeqCst), "a task of the service has panicked");
}

/// Parts of an input: one octet that chooses a call, two that say how long its message is, the message.
pub(crate) fn records(mut data: &[u8]) -> Vec<(u8, &[u8])> {
    const RECORDS_MAX: usize = 32;
    let mut records = Vec::new();
    while let Some(([call, low, high], rest)) = data.split_first_chunk::<3>() {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        records.push((*call, &rest[..length]));
        data = &rest[length..];
        if records.len() == RECORDS_MAX {
            break;
        }
    }
    records
}

/// A message as gRPC frames it.
pub(crate) fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(message);
    framed.freeze()
}

/// What a call came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) code: Code,
    pub(crate) text: String,
    /// Frames of the answer, each with its head.
    pub(crate) body: Vec<u8>,
}

impl Answered {
    /// The messages of the answer.
    pub(crate) fn messages<M: prost::Message + Default>(&self) -> Vec<M> {
        let (mut rest, mut found) = (&self.body[..], Vec::new());
        while let Some(([_, length @ ..], after)) = rest.split_first_chunk::<5>() {
            let length = u32::from_be_bytes(*length) as usize;
            let Some(message) = after.get(..length) else { break };
            found.push(M::decode(message).expect("what we send decodes"));
            rest = &after[length..];
        }
        found
    }
}

/// Calls `path` (`package.Service/Method`) with a body as it is. `endless`: the answer has no end, its beginning is read.
pub(crate) async fn call(wire: Wire, path: &str, body: Bytes, endless: bool) -> Answered {
    let request = http::Request::post(format!("/{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Full::new(body)))
        .unwrap();
    let answering = async {
        let Ok(response) = wire.oneshot(request).await;
        let (head, mut body) = response.into_parts();
        let (mut octets, mut status) = (Vec::new(), Status::from_header_map(&head.headers));
        loop {
            let next = body.frame();
            let next = match endless {
                true => tokio::time::timeout(ENDLESS_WAIT, next).await.unwrap_or(None),
                false => next.await,
            };
            let Some(next) = next else { break };
            match next.expect("an answer ends with its trailers").into_data() {
                Ok(data) => octets.extend_from_slice(&data),
                Err(frame) => status = frame.trailers_ref().and_then(Status::from_header_map).or(status),
            }
        }
        let status = status.unwrap_or_else(|| if endless { Status::ok("") } else { Status::unknown("no status") });
        Answered { code: status.code(), text: status.message().to_owned(), body: octets }
    };
    tokio::time::timeout(PATIENCE, answering).await.unwrap_or_else(|_| panic!("{path} does not answer"))
}

/// A caller that broke the contract hears of it; nobody else's trouble comes of it.
pub(crate) fn check_status(path: &str, decodes: bool, answered: &Answered) {
    let fits = match answered.code {
        Code::Ok | Code::InvalidArgument | Code::NotFound => true,
        // A stream that its caller gave up.
        Code::Cancelled => path == "Accept",
        Code::FailedPrecondition => path == "Backup" && answered.text.contains("not empty"),
        // The codec's own answer.
        Code::Internal | Code::Unimplemented | Code::OutOfRange | Code::Unknown => !decodes,
        _ => false,
    };
    assert!(fits, "{path} answers {:?}: {}", answered.code, answered.text);
}

/// Whether octets are a message of this type, as every service decodes it.
pub(crate) fn decodes<M: prost::Message + Default>(message: &[u8]) -> bool {
    M::decode(message).is_ok()
}
