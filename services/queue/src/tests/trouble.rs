use std::sync::Arc;

use posthouse_proto::queue::v1 as proto;
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tonic::Code;

use super::kit::{Bench, DELIVERED, Message, until};
use crate::model::{Event, State};
use crate::store::{RecipientChange, Store, StoreError, Write};

async fn database(bench: &Bench) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(bench.path().join("queue/queue.sqlite"));
    SqliteConnection::connect_with(&options).await.unwrap()
}

#[tokio::test]
async fn one_message_that_cannot_be_read_is_held_with_a_reason_and_others_go_on() {
    let bench = Bench::new().await;
    let bad = bench.accept(Message::to(&["a@one.example"])).await;
    let good = bench.accept(Message::to(&["b@one.example"])).await;
    let bench = bench.restart().await;
    let mut other = database(&bench).await;
    sqlx::query("UPDATE bodies SET body = x'00' WHERE seq = (SELECT seq FROM messages WHERE id = ?)")
        .bind(&bad)
        .execute(&mut other)
        .await
        .unwrap();
    let mut holder = bench.holder(10).await;
    assert_eq!(holder.delivery().await.message_id, good);
    for _ in 0..500 {
        if bench.status().await.held == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let shown = bench.show(&bad).await.unwrap().message.unwrap().recipients.remove(0);
    assert_eq!(shown.state(), proto::RecipientState::Held);
    assert!(shown.hold_reason.contains("body"), "{}", shown.hold_reason);
}

#[tokio::test]
async fn a_message_whose_body_file_is_gone_is_held_when_it_is_read() {
    let bench = Bench::new().await;
    let id = bench.accept(Message::to(&["a@one.example"]).with_body(vec![b'x'; 50_000])).await;
    let name = bench.body_files().remove(0);
    std::fs::remove_file(bench.path().join("queue/bodies").join(&id[24..]).join(name)).unwrap();
    assert_eq!(bench.body(&id, 0).await.unwrap_err().code(), Code::DataLoss);
    for _ in 0..500 {
        if bench.status().await.held == 1 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the message was not held");
}

#[tokio::test]
async fn when_a_write_fails_nothing_counts_the_caller_is_told_and_the_queue_recovers_by_itself() {
    let bench = Bench::new().await;
    let mut holder = bench.holder(10).await;
    bench.accept(Message::to(&["a@one.example"])).await;
    let delivery = holder.delivery().await;
    let mut other = database(&bench).await;
    // Every write fails as on a full disk, until the trigger is gone.
    sqlx::query("CREATE TRIGGER broken BEFORE INSERT ON events BEGIN SELECT json_extract('not json', '$'); END")
        .execute(&mut other)
        .await
        .unwrap();
    let refused = Message::to(&["b@one.example"]);
    let error = bench.try_accept(refused.clone()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    let request = proto::SettleRequest { settlements: vec![super::kit::settlement(&delivery, DELIVERED)] };
    assert_eq!(bench.client.clone().settle(request.clone()).await.unwrap_err().code(), Code::Unavailable);
    assert!(holder.nothing().await, "what was not committed was handed out");
    sqlx::query("DROP TRIGGER broken").execute(&mut other).await.unwrap();
    for _ in 0..500 {
        if bench.node.health().is_ready() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(bench.status().await.writable);
    let answers = bench.client.clone().settle(request).await.unwrap().into_inner();
    assert_eq!(answers.answers().next(), Some(proto::SettleAnswer::Recorded), "the lease lived on");
    bench.accept(refused.clone()).await;
    assert_eq!(holder.delivery().await.message_id, refused.id);
}

#[tokio::test]
async fn an_operation_of_its_own_fault_does_not_hurt_the_rest_of_its_group() {
    let bench = Bench::new().await;
    let mut other = database(&bench).await;
    sqlx::query("CREATE TRIGGER odd BEFORE INSERT ON messages WHEN new.header_message_id = '<odd>' BEGIN SELECT RAISE(ABORT, 'odd'); END")
        .execute(&mut other)
        .await
        .unwrap();
    let mut odd = Message::to(&["a@one.example"]);
    odd.header_message_id = "<odd>".to_owned();
    let bench = Arc::new(bench);
    let mut tasks = Vec::new();
    for n in 0..50 {
        let message = if n == 25 { odd.clone() } else { Message::to(&["b@one.example"]) };
        let bench = Arc::clone(&bench);
        tasks.push(tokio::spawn(async move { bench.try_accept(message).await.is_ok() }));
    }
    let mut accepted = 0;
    for task in tasks {
        accepted += usize::from(task.await.unwrap());
    }
    assert_eq!(accepted, 49);
    assert_eq!(bench.status().await.messages, 49);
}

#[tokio::test]
async fn the_database_keeps_what_it_is_told_by_its_settings() {
    let bench = Bench::new().await;
    let mut other = database(&bench).await;
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut other).await.unwrap();
    assert_eq!(mode, "wal");
    let check: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut other).await.unwrap();
    assert_eq!(check, "ok");
}

#[tokio::test]
async fn a_database_that_cannot_be_a_database_is_named_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("queue")).unwrap();
    std::fs::write(folder.path().join("queue/queue.sqlite"), vec![b'x'; 8192]).unwrap();
    let opened = crate::open_offline(folder.path(), node::Clock::system()).await;
    assert!(matches!(opened, Err(crate::StartError::Store { .. })));
}

#[tokio::test]
async fn a_store_writes_a_group_whole_or_not_at_all() {
    let bench = Bench::new().await;
    let id = bench.accept(Message::to(&["a@one.example"])).await;
    let store = &bench.inner.store;
    let event = |n| Event {
        message_id: id.clone(),
        number: n,
        at: 1,
        kind: "held".to_owned(),
        text: "{}".to_owned(),
        only_with: None,
    };
    let mut other = database(&bench).await;
    sqlx::query("CREATE TRIGGER odd BEFORE UPDATE ON recipients BEGIN SELECT RAISE(ABORT, 'odd'); END")
        .execute(&mut other)
        .await
        .unwrap();
    let key = crate::model::key(1, 0);
    let change = RecipientChange { key, from: State::Open, to: State::Held, due: None, reason: String::new() };
    let group = [
        Write { events: vec![event(i64::MAX)], ..Write::default() },
        Write { changes: vec![change], ..Write::default() },
    ];
    assert!(matches!(store.write(&group).await, Err(StoreError::Refused(_))));
    assert_eq!(bench.kinds(&id).await, ["received"]);
    sqlx::query("DROP TRIGGER odd").execute(&mut other).await.unwrap();
    let written = store.write(&group).await.unwrap();
    assert_eq!(written.changed, [key]);
    assert_eq!(bench.kinds(&id).await, ["received", "held"]);
}

#[tokio::test]
async fn the_log_of_the_database_is_copied_back_beside_the_traffic() {
    let bench = Bench::new().await;
    let wal = bench.path().join("queue/queue.sqlite-wal");
    let mut holder = bench.holder(1).await;
    for _ in 0..1500 {
        bench.accept(Message::to(&["a@one.example"]).with_body(vec![b'x'; 4000])).await;
        let delivery = holder.delivery().await;
        bench.settle_all(&delivery, DELIVERED).await;
        holder.credit(1).await;
    }
    bench.inner.store.tidy().await.unwrap();
    let database = bench.path().join("queue/queue.sqlite");
    until("the database has grown", || std::fs::metadata(&database).unwrap().len() > 100_000).await;
    bench.accept(Message::to(&["a@one.example"])).await;
    assert!(std::fs::metadata(&wal).unwrap().len() < 200 << 20);
}
