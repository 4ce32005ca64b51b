use std::time::Duration;

use node::{Clock, Wire};
use posthouse_proto::queue::v1 as proto;
use posthouse_proto::queue::v1::SettleAnswer::Recorded;
use posthouse_proto::queue::v1::queue_client::QueueClient;
use tonic::Code;

use super::kit::{Bench, DEFERRED, DELIVERED, FAILED, Message, collect};

fn of(id: &str) -> proto::ChangeRequest {
    let filter = proto::Filter { message_ids: vec![id.to_owned()], ..proto::Filter::default() };
    proto::ChangeRequest { filter: Some(filter), ..proto::ChangeRequest::default() }
}

#[tokio::test]
async fn held_mail_waits_for_release_and_says_why() {
    let bench = Bench::new().await;
    let id = bench.accept(Message::to(&["a@one.example"])).await;
    let request = proto::ChangeRequest { reason: "suspicious".to_owned(), ..of(&id) };
    let held = bench.client.clone().hold(request.clone()).await.unwrap().into_inner();
    assert_eq!((held.messages, held.recipients), (1, 1));
    let again = bench.client.clone().hold(request).await.unwrap().into_inner();
    assert_eq!(again.recipients, 0, "a second hold changes nothing");
    let bench = bench.restart().await;
    let mut holder = bench.holder(1).await;
    assert!(holder.nothing().await);
    let shown = bench.show(&id).await.unwrap().message.unwrap().recipients.remove(0);
    assert_eq!((shown.state(), &*shown.hold_reason), (proto::RecipientState::Held, "suspicious"));
    let status = bench.status().await;
    assert_eq!((status.held, status.due, status.waiting), (1, 0, 0));
    assert_eq!(bench.client.clone().release(of(&id)).await.unwrap().into_inner().recipients, 1);
    let delivery = holder.delivery().await;
    bench.settle_all(&delivery, DELIVERED).await;
    assert_eq!(bench.kinds(&id).await, ["received", "held", "released", "delivered"]);
    assert_eq!(bench.status().await.held, 0);
}

#[tokio::test]
async fn a_hold_on_leased_mail_outlives_a_deferral_and_not_a_delivery() {
    let bench = Bench::new().await;
    let id = bench.accept(Message::to(&["a@one.example", "b@one.example"])).await;
    let mut holder = bench.holder(1).await;
    let delivery = holder.delivery().await;
    bench.client.clone().hold(of(&id)).await.unwrap();
    let results = vec![super::kit::result(0, DEFERRED), super::kit::result(1, DELIVERED)];
    let settled = proto::Settlement { lease: delivery.lease, results, ..proto::Settlement::default() };
    assert_eq!(bench.settle(vec![settled]).await, [Recorded]);
    let shown = bench.show(&id).await.unwrap().message.unwrap();
    let states: Vec<_> = shown.recipients.iter().map(proto::RecipientSummary::state).collect();
    assert_eq!(states, [proto::RecipientState::Held, proto::RecipientState::Delivered]);
    bench.clock.advance(Duration::from_secs(3600));
    holder.credit(1).await;
    assert!(holder.nothing().await);
    let status = bench.status().await;
    assert_eq!((status.held, status.waiting, status.due), (1, 0, 0));
}

#[tokio::test]
async fn retry_now_makes_waiting_mail_due_and_ends_the_pause_of_its_route() {
    let bench = Bench::new().await;
    let id = bench.accept(Message::to(&["a@one.example"])).await;
    let mut holder = bench.holder(1).await;
    let delivery = holder.delivery().await;
    let pause = proto::RoutePause { seconds: 3600, reason: String::new() };
    let settled = proto::Settlement { pause: Some(pause), ..super::kit::settlement(&delivery, DEFERRED) };
    bench.settle(vec![settled]).await;
    holder.credit(1).await;
    assert!(holder.nothing().await);
    assert_eq!(bench.client.clone().retry_now(of(&id)).await.unwrap().into_inner().recipients, 1);
    assert_eq!(holder.delivery().await.recipients[0].attempts, 1);
}

#[tokio::test]
async fn removed_mail_is_gone_and_its_sender_is_told_where_asked() {
    for told in [false, true] {
        let bench = Bench::new().await;
        let id = bench.accept(Message::to(&["a@one.example", "b@two.example"])).await;
        let request = proto::ChangeRequest { report: told, reason: "spam".to_owned(), ..of(&id) };
        let removed = bench.client.clone().remove(request.clone()).await.unwrap().into_inner();
        assert_eq!((removed.messages, removed.recipients), (1, 2));
        assert_eq!(bench.client.clone().remove(request).await.unwrap().into_inner().recipients, 0);
        let status = bench.status().await;
        assert_eq!((status.messages, status.reports, status.waiting), (u64::from(told), u64::from(told), 0));
        if told {
            let report = bench.holder(1).await.report().await;
            assert_eq!(report.recipients.len(), 2);
            assert!(report.recipients[0].outcome.as_ref().unwrap().reply.contains("spam"));
        } else {
            assert!(bench.holder(1).await.nothing().await);
        }
        assert!(bench.kinds(&id).await.contains(&"removed".to_owned()));
    }
}

