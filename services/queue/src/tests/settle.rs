use std::time::Duration;

use posthouse_proto::queue::v1 as proto;
use posthouse_proto::queue::v1::SettleAnswer::Recorded;

use super::kit::{Bench, DEFERRED, DELIVERED, FAILED, Message, result};
use crate::model::notify;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_message_leaves_when_its_last_recipient_is_settled() {
    let bench = Bench::new().await;
    let id = bench.accept(Message::to(&["a@one.example", "b@two.example"])).await;
    let mut holder = bench.holder(2).await;
    let (first, second) = (holder.delivery().await, holder.delivery().await);
    bench.settle_all(&first, DELIVERED).await;
    let shown = bench.show(&id).await.unwrap().message.unwrap();
    let states: Vec<_> = shown.recipients.iter().map(proto::RecipientSummary::state).collect();
    assert!(states.contains(&proto::RecipientState::Delivered) && states.contains(&proto::RecipientState::Leased));
    bench.settle_all(&second, DELIVERED).await;
    assert_eq!(bench.show(&id).await.unwrap_err().code(), tonic::Code::NotFound);
    assert_eq!(bench.kinds(&id).await, ["received", "delivered", "delivered"]);
    let status = bench.status().await;
    assert_eq!((status.messages, status.due, status.waiting, status.leased), (0, 0, 0, 0));
}

#[tokio::test]
async fn a_deferred_recipient_comes_back_by_the_schedule_and_after_a_restart() {
    let bench = Bench::new().await;
    let id = bench.accept(Message::to(&["a@one.example"])).await;
    let delivery = bench.holder(1).await.delivery().await;
    bench.settle_all(&delivery, DEFERRED).await;
    let shown = bench.show(&id).await.unwrap().message.unwrap().recipients.remove(0);
    assert_eq!((shown.state(), shown.attempts), (proto::RecipientState::Waiting, 1));
    assert_eq!((&*shown.last_reply, &*shown.last_remote), ("the answer", "mx.example [192.0.2.9]"));
    let bench = bench.restart().await;
    let mut holder = bench.holder(1).await;
    assert!(holder.nothing().await);
    bench.clock.advance(5 * MINUTE);
    let delivery = holder.delivery().await;
    assert_eq!(delivery.recipients[0].attempts, 1);
    bench.settle_all(&delivery, DEFERRED).await;
    let due = bench.show(&id).await.unwrap().message.unwrap().recipients[0].due_at_ms;
    let wait = due - bench.clock.now().unix_ms();
    assert!((590_000..=600_000).contains(&wait), "{wait} ms");
}

#[tokio::test]
async fn a_message_expires_at_the_attempt_that_fails_at_its_greatest_age() {
    let bench = Bench::new().await;
    let id = bench.accept(Message::to(&["a@one.example"]).notify(notify::FAILURE)).await;
    let mut holder = bench.holder(1).await;
    for _ in 0..40 {
        let delivery = holder.delivery().await;
        assert_eq!(bench.settle_all(&delivery, DEFERRED).await, Recorded);
        let shown = bench.show(&id).await.unwrap().message.unwrap().recipients.remove(0);
        if shown.state() == proto::RecipientState::Failed {
            break;
        }
        assert!(shown.due_at_ms <= shown.expires_at_ms);
        let wait = shown.due_at_ms - bench.clock.now().unix_ms();
        bench.clock.advance(Duration::from_millis(wait.try_into().unwrap_or(0)));
        holder.credit(1).await;
    }
    holder.credit(1).await;
    let report = holder.report().await;
    assert_eq!(report.kind(), proto::ReportKind::Failed);
    let outcome = report.recipients[0].outcome.as_ref().unwrap();
    assert_eq!(outcome.enhanced_code, "4.4.7");
    assert_eq!(bench.kinds(&id).await.last().unwrap(), "expired");
}

#[tokio::test]
async fn the_sender_is_warned_of_a_delay_once() {
    let bench = Bench::new().await;
    bench.accept(Message::to(&["a@one.example"])).await;
    let mut holder = bench.holder(10).await;
    bench.clock.advance(5 * 60 * MINUTE);
    let delivery = holder.delivery().await;
    // The lease was over by the clock: the delivery comes again.
    let delivery = match bench.settle_all(&delivery, DEFERRED).await {
        Recorded => delivery,
        _ => {
            let again = holder.delivery().await;
            assert_eq!(bench.settle_all(&again, DEFERRED).await, Recorded);
            again
        }
    };
    let report = holder.report().await;
    assert_eq!(report.kind(), proto::ReportKind::Delayed);
    assert_eq!(report.message_id, delivery.message_id);
    assert_eq!(report.expires_at_ms, report.received_at_ms + 5 * 24 * 3_600_000);
    bench.accept(Message { report: report.key.clone(), ..Message::to(&["s@sender.example"]).from("") }).await;
    let bounce = holder.delivery().await;
    bench.settle_all(&bounce, DELIVERED).await;
    bench.clock.advance(60 * MINUTE);
    let delivery = holder.delivery().await;
    assert_eq!(bench.settle_all(&delivery, DEFERRED).await, Recorded);
    assert!(holder.nothing().await, "a second warning");
}

