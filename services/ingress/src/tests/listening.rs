//! Sockets, reloads, bounds of sessions, drain.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::listeners::ListenerFault;

#[tokio::test]
async fn listeners_come_and_go_without_touching_sessions() {
    let site = Site::start(vec![listener("one"), listener("two")]).await;
    let address = site.address("one");
    let (mut one, mut two) = (site.connect("one").await, site.connect("two").await);
    let mut changed = listener("one");
    changed.hostname = domain("new.example.org");
    site.reload(snapshot(vec![changed, listener("three")]), |site| site.addresses().contains_key("three")).await;
    assert_eq!(site.address("one"), address, "an unchanged socket stays open");
    assert!(!site.addresses().contains_key("two"));
    // Running sessions keep what they began with, also where their listener is gone.
    assert!(one.command("EHLO x", "250-").await.contains("mx1.example.org"));
    two.command("EHLO x", "250-").await;
    let mut later = Client::connect(&address).await;
    later.expect("220 new.example.org").await;
    site.connect("three").await;
}

#[tokio::test]
async fn an_address_may_move_to_another_listener() {
    let site = Site::start(vec![listener("one")]).await;
    let address = site.address("one");
    let port = address.rsplit(':').next().unwrap().parse().unwrap();
    let moved = |name: &str| {
        let mut moved = listener(name);
        moved.endpoint = Endpoint::Tcp { addresses: vec!["127.0.0.1".parse().unwrap()], port, v6_only: false };
        moved
    };
    site.reload(snapshot(vec![moved("one")]), |site| site.addresses().contains_key("one")).await;
    site.reload(snapshot(vec![moved("other")]), |site| site.addresses().contains_key("other")).await;
    assert_eq!(site.address("other"), address);
    site.connect("other").await;
}

#[tokio::test]
async fn an_address_in_use_stops_a_start_and_only_degrades_a_reload() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let busy = || {
        let mut busy = listener("busy");
        busy.endpoint = Endpoint::Tcp { addresses: vec!["127.0.0.1".parse().unwrap()], port, v6_only: false };
        busy
    };
    let site = Site::prepare(snapshot(vec![busy(), listener("fine")]));
    let faults = crate::start(&site.node).await.unwrap_err();
    assert!(matches!(&faults.0[..], [ListenerFault::Bind { listener, .. }] if listener == "busy"));
    let text = faults.to_string();
    assert!(text.contains(&format!("127.0.0.1:{port}")) && text.contains("choose another port"), "{text}");

    let site = Site::start(vec![listener("fine")]).await;
    let degraded = |site: &Site| matches!(site.node.health().parts()["listeners"], node::Part::Degraded(_));
    site.reload(snapshot(vec![busy(), listener("fine")]), degraded).await;
    site.connect("fine").await;
    drop(taken);
    site.reload(snapshot(vec![busy(), listener("fine")]), |site| !degraded(site)).await;
    site.connect("busy").await;
}

#[tokio::test]
async fn a_listener_has_room_for_so_many_sessions() {
    let mut mx = listener("mx");
    mx.limits.sessions_max = 1;
    let site = Site::start(vec![mx]).await;
    let _first = site.connect("mx").await;
    let mut second = Client::connect(&site.address("mx")).await;
    second.expect("421 4.7.0").await;
    second.expect_end().await;
}

#[tokio::test]
async fn a_client_that_says_nothing_is_told_and_closed() {
    let mut mx = listener("mx");
    mx.limits.command_timeout = Duration::from_millis(100);
    let site = Site::start(vec![mx]).await;
    let mut client = site.connect("mx").await;
    client.expect("421 4.4.2").await;
    client.expect_end().await;
}

#[tokio::test]
async fn drain_finishes_transactions_and_ends_idle_sessions() {
    let site = Site::start(vec![listener("mx")]).await;
    let address = site.address("mx");
    let mut idle = site.connect("mx").await;
    let mut busy = site.connect("mx").await;
    busy.command("EHLO client", "250-").await;
    busy.begin(&["alice@example.org"]).await;
    busy.send("Subject: x\r\n\r\nfirst\r\n").await;
    site.node.drain().begin();
    idle.expect("421 4.3.2").await;
    idle.expect_end().await;
    busy.send("last\r\n.\r\n").await;
    busy.expect("250 2.0.0").await;
    busy.expect("421 4.3.2").await;
    busy.expect_end().await;
    tokio::time::timeout(PATIENCE, site.node.drain().finished()).await.unwrap();
    assert_eq!(site.queue.only().body, b"first\r\nlast\r\n");
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_transaction_that_never_ends_does_not_hold_up_the_drain() {
    let mut snapshot = snapshot(vec![listener("mx")]);
    snapshot.platform.drain_max = Duration::from_millis(100);
    let site = Site::start_with(snapshot).await;
    let mut client = site.connect("mx").await;
    client.command("EHLO client", "250-").await;
    client.begin(&["alice@example.org"]).await;
    site.node.drain().begin();
    tokio::time::timeout(PATIENCE, site.node.drain().finished()).await.unwrap();
}

#[tokio::test]
async fn replies_to_a_group_of_commands_leave_in_one_piece() {
    let site = Site::start(vec![listener("mx")]).await;
    let mut stream = tokio::net::TcpStream::connect(site.address("mx")).await.unwrap();
    let mut buffer = [0; 4096];
    assert_ne!(stream.read(&mut buffer).await.unwrap(), 0);
    stream.write_all(b"EHLO client\r\n").await.unwrap();
    assert_ne!(stream.read(&mut buffer).await.unwrap(), 0);
    stream.write_all(b"RSET\r\nMAIL FROM:<s@a.org>\r\nRCPT TO:<alice@example.org>\r\nNOOP\r\n").await.unwrap();
    let octets = stream.read(&mut buffer).await.unwrap();
    let replies = std::str::from_utf8(&buffer[..octets]).unwrap();
    assert_eq!(replies.lines().filter(|line| line.starts_with("250 ")).count(), 4, "{replies}");
}
