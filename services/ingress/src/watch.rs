use std::borrow::Cow;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{Stream, StreamExt};
use ipnet::IpNet;
use posthouse_proto::ingress::v1::ingress_server::Ingress;
use posthouse_proto::ingress::v1::{
    Direction, SessionSummary, SessionsRequest, SessionsResponse, WatchRequest, WatchResponse,
};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tonic::{Request, Response, Status};
use types::Timestamp;

use crate::identity::Client;
use crate::shared::Shared;

/// Lines that a slow watcher may be behind before it loses some.
const LINES_BEHIND_MAX: usize = 4096;
/// Characters of a line that are shown.
const LINE_CHARACTERS_MAX: usize = 1000;

/// Carries the dialogues to those who watch. Costs one load of an atomic where nobody does.
pub(crate) struct Hub {
    lines: broadcast::Sender<Arc<Line>>,
    watchers: Arc<AtomicUsize>,
}

/// One line of a dialogue.
pub(crate) struct Line {
    session: Arc<Session>,
    at: Timestamp,
    direction: Direction,
    text: String,
}

impl Default for Hub {
    fn default() -> Self {
        Self { lines: broadcast::channel(LINES_BEHIND_MAX).0, watchers: Arc::default() }
    }
}

impl Hub {
    /// Whether anybody watches.
    pub(crate) fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::Relaxed) > 0
    }

    /// Tells one line.
    pub(crate) fn tell(&self, session: &Arc<Session>, at: Timestamp, direction: Direction, text: &[u8]) {
        let line = Line { session: Arc::clone(session), at, direction, text: escape(text) };
        // Nobody listens any more: nothing is lost.
        let _ = self.lines.send(Arc::new(line));
    }

    fn subscribe(&self) -> (Watcher, broadcast::Receiver<Arc<Line>>) {
        self.watchers.fetch_add(1, Ordering::Relaxed);
        (Watcher(Arc::clone(&self.watchers)), self.lines.subscribe())
    }
}

struct Watcher(Arc<AtomicUsize>);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A line as a terminal may show it.
fn escape(text: &[u8]) -> String {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let mut shown = String::with_capacity(text.len().min(LINE_CHARACTERS_MAX));
    for c in String::from_utf8_lossy(text).chars().take(LINE_CHARACTERS_MAX) {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// What a client may have said in one go, cut into lines with its secrets masked.
///
/// `secret`: the first line answers a challenge of AUTH. What follows an AUTH command in the same bytes is masked as well.
pub(crate) fn client_lines(bytes: &[u8], secret: bool) -> Vec<Cow<'_, [u8]>> {
    let mut after_auth = secret;
    let mut lines = Vec::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if after_auth {
            lines.push(Cow::Borrowed(b"***".as_slice()));
            continue;
        }
        after_auth = line.trim_ascii_start().get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"auth"));
        lines.push(smtp::server::mask(line));
    }
    lines
}

/// What a session does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// Waits for a command, or acts on one.
    Command,
    /// Receives a message.
    Message,
    /// Waits for policy or the queue to take the message.
    Commit,
    /// Waits for a TLS handshake.
    Handshake,
}

/// A running session, for people.
pub(crate) struct Session {
    pub(crate) number: u64,
    pub(crate) client: Client,
    pub(crate) listener: String,
    started: Timestamp,
    state: AtomicU8,
    messages: AtomicU64,
    user: Mutex<String>,
}

