use std::sync::Arc;

use posthouse_proto::queue::v1 as proto;
use posthouse_proto::queue::v1::accept_request::Step;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::kit::{Bench, DELIVERED, Message, until};

#[tokio::test]
async fn what_was_accepted_is_there_after_a_restart_and_whole() {
    let bench = Bench::new().await;
    let id = bench.accept(Message::to(&["a@one.example", "b@two.example"])).await;
    let bench = bench.restart().await;
    let shown = bench.show(&id).await.unwrap();
    assert_eq!(shown.variants[0].header, "Subject: test\r\nFrom: s@sender.example\r\n");
    assert_eq!(shown.message.unwrap().recipients.len(), 2);
    assert_eq!(shown.origin.unwrap().helo, "client.example");
    assert_eq!(bench.body(&id, 0).await.unwrap(), b"hello\r\n");
    assert_eq!(bench.body(&id, 5).await.unwrap(), b"\r\n");
    let status = bench.status().await;
    assert_eq!((status.messages, status.due), (1, 2));
    let mut holder = bench.holder(10).await;
    let routes = [holder.delivery().await.route, holder.delivery().await.route];
    assert!(routes.contains(&"one.example".to_owned()) && routes.contains(&"two.example".to_owned()));
}

#[tokio::test]
async fn a_second_commit_of_an_id_changes_nothing_even_after_the_message_has_left() {
    let bench = Bench::new().await;
    let message = Message::to(&["a@one.example"]).with_body(vec![b'x'; 10_000]);
    bench.accept(message.clone()).await;
    assert!(bench.try_accept(message.clone()).await.unwrap().already_present);
    assert_eq!(bench.status().await.messages, 1);
    until("the second body is deleted", || bench.body_files().len() == 1).await;
    let delivery = bench.holder(1).await.delivery().await;
    assert_eq!(bench.body(&message.id, 0).await.unwrap(), message.body);
    bench.settle_all(&delivery, DELIVERED).await;
    assert!(bench.try_accept(message.clone()).await.unwrap().already_present);
    assert_eq!(bench.status().await.messages, 0);
    until("no body is left", || bench.body_files().is_empty()).await;
}

#[tokio::test]
async fn a_stream_without_commit_leaves_nothing() {
    let bench = Bench::new().await;
    let chunk = || proto::AcceptRequest { step: Some(Step::Chunk(vec![b'x'; 8000].into())) };
    let abort = proto::AcceptRequest { step: Some(Step::Abort(proto::Abort {})) };
    for steps in [vec![chunk(), chunk()], vec![chunk(), abort]] {
        let error = bench.client.clone().accept(tokio_stream::iter(steps)).await.unwrap_err();
        assert_eq!(error.code(), Code::Cancelled);
    }
    until("uploads are deleted", || bench.body_files().is_empty()).await;
    assert_eq!(bench.status().await.messages, 0);
}

#[tokio::test]
async fn what_breaks_the_contract_is_refused_and_leaves_nothing() {
    type Break = fn(&mut proto::Commit);
    let cases: [(&str, Break); 9] = [
        ("size", |commit| commit.body_size_bytes += 1),
        ("id", |commit| commit.message_id = "x".to_owned()),
        ("no variant", |commit| commit.variants.clear()),
        ("no recipient", |commit| commit.variants[0].recipients.clear()),
        ("no address", |commit| commit.variants[0].recipients[0].address.clear()),
        ("control", |commit| commit.variants[0].recipients[0].address = "a\r\n@b".to_owned()),
        ("NUL", |commit| commit.variants[0].sender = "a\0@b".to_owned()),
        ("long route", |commit| commit.variants[0].recipients[0].route = "x".repeat(5000)),
        ("recipients", |commit| {
            let one = commit.variants[0].recipients[0].clone();
            commit.variants[0].recipients = vec![one; 10_001];
        }),
    ];
    let bench = Bench::new().await;
    for (name, change) in cases {
        let message = Message::to(&["a@one.example"]);
        let mut commit = message.commit(0);
        change(&mut commit);
        let steps = [Step::Chunk(message.body.into()), Step::Commit(commit)];
        let steps = steps.map(|step| proto::AcceptRequest { step: Some(step) });
        let error = bench.client.clone().accept(tokio_stream::iter(steps)).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{name}");
    }
    let large = proto::AcceptRequest { step: Some(Step::Chunk(vec![0; (64 << 10) + 1].into())) };
    let error = bench.client.clone().accept(tokio_stream::iter([large])).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(bench.status().await.messages, 0);
}

#[tokio::test]
async fn octets_of_every_kind_come_out_as_they_went_in() {
    let bench = Bench::new().await;
    let every: Vec<u8> = (0..=255u8).cycle().take(3000).collect();
    for body in [Vec::new(), every.clone(), every.repeat(100)] {
        let mut message = Message::to(&["a@one.example"]).with_body(body.clone());
        message.variants[0].header = every.clone().into();
        message.variants[0].sender = "\"odd \\\" 'quote'; --\"@sender.example".to_owned();
        let mut holder = bench.holder(1).await;
        let id = bench.accept(message.clone()).await;
        let delivery = holder.delivery().await;
        assert_eq!(delivery.body_inline, body.len() <= 4096);
        assert_eq!(bench.body(&id, 0).await.unwrap(), body);
        let shown = bench.show(&id).await.unwrap();
        assert_eq!((&shown.variants[0].header, &shown.variants[0].sender), (&delivery.header, &delivery.sender));
        assert_eq!(delivery.header, every);
        assert_eq!(delivery.sender, message.variants[0].sender);
        bench.settle_all(&delivery, DELIVERED).await;
    }
}

