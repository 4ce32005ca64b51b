use std::time::Duration;

use posthouse_proto::queue::v1 as proto;
use posthouse_proto::queue::v1::SettleAnswer::{Recorded, Stale};

use crate::store::Store;

use super::kit::{Bench, DEFERRED, DELIVERED, Message, result, settlement, until};

fn limit(in_flight: u32, recipients: u32) -> Vec<proto::RouteLimit> {
    vec![proto::RouteLimit {
        transport: "mx".to_owned(),
        in_flight_per_route_max: in_flight,
        recipients_per_delivery_max: recipients,
    }]
}

#[tokio::test]
async fn a_waiting_holder_gets_fresh_mail_at_once_and_no_more_than_its_credit() {
    let bench = Bench::new().await;
    let mut holder = bench.holder(1).await;
    let first = bench.accept(Message::to(&["a@one.example"])).await;
    let second = bench.accept(Message::to(&["b@two.example"])).await;
    let delivery = holder.delivery().await;
    assert_eq!((&delivery.message_id, &*delivery.body), (&first, &b"hello\r\n"[..]));
    assert_eq!(delivery.recipients[0].recipient.as_ref().unwrap().address, "a@one.example");
    assert!(holder.nothing().await);
    holder.credit(1).await;
    assert_eq!(holder.delivery().await.message_id, second);
}

#[tokio::test]
async fn routes_take_turns_and_the_oldest_goes_first_inside_one() {
    let bench = Bench::new().await;
    let mut busy = Vec::new();
    for n in 0..20 {
        busy.push(bench.accept(Message::to(&[&format!("u{n}@busy.example")])).await);
        bench.clock.advance(Duration::from_millis(5));
    }
    bench.accept(Message::to(&["a@calm.example"])).await;
    // Both from memory and, after a restart, from the store.
    let bench = bench.restart().await;
    let mut holder = bench.holder_with(6, limit(100, 100)).await;
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(holder.delivery().await);
    }
    assert!(seen.iter().take(3).any(|delivery| delivery.route == "calm.example"), "the calm route waited");
    let order: Vec<_> = seen.iter().filter(|d| d.route == "busy.example").map(|d| d.message_id.clone()).collect();
    assert_eq!(order, busy[..5]);
}

