use tonic::Status;

use super::peer::{Act, Peer, well_behaved};
use super::*;

fn numbered(n: u64) -> pb::Delivery {
    pb::Delivery { lease: Some(pb::LeaseToken { delivery: n, fence: 1 }), ..delivery("out", &["a@x.example"]) }
}

async fn credit(bench: &Bench, expected: u64) {
    bench.queue.wait_for(|state| (state.credit == expected).then_some(())).await;
}

#[tokio::test]
async fn deliveries_are_leased_attempted_and_settled_and_the_credit_comes_back() {
    let peer = Peer::start(|_, line| well_behaved(line)).await;
    let bench = Bench::new(vec![out(smart(&[&peer]))]);
    crate::start(&bench.node).await.unwrap();
    credit(&bench, 10).await;
    bench.queue.hand_out((1..=5).map(numbered).collect()).await;
    let settled = bench.queue.settled(5).await;
    assert!(settled.iter().all(|settlement| words(settlement) == ["1 relayed 2.0.0 250 2.0.0 taken"]));
    credit(&bench, 10).await;
    let limits = bench.queue.state.lock().unwrap().limits.clone();
    assert_eq!((limits[0][0].transport.as_str(), limits[0][0].in_flight_per_route_max), ("out", 10));
}

#[tokio::test]
async fn what_waits_while_a_call_is_under_way_goes_in_the_next_one() {
    let peer = Peer::start(|_, line| well_behaved(line)).await;
    let bench = Bench::new(vec![out(smart(&[&peer]))]);
    bench.queue.state.lock().unwrap().settles_fail = 3;
    crate::start(&bench.node).await.unwrap();
    bench.queue.hand_out((1..=10).map(numbered).collect()).await;
    bench.queue.settled(10).await;
    // The first call held one or some; while it was tried again the others came together.
    let calls = bench.queue.state.lock().unwrap().settle_calls.len();
    assert!(calls <= 3, "{calls} calls for 10 settlements");
    credit(&bench, 10).await;
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_opened_again_with_the_credit_that_is_left() {
    let peer = Peer::start(|_, line| if line == "." { Act::Hang } else { well_behaved(line) }).await;
    let bench = Bench::new(vec![out(smart(&[&peer]))]);
    crate::start(&bench.node).await.unwrap();
    bench.queue.hand_out(vec![numbered(1)]).await;
    bench.queue.wait_for(|_| (peer.heard_beginning("DATA") == 1).then_some(())).await;
    bench.queue.break_off(Some(Status::unavailable("restart"))).await;
    bench.queue.wait_for(|state| (state.streams == 2).then_some(())).await;
    credit(&bench, 9).await;
    bench.queue.break_off(None).await;
    bench.queue.wait_for(|state| (state.streams == 3).then_some(())).await;
}

#[tokio::test]
async fn new_limits_and_more_room_are_told_when_the_snapshot_changes() {
    let bench = Bench::new(vec![]);
    crate::start(&bench.node).await.unwrap();
    credit(&bench, 10).await;
    let mut next = testing::snapshot();
    next.platform.deliveries_max = 25;
    let mut transport = out(relay(RelayTo::Hosts(Vec::new())));
    transport.route_concurrency_max = 3;
    next.transports = by_name(vec![transport]);
    bench.node.snapshots().replace(next);
    credit(&bench, 25).await;
    let limits = bench.queue.state.lock().unwrap().limits.clone();
    assert_eq!(limits.last().unwrap()[0].in_flight_per_route_max, 3);
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight_and_gives_back_the_rest() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let opened = gate.clone();
    let peer = Peer::start(move |number, line| match line {
        // The second session never ends; the first one waits until the test lets it.
        "." if number == 2 => Act::Hang,
        "." if gate.try_acquire().is_ok() => well_behaved("."),
        "." => Act::Hang,
        _ => well_behaved(line),
    })
    .await;
    let bench =
        Bench::with(vec![out(smart(&[&peer]))], |snapshot| snapshot.platform.drain_max = Duration::from_millis(300));
    opened.add_permits(1);
    crate::start(&bench.node).await.unwrap();
    bench.queue.hand_out(vec![numbered(1), numbered(2)]).await;
    bench.queue.wait_for(|_| (peer.heard_beginning("text:") == 2).then_some(())).await;
    bench.node.drain().begin();
    bench.node.drain().finished().await;
    let settled = bench.queue.settled(2).await;
    let mut results: Vec<usize> = settled.iter().map(|settlement| settlement.results.len()).collect();
    results.sort_unstable();
    assert_eq!(results, [0, 1], "one was finished, one given back: {settled:?}");
    assert_eq!(bench.queue.state.lock().unwrap().half_closed, 1);
}

#[tokio::test]
async fn a_drain_with_nothing_in_flight_ends_at_once_even_before_the_queue_is_there() {
    let node = Node::new(Snapshots::new(testing::snapshot()), "/nonexistent".into(), Clock::system());
    crate::start(&node).await.unwrap();
    tokio::task::yield_now().await;
    node.drain().begin();
    tokio::time::timeout(Duration::from_secs(20), node.drain().finished()).await.unwrap();
}

#[tokio::test]
async fn leases_that_take_long_are_prolonged_until_they_are_settled() {
    let bench = Bench::new(vec![]);
    let in_flight: Arc<crate::in_flight::InFlight> = Arc::default();
    let token = |n| pb::LeaseToken { delivery: n, fence: 1 };
    in_flight.add(token(1));
    in_flight.add(token(2));
    bench.queue.state.lock().unwrap().extends_fail = 1;
    let every = Duration::from_millis(5);
    let extender = tokio::spawn(crate::lease::extend(bench.context.clone(), Arc::clone(&in_flight), every));
    let named = |state: &mut queue::State, n| state.extended.last().is_some_and(|last| last.contains(&token(n)));
    bench.queue.wait_for(|state| (named(state, 1) && named(state, 2)).then_some(())).await;
    in_flight.remove(&token(1));
    bench.queue.wait_for(|state| (!named(state, 1) && named(state, 2)).then_some(())).await;
    in_flight.remove(&token(2));
    let calls = || bench.queue.state.lock().unwrap().extended.len();
    tokio::time::sleep(every * 4).await;
    let before = calls();
    tokio::time::sleep(every * 4).await;
    assert_eq!(calls(), before, "with nothing in flight nothing is asked");
    extender.abort();
}

#[tokio::test]
async fn an_attempt_that_panics_is_a_deferral_of_all_its_recipients() {
    let lease = Some(pb::LeaseToken { delivery: 7, fence: 1 });
    let settlement = crate::attempt::settled("id", lease, vec![1, 4], async { panic!("a bug") }).await;
    assert_eq!(settlement.lease, lease);
    assert_eq!(
        words(&settlement),
        ["1 deferred 4.3.0 the attempt broke off", "4 deferred 4.3.0 the attempt broke off"]
    );
}
