//! A wall clock that is set while mail waits.

use std::time::Duration;

use posthouse_proto::queue::v1 as proto;
use posthouse_proto::queue::v1::SettleAnswer::Recorded;

use super::kit::{Bench, DEFERRED, DELIVERED, Message, until};

const HOUR_MS: i64 = 3_600_000;
/// After the first failure, by the default schedule.
const DELAY: Duration = Duration::from_secs(5 * 60);

async fn noticed(bench: &Bench, ahead_ms: i64) {
    until("the jump is noticed", || (bench.inner.dispatch.lock().ahead - ahead_ms).abs() < 5000).await;
}

#[tokio::test]
async fn after_an_hour_back_mail_leaves_within_its_ordinary_delay() {
    let bench = Bench::new().await;
    let mut holder = bench.holder(10).await;
    let deferred = bench.accept(Message::to(&["a@one.example"])).await;
    let delivery = holder.delivery().await;
    bench.settle_all(&delivery, DEFERRED).await;
    drop(holder);
    until("nobody waits", || !bench.inner.dispatch.lock().holders.any_credit()).await;
    let due = bench.accept(Message::to(&["b@two.example"])).await;

    bench.clock.jump_wall(-HOUR_MS);
    noticed(&bench, HOUR_MS).await;
    let mut holder = bench.holder(10).await;
    let delivery = holder.delivery().await;
    assert_eq!(delivery.message_id, due, "what was due is due");
    bench.settle_all(&delivery, DELIVERED).await;
    let fresh = bench.accept(Message::to(&["c@three.example"])).await;
    let delivery = holder.delivery().await;
    assert_eq!(delivery.message_id, fresh);
    bench.settle_all(&delivery, DEFERRED).await;
    assert!(holder.nothing().await, "nothing comes before its time");
    bench.clock.advance(DELAY);
    let mut found = [holder.delivery().await.message_id, holder.delivery().await.message_id];
    found.sort();
    let mut expected = [deferred, fresh];
    expected.sort();
    assert_eq!(found, expected);

    // The clock is put right again: nothing is due twice for it.
    bench.clock.jump_wall(HOUR_MS);
    noticed(&bench, 0).await;
    assert!(holder.nothing().await);
}

#[tokio::test]
async fn after_a_day_forward_everything_is_tried_once_within_its_limits_and_nothing_is_given_up() {
    const MESSAGES: usize = 30;
    const IN_FLIGHT: u32 = 3;
    let bench = Bench::new().await;
    let limits = vec![proto::RouteLimit {
        transport: "mx".to_owned(),
        in_flight_per_route_max: IN_FLIGHT,
        recipients_per_delivery_max: 100,
    }];
    let mut holder = bench.holder_with(100, limits).await;
    for _ in 0..MESSAGES {
        // From nobody: a day is long enough for warnings, which are not what is counted here.
        bench.accept(Message::to(&["a@one.example"]).from("")).await;
    }
    for _ in 0..MESSAGES {
        let delivery = holder.delivery().await;
        assert_eq!(bench.settle_all(&delivery, DEFERRED).await, Recorded);
        holder.credit(1).await;
    }
    bench.clock.jump_wall(24 * HOUR_MS);
    let mut open = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < MESSAGES || !open.is_empty() {
        while open.len() < IN_FLIGHT as usize && seen.len() < MESSAGES {
            let delivery = holder.delivery().await;
            assert!(seen.insert(delivery.message_id.clone()), "a message is tried twice");
            open.push(delivery);
        }
        if seen.len() == IN_FLIGHT as usize {
            assert!(holder.nothing().await, "more than {IN_FLIGHT} are in flight");
        }
        // A lease does not end by the wall clock.
        assert_eq!(bench.settle_all(&open.remove(0), DEFERRED).await, Recorded);
        holder.credit(1).await;
    }
    assert!(holder.nothing().await, "one jump is one attempt");
    let status = bench.status().await;
    assert_eq!(status.messages, MESSAGES as u64, "nothing was given up");
    bench.clock.advance(2 * DELAY);
    let delivery = holder.delivery().await;
    assert_eq!(delivery.recipients[0].attempts, 2);
    assert_eq!(bench.settle_all(&delivery, DELIVERED).await, Recorded);
}
