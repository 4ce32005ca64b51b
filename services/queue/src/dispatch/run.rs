//! The task that hands out.

use std::sync::Arc;
use std::time::Duration;

use node::Drain;

use super::Dispatch;
use super::handing::{Picked, Plan};
use crate::context::{Condition, Trouble};
use crate::model::{Content, key};
use crate::store::{Pick, Store, StoreError};
use crate::writer::Writer;

/// How long it sleeps where only time can bring work: the wall clock may be turned meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How long it waits after the store did not answer.
const AFTER_TROUBLE: Duration = Duration::from_secs(1);

/// Hands out until the process drains.
pub async fn run<S: Store>(dispatch: Arc<Dispatch>, store: Arc<S>, writer: Writer, condition: Condition, drain: Drain) {
    let drained = drain.begun();
    tokio::pin!(drained);
    loop {
        let plan = plan(&dispatch);
        if plan.picks.is_empty() && plan.refills.is_empty() && plan.reports.is_none() {
            let time_may_help = dispatch.lock().waits_for_time();
            tokio::select! {
                () = dispatch.bell.notified() => {}
                () = tokio::time::sleep(LOOK_AGAIN), if time_may_help => {}
                () = &mut drained => break,
            }
            continue;
        }
        carry_out(&dispatch, &*store, &writer, &condition, plan).await;
    }
    dispatch.lock().stop();
}

fn plan(dispatch: &Dispatch) -> Plan {
    let (now, instant) = (dispatch.now().unix_ms(), dispatch.clock.instant());
    dispatch.lock().plan(now, instant)
}

/// Whoever looks at the queue's health sees whether it can read.
fn noted<T>(condition: &Condition, read: Result<T, StoreError>) -> Result<T, StoreError> {
    let reason = read.as_ref().err().map(|error| format!("queued mail not read: {error}"));
    condition.set(Trouble::Reading, reason);
    read
}

async fn carry_out<S: Store>(dispatch: &Dispatch, store: &S, writer: &Writer, condition: &Condition, plan: Plan) {
    if let Some(limit) = plan.reports {
        reports(dispatch, store, writer, condition, limit).await;
    }
    if !plan.refills.is_empty() {
        let read = noted(condition, store.heads(&plan.refills).await);
        let now = dispatch.now();
        match read {
            Ok(rows) => dispatch.lock().filled(&plan.refills, &rows, now.unix_ms()),
            Err(error) => {
                tracing::warn!(%error, "due mail not read, trying again");
                dispatch.lock().not_filled(&plan.refills, now.plus(AFTER_TROUBLE).unix_ms());
            }
        }
    }
    if !plan.picks.is_empty() {
        hand_out(dispatch, store, writer, condition, plan.picks).await;
    }
}

async fn hand_out<S: Store>(
    dispatch: &Dispatch,
    store: &S,
    writer: &Writer,
    condition: &Condition,
    mut picks: Vec<Picked>,
) {
    let wanted: Vec<Pick> = picks
        .iter()
        .filter(|pick| pick.content.is_none())
        .map(|pick| Pick { seq: pick.seq, variant: pick.variant, numbers: pick.numbers.clone() })
        .collect();
    let read = match wanted.is_empty() {
        true => Ok(Vec::new()),
        false => noted(condition, store.contents(&wanted).await),
    };
    let (now, instant) = (dispatch.now().unix_ms(), dispatch.clock.instant());
    let read = match read {
        Ok(read) => read,
        Err(error) => {
            tracing::warn!(%error, "queued mail not read, trying again");
            let later = now + AFTER_TROUBLE.as_millis() as i64;
            let mut state = dispatch.lock();
            for pick in &picks {
                state.unpick(pick, Some(later), now);
            }
            return;
        }
    };
    let mut read = read.into_iter();
    let mut ready: Vec<(Picked, Option<Content>)> = Vec::with_capacity(picks.len());
    for mut pick in picks.drain(..) {
        let content = match pick.content.take() {
            Some(content) => Some(content),
            None => match read.next() {
                Some(Ok(content)) => content,
                Some(Err(reason)) => {
                    set_aside(dispatch, writer, &pick, reason);
                    None
                }
                None => None,
            },
        };
        ready.push((pick, content));
    }
    dispatch.lock().hand_out(ready, now, instant);
}

/// One message that cannot be read is held, with the reason; the others go on.
fn set_aside(dispatch: &Dispatch, writer: &Writer, pick: &Picked, reason: String) {
    tracing::error!(seq = pick.seq, reason, "message cannot be read and is held");
    dispatch.lock().unreadable(pick.seq);
    let keys = pick.numbers.iter().map(|number| (key(pick.seq, *number), pick.route)).collect();
    writer.set_aside(keys, reason);
}

async fn reports<S: Store>(dispatch: &Dispatch, store: &S, writer: &Writer, condition: &Condition, limit: u32) {
    let read = noted(condition, store.reports(limit).await);
    let (now, instant) = (dispatch.now(), dispatch.clock.instant());
    match read {
        Ok(read) => {
            let mut good = Vec::with_capacity(read.len());
            for report in read {
                match report {
                    Ok(report) => good.push(report),
                    Err((number, reason)) => {
                        tracing::error!(report = number, reason, "report cannot be read and is dropped");
                        writer.drop_report(number);
                    }
                }
            }
            dispatch.lock().hand_out_reports(good, limit, now.unix_ms(), instant);
        }
        Err(error) => {
            tracing::warn!(%error, "reports not read, trying again");
            dispatch.lock().report_due(now.plus(AFTER_TROUBLE).unix_ms());
        }
    }
}