#[tokio::test]
async fn a_route_has_no_more_in_flight_and_a_delivery_no_more_recipients_than_the_limits_say() {
    for restart in [false, true] {
        let mut bench = Bench::new().await;
        let addresses: Vec<String> = (0..7).map(|n| format!("u{n}@one.example")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        bench.accept(Message::to(&addresses)).await;
        if restart {
            bench = bench.restart().await;
        }
        let mut holder = bench.holder_with(100, limit(2, 3)).await;
        let (first, second) = (holder.delivery().await, holder.delivery().await);
        assert_eq!((first.recipients.len(), second.recipients.len()), (3, 3));
        assert!(holder.nothing().await, "a third delivery of the route");
        bench.settle_all(&first, DELIVERED).await;
        assert_eq!(holder.delivery().await.recipients.len(), 1);
    }
}

#[tokio::test]
async fn deliveries_go_by_variant_and_route() {
    let bench = Bench::new().await;
    let mut message = Message::to(&["a@one.example", "b@two.example", "c@one.example"]);
    let mut other = message.variants[0].clone();
    other.header = "Subject: other\r\n".into();
    other.recipients = vec![super::kit::recipient("d@one.example")];
    message.variants.push(other);
    bench.accept(message).await;
    let mut holder = bench.holder(10).await;
    let mut found = Vec::new();
    for _ in 0..3 {
        let delivery = holder.delivery().await;
        let numbers: Vec<u32> = delivery.recipients.iter().map(|due| due.number).collect();
        found.push((delivery.variant, delivery.route, numbers));
    }
    found.sort();
    let expected = [(0, "one.example", vec![0, 2]), (0, "two.example", vec![1]), (1, "one.example", vec![3])];
    assert_eq!(found, expected.map(|(variant, route, numbers)| (variant, route.to_owned(), numbers)));
}

#[tokio::test]
async fn a_holder_that_sleeps_past_its_lease_writes_nothing_and_another_gets_the_delivery() {
    let bench = Bench::new().await;
    let id = bench.accept(Message::to(&["a@one.example"])).await;
    let mut sleeper = bench.holder(1).await;
    let stale = sleeper.delivery().await;
    bench.clock.advance(Duration::from_secs(61));
    let mut other = bench.holder(1).await;
    let delivery = other.delivery().await;
    assert_eq!(delivery.message_id, id);
    assert_ne!(delivery.lease, stale.lease);
    assert_eq!(bench.settle_all(&stale, DELIVERED).await, Stale);
    assert_eq!(bench.status().await.messages, 1, "the late settle wrote nothing");
    assert_eq!(bench.kinds(&id).await, ["received"]);
    assert_eq!(bench.settle_all(&delivery, DELIVERED).await, Recorded);
    assert_eq!(bench.status().await.messages, 0);
}

#[tokio::test]
async fn a_settle_after_the_end_of_the_lease_is_stale_even_if_nobody_else_came() {
    let bench = Bench::new().await;
    bench.accept(Message::to(&["a@one.example"])).await;
    let delivery = bench.holder(1).await.delivery().await;
    bench.clock.advance(Duration::from_secs(60));
    assert_eq!(bench.settle_all(&delivery, DELIVERED).await, Stale);
    assert_eq!(bench.status().await.messages, 1);
}

#[tokio::test]
async fn an_extended_lease_lives_on_and_one_that_has_passed_is_named() {
    let bench = Bench::new().await;
    bench.accept(Message::to(&["a@one.example"])).await;
    let delivery = bench.holder(1).await.delivery().await;
    let request = proto::ExtendRequest { leases: delivery.lease.into_iter().collect() };
    for _ in 0..3 {
        bench.clock.advance(Duration::from_secs(50));
        let stale = bench.client.clone().extend(request.clone()).await.unwrap().into_inner().stale;
        assert!(stale.is_empty());
    }
    assert_eq!(bench.settle_all(&delivery, DELIVERED).await, Recorded);
    let stale = bench.client.clone().extend(request).await.unwrap().into_inner().stale;
    assert_eq!(stale, delivery.lease.into_iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_lease_of_an_earlier_run_fits_nothing() {
    let bench = Bench::new().await;
    bench.accept(Message::to(&["a@one.example"])).await;
    let old = bench.holder(1).await.delivery().await;
    let bench = bench.restart().await;
    let new = bench.holder(1).await.delivery().await;
    assert_ne!(old.lease.unwrap().fence, new.lease.unwrap().fence);
    let forged = proto::LeaseToken { delivery: new.lease.unwrap().delivery, fence: old.lease.unwrap().fence };
    for lease in [old.lease.unwrap(), forged] {
        let settlement = proto::Settlement { lease: Some(lease), ..settlement(&old, DELIVERED) };
        assert_eq!(bench.settle(vec![settlement]).await, [Stale]);
    }
    assert_eq!(bench.settle_all(&new, DELIVERED).await, Recorded);
}

#[tokio::test]
async fn many_settles_of_one_call_are_answered_apart() {
    let bench = Bench::new().await;
    let mut holder = bench.holder(3).await;
    let mut deliveries = Vec::new();
    for n in 0..3 {
        bench.accept(Message::to(&[&format!("u{n}@one.example")])).await;
        deliveries.push(holder.delivery().await);
    }
    bench.settle_all(&deliveries[1], DELIVERED).await;
    let all = deliveries.iter().map(|delivery| settlement(delivery, DELIVERED)).collect();
    assert_eq!(bench.settle(all).await, [Recorded, Stale, Recorded]);
    assert_eq!(bench.status().await.messages, 0);
}

#[tokio::test]
async fn recipients_without_a_result_are_due_at_once() {
    let bench = Bench::new().await;
    let id = bench.accept(Message::to(&["a@one.example", "b@one.example"])).await;
    let mut holder = bench.holder(1).await;
    let first = holder.delivery().await;
    let some =
        proto::Settlement { lease: first.lease, results: vec![result(0, DEFERRED)], ..proto::Settlement::default() };
    assert_eq!(bench.settle(vec![some]).await, [Recorded]);
    holder.credit(5).await;
    let second = holder.delivery().await;
    assert_eq!(second.recipients.len(), 1);
    assert_eq!((second.recipients[0].number, second.recipients[0].attempts), (1, 0));
    let nothing = proto::Settlement { lease: second.lease, ..proto::Settlement::default() };
    assert_eq!(bench.settle(vec![nothing]).await, [Recorded]);
    assert_eq!(holder.delivery().await.recipients[0].number, 1);
    assert_eq!(bench.kinds(&id).await, ["received", "deferred"]);
}

#[tokio::test]
async fn a_paused_route_rests_while_others_go_on() {
    let bench = Bench::new().await;
    let mut holder = bench.holder(10).await;
    bench.accept(Message::to(&["a@dead.example"])).await;
    let delivery = holder.delivery().await;
    let pause = proto::RoutePause { seconds: 600, reason: "no connection".to_owned() };
    let settled = proto::Settlement { pause: Some(pause), ..settlement(&delivery, DEFERRED) };
    bench.settle(vec![settled]).await;
    bench.accept(Message::to(&["b@dead.example"])).await;
    bench.accept(Message::to(&["c@alive.example"])).await;
    assert_eq!(holder.delivery().await.route, "alive.example");
    assert!(holder.nothing().await, "the paused route was leased");
    bench.clock.advance(Duration::from_secs(601));
    let back = [holder.delivery().await, holder.delivery().await];
    assert!(back.iter().all(|delivery| delivery.route == "dead.example"));
}

#[tokio::test]
async fn more_than_memory_keeps_is_read_from_the_store_each_once() {
    const MESSAGES: usize = 700;
    let bench = Bench::new().await;
    let mut ids = Vec::new();
    for n in 0..MESSAGES {
        ids.push(bench.accept(Message::to(&[&format!("u{n}@r{}.example", n % 2)])).await);
    }
    let mut holder = bench.holder_with(50, limit(1000, 100)).await;
    let mut seen = Vec::new();
    while seen.len() < MESSAGES {
        let delivery = holder.delivery().await;
        seen.push(delivery.message_id.clone());
        assert_eq!(bench.settle_all(&delivery, DELIVERED).await, Recorded);
        holder.credit(1).await;
    }
    seen.sort();
    ids.sort();
    assert_eq!(seen, ids);
    assert!(holder.nothing().await);
    assert_eq!(bench.status().await.messages, 0);
}

#[tokio::test]
async fn when_the_process_drains_streams_end_and_settles_are_still_written() {
    let bench = Bench::new().await;
    bench.accept(Message::to(&["a@one.example"])).await;
    let mut holder = bench.holder(1).await;
    let delivery = holder.delivery().await;
    bench.node.drain().begin();
    assert!(holder.ended().await);
    assert_eq!(bench.settle_all(&delivery, DELIVERED).await, Recorded);
    assert_eq!(bench.status().await.messages, 0);
}

#[tokio::test]
async fn a_holder_that_is_gone_gets_nothing_more() {
    let bench = Bench::new().await;
    let gone = bench.holder(10).await;
    drop(gone);
    until("the holder is off the list", || !bench.inner.dispatch.lock().holders.any_credit()).await;
    let id = bench.accept(Message::to(&["a@one.example"])).await;
    assert_eq!(bench.holder(1).await.delivery().await.message_id, id);
}

#[tokio::test]
async fn routes_that_nothing_is_queued_for_are_forgotten_and_come_back_with_their_mail() {
    let bench = Bench::new().await;
    let mut holder = bench.holder(10).await;
    for n in 0..5 {
        bench.accept(Message::to(&[&format!("a@r{n}.example")])).await;
        let delivery = holder.delivery().await;
        // The first one waits for its retry.
        bench.settle_all(&delivery, if n == 0 { DEFERRED } else { DELIVERED }).await;
    }
    let held = bench.accept(Message::to(&["a@held.example"])).await;
    let of_held = proto::Filter { message_ids: vec![held.clone()], ..proto::Filter::default() };
    let of_held = proto::ChangeRequest { filter: Some(of_held), ..proto::ChangeRequest::default() };
    let leased = holder.delivery().await;
    bench.client.clone().hold(of_held.clone()).await.unwrap();
    bench.settle_all(&leased, DEFERRED).await;

    bench.inner.writer.trim_routes();
    until("idle routes are forgotten", || bench.inner.dispatch.lock().known_routes() == 2).await;
    assert_eq!(bench.inner.store.routes().await.unwrap().len(), 2, "those with waiting and with held mail stay");
    let again = bench.accept(Message::to(&["b@r1.example"])).await;
    assert_eq!(holder.delivery().await.message_id, again);
    bench.client.clone().release(of_held).await.unwrap();
    assert_eq!(holder.delivery().await.message_id, held);
    bench.clock.advance(Duration::from_secs(3600));
    assert_eq!(holder.delivery().await.route, "r0.example");
}