#[tokio::test]
async fn the_sender_of_removed_mail_is_told_once_though_its_attempt_fails_too() {
    let bench = Bench::new().await;
    let id = bench.accept(Message::to(&["a@one.example"])).await;
    let mut holder = bench.holder(3).await;
    let delivery = holder.delivery().await;
    bench.client.clone().remove(proto::ChangeRequest { report: true, ..of(&id) }).await.unwrap();
    assert_eq!(bench.settle_all(&delivery, FAILED).await, Recorded);
    let report = holder.report().await;
    assert!(report.recipients[0].outcome.as_ref().unwrap().reply.contains("administrator"));
    assert!(holder.nothing().await, "a second report");
    assert_eq!(bench.status().await.reports, 1);
    assert_eq!(bench.kinds(&id).await, ["received", "removed"]);
}

#[tokio::test]
async fn a_settle_after_removal_brings_nothing_back() {
    let bench = Bench::new().await;
    let id = bench.accept(Message::to(&["a@one.example"])).await;
    let mut holder = bench.holder(2).await;
    let delivery = holder.delivery().await;
    bench.client.clone().remove(of(&id)).await.unwrap();
    bench.settle_all(&delivery, DEFERRED).await;
    bench.clock.advance(Duration::from_secs(3600));
    assert!(holder.nothing().await);
    let status = bench.status().await;
    assert_eq!((status.messages, status.waiting, status.leased), (0, 0, 0));
}