#[tokio::test]
async fn a_large_body_is_a_file_that_leaves_with_its_message_and_leftovers_are_swept() {
    let bench = Bench::new().await;
    let body: Vec<u8> = (0..5_000_000u32).map(|n| (n % 251) as u8).collect();
    let id = bench.accept(Message::to(&["a@one.example"]).with_body(body.clone())).await;
    assert_eq!(bench.body_files().len(), 1);
    let folder = bench.path().join("queue/bodies");
    std::fs::create_dir_all(folder.join("er")).unwrap();
    let old = std::fs::metadata(&folder).unwrap().modified().unwrap() - std::time::Duration::from_secs(3600);
    // An upload cut off, a second body of a known id, and a body of an unknown one.
    for name in ["tmp/unfinished".to_owned(), format!("{}/{id}-00000000", &id[24..]), "er/stranger".to_owned()] {
        let file = std::fs::File::create(folder.join(name)).unwrap();
        file.set_modified(old).unwrap();
    }
    let bench = bench.restart().await;
    until("leftovers are swept", || bench.body_files().len() == 1).await;
    assert_eq!(bench.body(&id, 0).await.unwrap(), body);
    assert_eq!(bench.body(&id, 4_999_990).await.unwrap(), body[4_999_990..]);
    let delivery = bench.holder(1).await.delivery().await;
    assert!(!delivery.body_inline && delivery.body.is_empty());
    assert_eq!(delivery.body_size_bytes, 5_000_000);
    bench.settle_all(&delivery, DELIVERED).await;
    until("the body is deleted", || bench.body_files().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_wait_share_a_transaction_and_a_lonely_one_waits_for_nobody() {
    const MESSAGES: usize = 200;
    let bench = Arc::new(Bench::new().await);
    let wal = bench.path().join("queue/queue.sqlite-wal");
    let before = std::fs::metadata(&wal).unwrap().len();
    bench.accept(Message::to(&["a@one.example"])).await;
    let lonely = std::fs::metadata(&wal).unwrap().len() - before;
    let tasks: Vec<_> = (0..MESSAGES)
        .map(|_| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move { bench.accept(Message::to(&["a@one.example"])).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(bench.status().await.messages, MESSAGES as u64 + 1);
    let together = std::fs::metadata(&wal).unwrap().len() - before - lonely;
    // Each transaction writes every page that it touches: had each message its own, this would be the sum.
    assert!(together < lonely * MESSAGES as u64 / 3, "{together} bytes of log for {MESSAGES}, {lonely} for one");
}

#[tokio::test]
async fn nothing_is_taken_below_the_watermark_while_settles_are_written() {
    let bench = Bench::new().await;
    bench.accept(Message::to(&["a@one.example"])).await;
    let delivery = bench.holder(1).await.delivery().await;
    bench.inner.space.pretend(1000);
    bench.clock.advance(std::time::Duration::from_secs(2));
    let error = bench.try_accept(Message::to(&["b@one.example"])).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    let status = bench.status().await;
    assert!(!status.writable && status.trouble.contains("1000 bytes"), "{}", status.trouble);
    assert!(matches!(bench.node.health().parts()["queue"], node::Part::Degraded(_)));
    assert_eq!(bench.settle_all(&delivery, DELIVERED).await, proto::SettleAnswer::Recorded);
    bench.inner.space.pretend(u64::MAX);
    bench.clock.advance(std::time::Duration::from_secs(2));
    bench.accept(Message::to(&["b@one.example"])).await;
    assert_eq!(bench.node.health().parts()["queue"], node::Part::Ready);
}

#[tokio::test]
async fn a_slow_body_streams_while_it_arrives() {
    let bench = Bench::new().await;
    let (steps, stream) = mpsc::channel(1);
    let message = Message::to(&["a@one.example"]).with_body(vec![b'x'; 3 << 20]);
    let sending = message.clone();
    let upload = bench.path().join("queue/bodies/tmp");
    let sender = tokio::spawn(async move {
        let mut all = sending.steps(0).into_iter();
        for step in all.by_ref().take(40) {
            steps.send(step).await.unwrap();
        }
        until("octets are in the file before the end", || {
            let mut files = std::fs::read_dir(&upload).unwrap();
            files.next().is_some_and(|file| file.unwrap().metadata().unwrap().len() >= 1 << 20)
        })
        .await;
        for step in all {
            steps.send(step).await.unwrap();
        }
    });
    bench.client.clone().accept(ReceiverStream::new(stream)).await.unwrap();
    sender.await.unwrap();
    assert_eq!(bench.body(&message.id, 0).await.unwrap(), message.body);
}
