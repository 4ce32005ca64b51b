//! Every call of the queue with any message, over a real store.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use node::{Clock, Node, Peer, Snapshots};
use posthouse_proto::queue::v1 as proto;
use posthouse_proto::queue::v1::accept_request::Step;
use prost::Message as _;
use tempfile::TempDir;
use tonic::Code;
use types::MessageId;

use crate::grpc::{Answered, RUNTIME, call, check_status, decodes, frame, records, watch_for_panics};

/// What a call is fed with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One message.
    Plain,
    /// All messages of records that stand together.
    Stream,
    /// As `Stream`, and the answer has no end.
    Endless,
}

type Call = (&'static str, Kind, fn(&[u8]) -> bool);

const CALLS: [Call; 15] = [
    ("Accept", Kind::Stream, decodes::<proto::AcceptRequest>),
    ("Lease", Kind::Endless, decodes::<proto::LeaseRequest>),
    ("ReadBody", Kind::Plain, decodes::<proto::ReadBodyRequest>),
    ("Settle", Kind::Plain, decodes::<proto::SettleRequest>),
    ("Extend", Kind::Plain, decodes::<proto::ExtendRequest>),
    ("List", Kind::Plain, decodes::<proto::ListRequest>),
    ("Show", Kind::Plain, decodes::<proto::ShowRequest>),
    ("Export", Kind::Plain, decodes::<proto::ExportRequest>),
    ("Hold", Kind::Plain, decodes::<proto::ChangeRequest>),
    ("Release", Kind::Plain, decodes::<proto::ChangeRequest>),
    ("RetryNow", Kind::Plain, decodes::<proto::ChangeRequest>),
    ("Remove", Kind::Plain, decodes::<proto::ChangeRequest>),
    ("Trace", Kind::Plain, decodes::<proto::TraceRequest>),
    ("Status", Kind::Plain, decodes::<proto::StatusRequest>),
    ("Backup", Kind::Plain, decodes::<proto::BackupRequest>),
];

const SITE: &str = include_str!("site.yaml");
/// Runs of one store: events outlive their messages, and should not fill the memory that holds it.
const RUNS_MAX: usize = 1000;

/// A queue in a folder of its own.
struct Store {
    node: Node,
    state: TempDir,
    runs: usize,
    /// Tokens of what was leased in this run.
    leased: Vec<proto::LeaseToken>,
}

static STORE: Mutex<Option<Store>> = Mutex::new(None);

/// Records: an octet that chooses a call (above 0x7F the frames are the fuzzer's, too), a length, a message. Lease tokens
/// with a delivery below 8 become those that were handed out. Properties: no panic; who breaks the contract hears
/// INVALID_ARGUMENT or NOT_FOUND; no call brings the store into trouble: an honest message is accepted and handed out
/// afterwards, and everything can be removed.
pub fn proto_queue(data: &[u8]) {
    watch_for_panics();
    let mut guard = STORE.lock().unwrap_or_else(PoisonError::into_inner);
    // A store that a finding left in the middle of a run is not used again.
    let mut store = guard.take().filter(|store| store.runs < RUNS_MAX).unwrap_or_else(Store::open);
    let records = records(data);
    let mut at = 0;
    while at < records.len() {
        let (number, _) = records[at];
        let (name, kind, is_request) = CALLS[usize::from(number & 0x7f) % CALLS.len()];
        let together = match kind {
            Kind::Plain => 1,
            Kind::Stream | Kind::Endless => records[at..].iter().take_while(|(other, _)| *other == number).count(),
        };
        let messages: Vec<&[u8]> = records[at..at + together].iter().map(|(_, message)| *message).collect();
        at += together;
        if number > 0x7f {
            // Not Backup: it writes where its caller says.
            if name != "Backup" {
                let answered = store.ask(name, kind, messages.concat().into());
                check_status(name, false, &answered);
            }
            continue;
        }
        let decodes = messages.iter().all(|message| is_request(message));
        let framed: Vec<u8> = messages.iter().flat_map(|message| frame(&store.adapt(name, message))).collect();
        let answered = store.ask(name, kind, framed.into());
        check_status(name, decodes, &answered);
        if name == "Lease" && answered.code == Code::Ok {
            store.keep(&answered);
        }
    }
    store.ends_well();
    *guard = Some(store);
    watch_for_panics();
}

impl Store {
    fn open() -> Self {
        let mut snapshot = resources::snapshot_from_yaml(SITE).unwrap_or_else(|faults| panic!("{faults:#?}"));
        snapshot.platform.free_space_min_bytes = 1 << 20;
        snapshot.platform.body_inline_max_bytes = 100;
        // Memory is as good as a disk here, and syncs cost nothing.
        let memory = Path::new("/dev/shm");
        let state = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap();
        let node = Node::new(Snapshots::new(snapshot), state.path().to_owned(), Clock::system());
        RUNTIME.block_on(queue::start(&node)).unwrap();
        Self { node, state, runs: 0, leased: Vec::new() }
    }

    fn ask(&self, name: &str, kind: Kind, body: Bytes) -> Answered {
        let path = format!("posthouse.queue.v1.Queue/{name}");
        RUNTIME.block_on(call(self.node.wire(Peer::Queue), &path, body, kind == Kind::Endless))
    }

    /// Lease tokens become real ones, and a backup stays inside the folder of this store.
    fn adapt(&self, name: &str, message: &[u8]) -> Vec<u8> {
        let real = |token: &mut proto::LeaseToken| {
            if let Some(leased) =
                usize::try_from(token.delivery).ok().filter(|at| *at < 8).and_then(|at| self.leased.get(at))
            {
                *token = *leased;
            }
        };
        match name {
            "Settle" => {
                let Ok(mut request) = proto::SettleRequest::decode(message) else { return message.to_vec() };
                request.settlements.iter_mut().filter_map(|settlement| settlement.lease.as_mut()).for_each(real);
                request.encode_to_vec()
            }
            "Extend" => {
                let Ok(mut request) = proto::ExtendRequest::decode(message) else { return message.to_vec() };
                request.leases.iter_mut().for_each(real);
                request.encode_to_vec()
            }
            "Backup" => {
                let Ok(mut request) = proto::BackupRequest::decode(message) else { return Vec::new() };
                if !request.directory.is_empty() {
                    let name: String = request.directory.chars().filter(char::is_ascii_alphanumeric).take(20).collect();
                    request.directory = format!("{}/backup-{name}", self.state.path().display());
                }
                request.encode_to_vec()
            }
            _ => message.to_vec(),
        }
    }

    fn keep(&mut self, answered: &Answered) {
        for batch in answered.messages::<proto::LeaseResponse>() {
            for delivery in batch.deliveries {
                assert!(!delivery.recipients.is_empty());
                self.leased.extend(delivery.lease);
            }
            self.leased.extend(batch.reports.into_iter().filter_map(|report| report.lease));
        }
    }

    /// The store is as good as before, and empty.
    fn ends_well(&mut self) {
        self.runs += 1;
        self.leased.clear();
        let id = MessageId::new(7, 1_700_000_000_000, self.runs as u64).to_string();
        let commit = Step::Commit(proto::Commit {
            message_id: id,
            variants: vec![proto::Variant {
                header: "Subject: x\r\n".into(),
                sender: "s@example.org".to_owned(),
                recipients: vec![proto::Recipient {
                    address: "r@example.org".to_owned(),
                    transport: "mailboxes".to_owned(),
                    route: "mailboxes".to_owned(),
                    ..proto::Recipient::default()
                }],
                ..proto::Variant::default()
            }],
            received_at_ms: 1_700_000_000_000,
            ..proto::Commit::default()
        });
        let accept = proto::AcceptRequest { step: Some(commit) }.encode_to_vec();
        let all = proto::ChangeRequest { all: true, ..proto::ChangeRequest::default() }.encode_to_vec();
        for (name, message) in [("Accept", accept), ("Remove", all), ("Status", Vec::new())] {
            let answered = self.ask(name, Kind::Plain, frame(&message));
            assert_eq!(answered.code, Code::Ok, "{name} afterwards: {}", answered.text);
            if name == "Status" {
                let status = answered.messages::<proto::StatusResponse>().remove(0);
                assert!(status.writable && status.messages <= 1 + status.leased + status.reports, "{status:?}");
            }
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.node.drain().begin();
    }
}