impl Session {
    pub(crate) fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    pub(crate) fn count_message(&self) {
        self.messages.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn set_user(&self, user: &str) {
        user.clone_into(&mut self.user.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn state(&self) -> &'static str {
        match self.state.load(Ordering::Relaxed) {
            state if state == State::Message as u8 => "message",
            state if state == State::Commit as u8 => "commit",
            state if state == State::Handshake as u8 => "handshake",
            _ => "command",
        }
    }

    fn summary(&self) -> SessionSummary {
        SessionSummary {
            session: self.number,
            client: self.client.label(),
            listener: self.listener.clone(),
            state: self.state().to_owned(),
            user: self.user.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            started_at_ms: self.started.unix_ms(),
            messages: self.messages.load(Ordering::Relaxed),
        }
    }
}

/// The running sessions.
#[derive(Default)]
pub(crate) struct Registry {
    next: AtomicU64,
    sessions: Mutex<HashMap<u64, Arc<Session>>>,
}

impl Registry {
    /// Enters a session.
    pub(crate) fn enter(&self, client: Client, listener: &str, started: Timestamp) -> Arc<Session> {
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let session = Arc::new(Session {
            number,
            client,
            listener: listener.to_owned(),
            started,
            state: AtomicU8::new(State::Command as u8),
            messages: AtomicU64::new(0),
            user: Mutex::default(),
        });
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::clone(&session));
        session
    }

    /// Strikes a session off.
    pub(crate) fn leave(&self, number: u64) {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }
}

/// posthouse.ingress.v1.Ingress.
pub(crate) struct Service {
    shared: Arc<Shared>,
}

impl Service {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

/// Which dialogues somebody wants to see.
struct Filter {
    client: Option<IpNet>,
    listener: String,
}

impl Filter {
    fn admits(&self, session: &Session) -> bool {
        let client = self.client.is_none_or(|wanted| session.client.address.is_some_and(|ip| wanted.contains(&ip)));
        client && (self.listener.is_empty() || self.listener == session.listener)
    }
}

fn parse_client(text: &str) -> Result<Option<IpNet>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let address = text.parse().map(|ip: std::net::IpAddr| IpNet::from(ip.to_canonical()));
    let network = address.or_else(|_| text.parse::<IpNet>());
    network.map(Some).map_err(|_| Status::invalid_argument("client_ip is neither an address nor a CIDR"))
}

#[tonic::async_trait]
impl Ingress for Service {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let filter = Filter { client: parse_client(&request.client_ip)?, listener: request.listener };
        let (watcher, lines) = self.shared.hub.subscribe();
        let mut lost = 0;
        let responses = BroadcastStream::new(lines).filter_map(move |line| {
            // Moved in: watching ends with the stream.
            let _watcher = &watcher;
            let response = match line {
                Err(BroadcastStreamRecvError::Lagged(lines)) => {
                    lost += lines;
                    None
                }
                Ok(line) => filter.admits(&line.session).then(|| WatchResponse {
                    session: line.session.number,
                    at_ms: line.at.unix_ms(),
                    direction: line.direction.into(),
                    line: line.text.clone(),
                    client: line.session.client.label(),
                    listener: line.session.listener.clone(),
                    lost: std::mem::take(&mut lost),
                }),
            };
            std::future::ready(response.map(Ok))
        });
        // A watcher must not keep the process from ending.
        let drain = self.shared.node.drain().clone();
        let responses = responses.take_until(async move { drain.begun().await });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn sessions(&self, _: Request<SessionsRequest>) -> Result<Response<SessionsResponse>, Status> {
        let sessions = self.shared.registry.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sessions: Vec<_> = sessions.values().map(|session| session.summary()).collect();
        sessions.sort_unstable_by_key(|session| session.session);
        Ok(Response::new(SessionsResponse { sessions }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        let cases: &[(&str, bool, &[&str])] = &[
            ("EHLO x\r\nMAIL FROM:<a@b>\r\n", false, &["EHLO x\r\n", "MAIL FROM:<a@b>\r\n"]),
            ("AUTH PLAIN AGEAYg==\r\n", false, &["AUTH PLAIN ***"]),
            ("AUTH LOGIN\r\nYQ==\r\nYg==\r\n", false, &["AUTH LOGIN\r\n", "***", "***"]),
            ("YQ==\r\n", true, &["***"]),
        ];
        for (bytes, secret, expected) in cases {
            let found = client_lines(bytes.as_bytes(), *secret);
            let found: Vec<_> = found.iter().map(|line| std::str::from_utf8(line).unwrap()).collect();
            assert_eq!(&found, expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_line_cannot_move_the_cursor() {
        assert_eq!(escape(b"a\x1b[2Jb\r\n"), "a\\u{1b}[2Jb");
        assert_eq!(escape(&[b'a'; 5000]).len(), LINE_CHARACTERS_MAX);
    }

    #[test]
    fn a_filter_takes_an_address_or_a_network() {
        let session = |address: &str| Session {
            number: 1,
            client: Client { address: address.parse().ok(), address_known: true, local_user: String::new() },
            listener: "mx".to_owned(),
            started: Timestamp::default(),
            state: AtomicU8::new(0),
            messages: AtomicU64::new(0),
            user: Mutex::default(),
        };
        for (client, listener, address, expected) in [
            ("", "", "192.0.2.1", true),
            ("192.0.2.1", "", "192.0.2.1", true),
            ("192.0.2.2", "", "192.0.2.1", false),
            ("192.0.2.0/24", "mx", "192.0.2.1", true),
            ("192.0.2.0/24", "other", "192.0.2.1", false),
            ("192.0.2.0/24", "", "local", false),
        ] {
            let filter = Filter { client: parse_client(client).unwrap(), listener: listener.to_owned() };
            assert_eq!(filter.admits(&session(address)), expected, "{client:?} {listener:?} {address:?}");
        }
        assert!(parse_client("x").is_err());
    }
}
