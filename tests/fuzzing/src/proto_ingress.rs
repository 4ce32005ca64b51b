//! Every call of ingress with any message, and any answer of its peers under a session.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use node::{Clock, Node, Peer, Snapshots};
use posthouse_proto::ingress::v1 as proto;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tonic::body::Body;

use crate::grpc::{PATIENCE, RUNTIME, call, check_status, decodes, frame, records, watch_for_panics};

/// The calls that a session makes, by the octet of a record less two.
const ASKED: [&str; 5] = ["Connect", "Envelope", "Decide", "Authenticate", "Accept"];

/// What a client says, each when the reply to the one before is there.
const DIALOGUE: [&str; 7] = [
    "LHLO client.example\r\n",
    "AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n",
    "MAIL FROM:<s@example.org> SIZE=10\r\n",
    "RCPT TO:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n",
    "DATA\r\n",
    "From: s@example.org\r\nSubject: x\r\n\r\ntext\r\n.\r\n",
    "QUIT\r\n",
];

struct Site {
    node: Node,
    answers: Arc<Mutex<HashMap<&'static str, Bytes>>>,
    socket: PathBuf,
    _state: TempDir,
}

static SITE: LazyLock<Site> = LazyLock::new(|| {
    let snapshot =
        resources::snapshot_from_yaml(include_str!("ingress.yaml")).unwrap_or_else(|faults| panic!("{faults:#?}"));
    let state = TempDir::new().unwrap();
    let node = Node::new(Snapshots::new(snapshot), state.path().to_owned(), Clock::system());
    let answers = Arc::new(Mutex::new(HashMap::new()));
    for peer in [Peer::Policy, Peer::Queue] {
        let answers = Arc::clone(&answers);
        node.provide(peer, tower::service_fn(move |request| answer(Arc::clone(&answers), request)));
    }
    RUNTIME.block_on(ingress::start(&node)).unwrap();
    let socket = state.path().join("lmtp.sock");
    Site { node, answers, socket, _state: state }
});

/// A peer that has read the request says what the fuzzer has for this call.
async fn answer(
    answers: Arc<Mutex<HashMap<&'static str, Bytes>>>,
    request: http::Request<Body>,
) -> Result<http::Response<Body>, Infallible> {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let _ = request.into_body().collect().await;
    let body = answers.lock().unwrap_or_else(PoisonError::into_inner).get(method.as_str()).cloned();
    let mut response = http::Response::new(Body::new(Full::new(body.unwrap_or_default())));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    response.headers_mut().insert("grpc-status", http::HeaderValue::from_static("0"));
    Ok(response)
}

/// Records: an octet that chooses Watch (0), Sessions (1) or a call of a session, a length, a message; above 0x7F the
/// frame is the fuzzer's, too. Properties: no panic; errors are INVALID_ARGUMENT; whatever policy and queue answer, the
/// client hears whole replies, 250 to its text only where the queue took it, and the session ends.
pub fn proto_ingress(data: &[u8]) {
    watch_for_panics();
    let site = &*SITE;
    let mut answers = HashMap::new();
    let mut queue_took = false;
    for (number, message) in records(data) {
        let body = if number > 0x7f { Bytes::copy_from_slice(message) } else { frame(message) };
        match usize::from(number & 0x7f) % (2 + ASKED.len()) {
            0 => {
                let answered = RUNTIME.block_on(call(
                    site.node.wire(Peer::Ingress),
                    "posthouse.ingress.v1.Ingress/Watch",
                    body,
                    true,
                ));
                check_status("Watch", number < 0x80 && decodes::<proto::WatchRequest>(message), &answered);
            }
            1 => {
                let answered = RUNTIME.block_on(call(
                    site.node.wire(Peer::Ingress),
                    "posthouse.ingress.v1.Ingress/Sessions",
                    body,
                    false,
                ));
                check_status("Sessions", number < 0x80 && decodes::<proto::SessionsRequest>(message), &answered);
            }
            asked => {
                let method = ASKED[asked - 2];
                queue_took |= method == "Accept";
                answers.insert(method, body);
            }
        }
    }
    if !answers.is_empty() {
        *site.answers.lock().unwrap_or_else(PoisonError::into_inner) = answers;
        let replies = RUNTIME.block_on(async { tokio::time::timeout(PATIENCE, talk(&site.socket)).await });
        check(&replies.expect("a session ends"), queue_took);
    }
    watch_for_panics();
}

/// The replies to each step of the dialogue; fewer where the session ended.
async fn talk(socket: &std::path::Path) -> Vec<String> {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let mut replies = vec![read(&mut stream, 1).await];
    let mut data = false;
    for step in DIALOGUE {
        if step.starts_with("From:") && !data {
            continue;
        }
        // One who was refused may find the socket closed.
        if stream.write_all(step.as_bytes()).await.is_err() {
            break;
        }
        let count = match step {
            step if step.starts_with("RCPT") => 2,
            step if step.starts_with("From:") => accepted(&replies),
            _ => 1,
        };
        let reply = read(&mut stream, count).await;
        if reply.is_empty() {
            break;
        }
        data = step == "DATA\r\n" && reply.starts_with("354");
        replies.push(reply);
    }
    replies
}

/// LMTP answers each accepted recipient after the text (RFC 2033 section 4.2).
fn accepted(replies: &[String]) -> usize {
    replies.iter().map(|reply| reply.matches("250 2.1.5").count()).sum()
}

/// So many replies, or what there is before the end.
async fn read(stream: &mut UnixStream, count: usize) -> String {
    let (mut text, mut found) = (Vec::new(), 0);
    while found < count {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            match stream.read_u8().await {
                Ok(octet) => line.push(octet),
                Err(_) => return String::from_utf8(text).expect("replies are ASCII"),
            }
        }
        found += usize::from(line.get(3) == Some(&b' '));
        text.extend(line);
    }
    String::from_utf8(text).expect("replies are ASCII")
}

fn check(replies: &[String], queue_took: bool) {
    for reply in replies {
        for line in reply.split_inclusive('\n') {
            let line = line.strip_suffix("\r\n").unwrap_or_else(|| panic!("{replies:?}"));
            assert!(line.len() <= 510 && line.bytes().all(|octet| (b' '..=b'~').contains(&octet)), "{line:?}");
            assert!(
                line.get(..3).and_then(|code| code.parse::<u16>().ok()).is_some_and(|code| (200..600).contains(&code)),
                "{line:?}"
            );
        }
    }
    let queued = replies.iter().any(|reply| reply.contains("queued"));
    assert!(queue_took || !queued, "250 without an answer of the queue: {replies:?}");
}
