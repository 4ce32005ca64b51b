//! Live dialogues and what an idle session costs.

use futures_util::StreamExt;
use node::Wire;
use posthouse_proto::ingress::v1::ingress_client::IngressClient;
use posthouse_proto::ingress::v1::{Direction, SessionsRequest, WatchRequest, WatchResponse};
use tonic::Streaming;

use super::*;
use crate::shared::Shared;
use crate::stream::{Plain, Socket, Stream};

/// Octets of a session's task beside its sockets and the session itself.
const TASK_BYTES_MAX: usize = 4 << 10;

impl Site {
    fn ingress(&self) -> IngressClient<Wire> {
        IngressClient::new(self.node.wire(Peer::Ingress))
    }

    async fn watch(&self, request: WatchRequest) -> Streaming<WatchResponse> {
        self.ingress().watch(request).await.unwrap().into_inner()
    }
}

/// Lines up to the end of the session.
async fn dialogue(mut lines: Streaming<WatchResponse>) -> Vec<(Direction, String)> {
    let mut found = Vec::new();
    loop {
        let line = tokio::time::timeout(PATIENCE, lines.next()).await.unwrap().unwrap().unwrap();
        assert_eq!((line.client.as_str(), line.listener.as_str()), ("127.0.0.1", "submission"));
        let (direction, ended) = (line.direction(), line.line == "closed");
        found.push((direction, line.line));
        if ended {
            return found;
        }
    }
}

#[tokio::test]
async fn a_dialogue_is_watched_without_its_secrets() {
    let mut listener = submission("submission");
    listener.auth.without_tls = true;
    listener.tls.mode = TlsMode::Off;
    let site = Site::start(vec![listener]).await;
    let all = site.watch(WatchRequest { client_ip: "127.0.0.0/8".to_owned(), listener: String::new() }).await;
    let mut none = site.watch(WatchRequest { client_ip: String::new(), listener: "other".to_owned() }).await;

    let mut client = site.connect("submission").await;
    client.command("EHLO client", "250-").await;
    client.command("AUTH LOGIN", "334").await;
    client.command("YWxpY2U=", "334").await;
    client.command("c2VjcmV0", "235").await;
    client.message(&["bob@example.net"], "From: alice@example.org\r\n\r\ntext of the message").await;
    let sessions = site.ingress().sessions(SessionsRequest {}).await.unwrap().into_inner().sessions;
    assert_eq!(sessions.len(), 1);
    assert_eq!((sessions[0].user.as_str(), sessions[0].messages), ("alice@example.org", 1));
    assert_eq!((sessions[0].state.as_str(), sessions[0].listener.as_str()), ("command", "submission"));
    client.command("QUIT", "221").await;

    let lines = dialogue(all).await;
    let said = |direction: Direction| -> Vec<&str> {
        lines.iter().filter(|(found, _)| *found == direction).map(|(_, line)| line.as_str()).collect()
    };
    let client_said = said(Direction::Client);
    assert_eq!(client_said[..4], ["EHLO client", "AUTH LOGIN", "***", "***"]);
    assert!(client_said[4].starts_with("MAIL FROM:") && client_said.last() == Some(&"QUIT"), "{client_said:?}");
    let everything = lines.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>().join("\n");
    for secret in ["c2VjcmV0", "YWxpY2U=", "text of the message"] {
        assert!(!everything.contains(secret), "{everything}");
    }
    assert!(said(Direction::Server).iter().any(|line| line.starts_with("250 2.0.0 queued as ")));
    assert_eq!(said(Direction::Event), ["connected", "message text, 48 octets", "closed"]);
    assert!(tokio::time::timeout(Duration::from_millis(20), none.next()).await.is_err(), "a filter filters");
    let after = site.ingress().sessions(SessionsRequest {}).await.unwrap().into_inner().sessions;
    assert!(after.is_empty());
}

#[tokio::test]
async fn a_watcher_ends_with_the_drain() {
    let site = Site::start(vec![listener("mx")]).await;
    let mut lines = site.watch(WatchRequest::default()).await;
    site.node.drain().begin();
    assert!(tokio::time::timeout(PATIENCE, lines.next()).await.unwrap().is_none());
}

#[tokio::test]
async fn an_idle_session_costs_little_memory() {
    let site = Site::start(vec![listener("mx")]).await;
    let snapshot = site.node.snapshots().current();
    let terms = Arc::new(crate::terms::Terms::new(&snapshot.listeners["mx"], &snapshot, None));
    let (near, _far) = tokio::net::UnixStream::pair().unwrap();
    let identified = crate::identity::Identified {
        client: crate::identity::Client { address: None, address_known: false, local_user: String::new() },
        stream: Stream::Plain(Plain::new(Socket::Unix(near), bytes::Bytes::new())),
        header_forbidden: false,
    };
    let mut shell = crate::shell::Shell::new(Arc::new(Shared::new(&site.node)), terms, identified);
    let octets = size_of_val(&shell) + size_of_val(&shell.run());
    assert!(octets <= TASK_BYTES_MAX, "{octets}");
}