#[tokio::test]
async fn a_failure_is_reported_once_and_its_commit_clears_the_obligation() {
    let bench = Bench::new().await;
    let mut message = Message::to(&["a@one.example", "b@one.example"]);
    message.variants[0].envid = "envelope-1".to_owned();
    message.variants[0].dsn_return = proto::DsnReturn::Full as i32;
    message.variants[0].recipients[0].original = "rfc822;a@old.example".to_owned();
    let id = bench.accept(message.clone()).await;
    let mut holder = bench.holder(10).await;
    let delivery = holder.delivery().await;
    bench.settle_all(&delivery, FAILED).await;
    let report = holder.report().await;
    assert_eq!((report.kind(), report.recipients.len()), (proto::ReportKind::Failed, 2));
    assert_eq!((&*report.sender, &*report.envid), ("s@sender.example", "envelope-1"));
    assert_eq!(report.dsn_return(), proto::DsnReturn::Full);
    assert_eq!(report.header, message.variants[0].header);
    assert_eq!(report.recipients[0].recipient.as_ref().unwrap().original, "rfc822;a@old.example");
    assert_eq!(bench.body(&id, 0).await.unwrap(), message.body, "the text is kept for the report");
    assert_eq!(bench.status().await.reports, 1);
    let bounce = || Message { report: report.key.clone(), ..Message::to(&["s@sender.example"]).from("") };
    bench.accept(bounce()).await;
    assert_eq!(bench.show(&id).await.unwrap_err().code(), tonic::Code::NotFound);
    assert!(bench.try_accept(bounce()).await.unwrap().already_present, "a second report under the same key");
    let status = bench.status().await;
    assert_eq!((status.reports, status.messages), (0, 1));
    assert_eq!(bench.kinds(&id).await, ["received", "failed", "report"]);
    let end = proto::Settlement { lease: report.lease, ..proto::Settlement::default() };
    assert_eq!(bench.settle(vec![end]).await, [Recorded]);
    let bounced = holder.delivery().await;
    bench.settle_all(&bounced, FAILED).await;
    assert!(holder.nothing().await, "a report about a report");
    assert_eq!(bench.status().await.messages, 0);
}

#[tokio::test]
async fn two_reports_under_one_key_at_once_are_one() {
    let bench = Bench::new().await;
    bench.accept(Message::to(&["a@one.example"])).await;
    let mut holder = bench.holder(2).await;
    let delivery = holder.delivery().await;
    bench.settle_all(&delivery, FAILED).await;
    let key = holder.report().await.key;
    let bounce = || Message { report: key.clone(), ..Message::to(&["s@sender.example"]).from("") };
    let (a, b) = tokio::join!(bench.try_accept(bounce()), bench.try_accept(bounce()));
    let present = [a.unwrap().already_present, b.unwrap().already_present];
    assert!(present.contains(&true) && present.contains(&false));
}

#[tokio::test]
async fn a_report_stays_due_until_it_is_submitted_or_dropped() {
    let bench = Bench::new().await;
    let id = bench.accept(Message::to(&["a@one.example"])).await;
    let mut holder = bench.holder(10).await;
    let delivery = holder.delivery().await;
    bench.settle_all(&delivery, FAILED).await;
    let first = holder.report().await;
    bench.clock.advance(61 * Duration::from_secs(1));
    let second = holder.report().await;
    assert_eq!(first.key, second.key, "an expired lease goes back");
    let later = proto::Settlement { lease: second.lease, report_failed: true, ..proto::Settlement::default() };
    assert_eq!(bench.settle(vec![later]).await, [Recorded]);
    assert!(holder.nothing().await);
    bench.clock.advance(5 * MINUTE);
    let third = holder.report().await;
    let bench = bench.restart().await;
    let mut holder = bench.holder(1).await;
    let fourth = holder.report().await;
    assert_eq!((&third.key, &first.key), (&fourth.key, &fourth.key));
    let drop = proto::Settlement { lease: fourth.lease, report_dropped: true, ..proto::Settlement::default() };
    assert_eq!(bench.settle(vec![drop]).await, [Recorded]);
    let status = bench.status().await;
    assert_eq!((status.reports, status.messages), (0, 0));
    assert_eq!(bench.kinds(&id).await, ["received", "failed", "report"]);
}

#[tokio::test]
async fn nothing_is_owed_to_the_null_sender_or_where_notify_says_never() {
    let bench = Bench::new().await;
    let mut holder = bench.holder(10).await;
    for message in [Message::to(&["a@one.example"]).from(""), Message::to(&["a@one.example"]).notify(notify::NEVER)] {
        bench.accept(message).await;
        let delivery = holder.delivery().await;
        bench.settle_all(&delivery, FAILED).await;
        let status = bench.status().await;
        assert_eq!((status.messages, status.reports), (0, 0));
    }
}

#[tokio::test]
async fn one_settle_with_three_outcomes_is_recorded_for_each_recipient() {
    let bench = Bench::new().await;
    let id = bench.accept(Message::to(&["a@one.example", "b@one.example", "c@one.example"])).await;
    let mut holder = bench.holder(1).await;
    let delivery = holder.delivery().await;
    let results = vec![result(0, DELIVERED), result(1, FAILED), result(2, DEFERRED)];
    let settled = proto::Settlement { lease: delivery.lease, results, ..proto::Settlement::default() };
    assert_eq!(bench.settle(vec![settled]).await, [Recorded]);
    let shown = bench.show(&id).await.unwrap();
    let states: Vec<_> = shown.message.unwrap().recipients.iter().map(proto::RecipientSummary::state).collect();
    use proto::RecipientState::{Delivered, Failed, Waiting};
    assert_eq!(states, [Delivered, Failed, Waiting]);
    let kinds: Vec<_> = shown.events.iter().map(|event| &*event.kind).collect();
    assert_eq!(kinds, ["received", "delivered", "deferred", "failed"]);
    assert!(shown.events[3].text.contains("\"address\":\"b@one.example\""), "{}", shown.events[3].text);
}