#[tokio::test]
async fn a_change_without_a_filter_must_say_all() {
    let bench = Bench::new().await;
    for n in 0..5 {
        bench.accept(Message::to(&[&format!("u{n}@one.example")])).await;
    }
    let error = bench.client.clone().remove(proto::ChangeRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let all = proto::ChangeRequest { all: true, ..proto::ChangeRequest::default() };
    assert_eq!(bench.client.clone().hold(all).await.unwrap().into_inner().recipients, 5);
}

#[tokio::test]
async fn lists_filter_and_go_on_after_an_id() {
    let bench = Bench::new().await;
    for n in 0..5 {
        let message = Message::to(&[&format!("u{n}@{}.example", if n < 2 { "one" } else { "two" })]);
        bench.accept(message.from(&format!("S{n}@sender.example"))).await;
    }
    let delivery = bench.holder(1).await.delivery().await;
    let list = async |filter: proto::Filter| {
        let request = proto::ListRequest { filter: Some(filter), ..proto::ListRequest::default() };
        bench.client.clone().list(request).await.unwrap().into_inner().messages.len()
    };
    let none = proto::Filter::default;
    let state = |state: proto::RecipientState| proto::Filter { state: state as i32, ..none() };
    let cases = [
        ("all", none(), 5),
        ("route", proto::Filter { route: "one.example".to_owned(), ..none() }, 2),
        ("transport", proto::Filter { transport: "mx".to_owned(), ..none() }, 5),
        ("no such transport", proto::Filter { transport: "lmtp".to_owned(), ..none() }, 0),
        ("sender", proto::Filter { sender: "s3@SENDER.example".to_owned(), ..none() }, 1),
        ("sender's domain", proto::Filter { sender: "@sender.example".to_owned(), ..none() }, 5),
        ("recipient", proto::Filter { recipient: "u1@one.example".to_owned(), ..none() }, 1),
        ("recipient's domain", proto::Filter { recipient: "@two.example".to_owned(), ..none() }, 3),
        ("a wildcard is a letter", proto::Filter { recipient: "u%@two.example".to_owned(), ..none() }, 0),
        ("due", state(proto::RecipientState::Due), 4),
        ("leased", state(proto::RecipientState::Leased), 1),
        ("waiting", state(proto::RecipientState::Waiting), 0),
        ("held", state(proto::RecipientState::Held), 0),
        ("old", proto::Filter { older_than_s: 3600, ..none() }, 0),
        ("id", proto::Filter { message_ids: vec![delivery.message_id.clone()], ..none() }, 1),
    ];
    for (name, filter, expected) in cases {
        assert_eq!(list(filter).await, expected, "{name}");
    }
    let (mut after, mut seen) = (String::new(), Vec::new());
    loop {
        let request = proto::ListRequest { filter: None, limit: 2, after };
        let page = bench.client.clone().list(request).await.unwrap().into_inner();
        seen.extend(page.messages.into_iter().map(|message| message.message_id));
        after = page.next;
        if after.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 5);
    assert!(seen.is_sorted_by(|a, b| a > b), "newest first");
}

#[tokio::test]
async fn traces_are_found_by_id_address_and_message_id_after_the_mail_has_left() {
    let bench = Bench::new().await;
    let mut message = Message::to(&["Anna@one.example"]);
    message.header_message_id = "<Unique.1@sender.example>".to_owned();
    let id = bench.accept(message).await;
    bench.accept(Message::to(&["other@one.example"]).from("other@sender.example")).await;
    let mut holder = bench.holder(2).await;
    for _ in 0..2 {
        let delivery = holder.delivery().await;
        bench.settle_all(&delivery, DELIVERED).await;
    }
    let cases = [
        ("recipient", proto::TraceRequest { address: "anna@one.example".to_owned(), ..Default::default() }, 2),
        ("sender", proto::TraceRequest { address: "s@sender.example".to_owned(), ..Default::default() }, 2),
        ("part of an address", proto::TraceRequest { address: "na@one.example".to_owned(), ..Default::default() }, 0),
        (
            "Message-ID",
            proto::TraceRequest { header_message_id: "<unique.1@sender.example>".to_owned(), ..Default::default() },
            2,
        ),
    ];
    for (name, request, expected) in cases {
        let events = bench.client.clone().trace(request).await.unwrap().into_inner().events;
        assert_eq!(events.len(), expected, "{name}");
        assert!(events.iter().all(|event| event.message_id == id), "{name}");
    }
    let error = bench.client.clone().trace(proto::TraceRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_export_is_the_message_as_it_would_be_sent() {
    let bench = Bench::new().await;
    let id = bench.accept(Message::to(&["a@one.example"]).with_body(b"one\r\ntwo\r\n".to_vec())).await;
    let request = |variant| proto::ExportRequest { message_id: id.clone(), variant };
    let text = collect(bench.client.clone().export(request(0)).await.unwrap().into_inner()).await.unwrap();
    assert_eq!(text, b"Subject: test\r\nFrom: s@sender.example\r\n\r\none\r\ntwo\r\n");
    assert_eq!(bench.client.clone().export(request(1)).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_backup_opens_as_a_state_folder_and_is_whole() {
    let bench = Bench::new().await;
    let small = bench.accept(Message::to(&["a@one.example"])).await;
    let large = bench.accept(Message::to(&["b@one.example"]).with_body(vec![b'y'; 100_000])).await;
    let target = tempfile::tempdir().unwrap();
    let request = proto::BackupRequest { directory: target.path().to_str().unwrap().to_owned() };
    let done = bench.client.clone().backup(request.clone()).await.unwrap().into_inner();
    assert_eq!(done.messages, 2);
    assert!(done.bytes > 100_000);
    let error = bench.client.clone().backup(request).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "a folder that is not empty");
    // The original goes on without touching the copy.
    let mut holder = bench.holder(2).await;
    for _ in 0..2 {
        let delivery = holder.delivery().await;
        bench.settle_all(&delivery, DELIVERED).await;
    }
    let copy = Bench::over(std::sync::Arc::new(target), Clock::system()).await;
    assert_eq!(copy.body(&small, 0).await.unwrap(), b"hello\r\n");
    assert_eq!(copy.body(&large, 0).await.unwrap(), vec![b'y'; 100_000]);
    let mut holder = copy.holder(2).await;
    for _ in 0..2 {
        holder.delivery().await;
    }
}

#[tokio::test]
async fn the_queue_of_a_stopped_platform_is_read_and_changed_but_not_leased() {
    let bench = Bench::new().await;
    let id = bench.accept(Message::to(&["a@one.example"])).await;
    let running = crate::open_offline(bench.path(), Clock::system()).await;
    assert!(matches!(running, Err(crate::StartError::InUse(_))), "a running queue is not opened twice");
    let state_dir = std::sync::Arc::clone(&bench.state_dir);
    let stopped = bench.restart().await;
    stopped.node.drain().begin();
    let weak = std::sync::Arc::downgrade(&stopped.inner);
    drop(stopped);
    super::kit::until("the queue has stopped", || weak.upgrade().is_none()).await;
    let server = crate::open_offline(state_dir.path(), Clock::system()).await.unwrap();
    let mut client = QueueClient::new(Wire::to_server(server, Clock::system()));
    let shown = client.show(proto::ShowRequest { message_id: id.clone() }).await.unwrap().into_inner();
    assert_eq!(shown.message.unwrap().message_id, id);
    assert_eq!(client.hold(of(&id)).await.unwrap().into_inner().recipients, 1);
    let lease = client.lease(tokio_stream::iter([proto::LeaseRequest::default()])).await;
    assert_eq!(lease.unwrap_err().code(), Code::FailedPrecondition);
    let nowhere = tempfile::tempdir().unwrap();
    let missing = crate::open_offline(nowhere.path(), Clock::system()).await;
    assert!(matches!(missing, Err(crate::StartError::Folder { .. })));
}

#[tokio::test]
async fn old_events_of_settled_mail_are_trimmed_and_those_of_queued_mail_stay() {
    let bench = Bench::new().await;
    let gone = bench.accept(Message::to(&["a@one.example"])).await;
    let delivery = bench.holder(1).await.delivery().await;
    bench.settle_all(&delivery, DELIVERED).await;
    let here = bench.accept(Message::to(&["b@one.example"])).await;
    bench.clock.advance(Duration::from_secs(8 * 86_400));
    for _ in 0..500 {
        if bench.trace(&gone).await.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(bench.trace(&gone).await.is_empty());
    assert_eq!(bench.kinds(&here).await, ["received"]);
}
