//! Writing a group: one text, one journey, one sync.

use std::sync::atomic::Ordering;

use futures_util::TryStreamExt;
use serde::Serialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row, SqliteConnection};

use super::read::UNUSED_ROUTE;
use super::{SqliteStore, classify};
use crate::model::{Body, RouteId, key};
use crate::store::{StoreError, Write, Written};

/// What the first column of a returned row says it is.
const INSERTED: i64 = 1;
const CHANGED: i64 = 2;
const REPORT: i64 = 3;
const REPORT_DONE: i64 = 4;
const FINISHED: i64 = 5;

/// Everything that a group may write. Empty arrays cost next to nothing, and one text stays prepared.
///
/// A message that is not inserted (its id is here, or has been; the report that it fulfils is not owed any more) leaves
/// no rows in the other tables either. (`coalesce`: octets of length zero are bound as NULL.)
const GROUP: &str = "
BEGIN IMMEDIATE;

INSERT OR IGNORE INTO routes (route, transport, name)
SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?);

INSERT INTO messages (seq, id, received_at, body_bytes, body_file, body_type, smtp_utf8, header_message_id, origin)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7, value ->> 8
FROM json_each(?)
WHERE NOT EXISTS (SELECT 1 FROM events WHERE message_id = value ->> 1)
AND (value ->> 9 IS NULL OR EXISTS (
    SELECT 1 FROM reports AS r JOIN messages AS m ON m.seq = r.seq WHERE r.number = value ->> 9 AND m.id = value ->> 10))
ON CONFLICT DO NOTHING RETURNING 1, seq;

INSERT INTO variants (vkey, sender, envid, dsn_return, header)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, coalesce(substr(?, value ->> 4, value ->> 5), x'')
FROM json_each(?) WHERE EXISTS (SELECT 1 FROM messages WHERE seq = (value ->> 0) >> 16);

INSERT INTO bodies (seq, body)
SELECT value ->> 0, coalesce(substr(?, value ->> 1, value ->> 2), x'')
FROM json_each(?) WHERE EXISTS (SELECT 1 FROM messages WHERE seq = value ->> 0);

INSERT INTO recipients
    (rkey, variant, route, state, due, attempts, bytes, warned, address, original, notify, delivered_to)
SELECT value ->> 0, value ->> 1, value ->> 2, 0, value ->> 3, 0, value ->> 4, 0,
    value ->> 5, value ->> 6, value ->> 7, value ->> 8
FROM json_each(?) WHERE EXISTS (SELECT 1 FROM messages WHERE seq = (value ->> 0) >> 16);

UPDATE recipients SET
    state = CASE WHEN state = 1 AND j.value ->> 1 = 0 THEN 1 ELSE j.value ->> 1 END,
    due = j.value ->> 2, attempts = j.value ->> 3, warned = j.value ->> 4, last_at = j.value ->> 5,
    last_remote = j.value ->> 6, last_reply = j.value ->> 7, last_code = j.value ->> 8
FROM json_each(?) AS j WHERE rkey = j.value ->> 0 AND state < 2;

UPDATE recipients SET
    state = j.value ->> 2, due = coalesce(j.value ->> 3, due), hold_reason = j.value ->> 4
FROM json_each(?) AS j WHERE rkey = j.value ->> 0 AND state = j.value ->> 1
RETURNING 2, rkey;

INSERT INTO reports (number, seq, variant, kind, due, attempts, expires_at, recipients)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, 0, value ->> 5, value ->> 6
FROM json_each(?) WHERE EXISTS (SELECT 1 FROM messages WHERE seq = value ->> 1)
ON CONFLICT DO NOTHING RETURNING 3, number;

DELETE FROM reports WHERE number IN (SELECT value FROM json_each(?)) RETURNING 4, number;

UPDATE reports SET due = j.value ->> 1, attempts = j.value ->> 2 FROM json_each(?) AS j WHERE number = j.value ->> 0;

INSERT INTO events (message_id, n, at, kind, text)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?)
WHERE value ->> 5 IS NULL OR EXISTS (SELECT 1 FROM messages WHERE seq = value ->> 5)
ON CONFLICT DO NOTHING;

DELETE FROM temp.finished;
INSERT INTO temp.finished SELECT m.seq FROM messages AS m
WHERE m.seq IN (SELECT value FROM json_each(?) UNION ALL
    SELECT n.seq FROM json_each(?) AS j JOIN messages AS n ON n.id = j.value)
AND NOT EXISTS (SELECT 1 FROM recipients WHERE rkey BETWEEN m.seq << 16 AND (m.seq << 16) + 65535 AND state < 2)
AND NOT EXISTS (SELECT 1 FROM reports WHERE reports.seq = m.seq);
DELETE FROM variants WHERE vkey IN (
    SELECT v.vkey FROM temp.finished AS f JOIN variants AS v ON v.vkey BETWEEN f.seq << 16 AND (f.seq << 16) + 65535);
DELETE FROM recipients WHERE rkey IN (
    SELECT r.rkey FROM temp.finished AS f JOIN recipients AS r ON r.rkey BETWEEN f.seq << 16 AND (f.seq << 16) + 65535);
DELETE FROM bodies WHERE seq IN (SELECT seq FROM temp.finished);
DELETE FROM messages WHERE seq IN (SELECT seq FROM temp.finished) RETURNING 5, seq, body_file;

COMMIT;
";

/// JSON arrays of rows, as the group's statements read them.
#[derive(Default)]
struct Rows(String);

impl Rows {
    fn push<T: Serialize>(&mut self, row: &T) -> Result<(), StoreError> {
        self.0.push(if self.0.is_empty() { '[' } else { ',' });
        let text = serde_json::to_string(row).map_err(|error| StoreError::Refused(error.to_string()))?;
        self.0.push_str(&text);
        Ok(())
    }

    fn finish(mut self) -> String {
        self.0.push_str(if self.0.is_empty() { "[]" } else { "]" });
        self.0
    }
}

#[derive(Default)]
struct Batch {
    routes: Rows,
    messages: Rows,
    headers: Vec<u8>,
    variants: Rows,
    body_octets: Vec<u8>,
    bodies: Rows,
    recipients: Rows,
    updates: Rows,
    changes: Rows,
    reports: Rows,
    reports_done: Rows,
    reports_later: Rows,
    events: Rows,
    finish: Rows,
    finish_ids: Rows,
}

impl Batch {
    fn of(group: &[Write]) -> Result<Self, StoreError> {
        let mut batch = Self::default();
        let messages = || group.iter().filter_map(|write| write.message.as_deref());
        let inline = messages().map(|m| if let Body::Inline(body) = &m.body { body.len() } else { 0 }).sum();
        batch.body_octets.reserve_exact(inline);
        for write in group {
            batch.add_message(write)?;
            batch.add_results(write)?;
        }
        Ok(batch)
    }

    fn add_message(&mut self, write: &Write) -> Result<(), StoreError> {
        for route in &write.routes {
            self.routes.push(&(route.route, &*route.transport, &*route.name))?;
        }
        let Some(message) = write.message.as_deref() else { return Ok(()) };
        let file = match &message.body {
            Body::File(name) => Some(name),
            Body::Inline(_) => None,
        };
        let report = message.report.as_ref();
        let origin = serde_json::to_string(&message.origin).map_err(|error| StoreError::Refused(error.to_string()))?;
        self.messages.push(&(
            message.seq,
            &message.id,
            message.received_at,
            message.body_bytes,
            file,
            message.body_type,
            u8::from(message.smtp_utf8),
            &message.header_message_id,
            origin,
            report.map(|key| key.number),
            report.map(|key| &key.message_id),
        ))?;
        for (n, variant) in (0..).zip(&message.variants) {
            let at = self.headers.len() + 1;
            self.headers.extend_from_slice(&variant.header);
            let (sender, envid) = (&variant.sender, &variant.envid);
            self.variants.push(&(key(message.seq, n), sender, envid, variant.dsn_return, at, variant.header.len()))?;
        }
        if let Body::Inline(body) = &message.body {
            let at = self.body_octets.len() + 1;
            self.body_octets.extend_from_slice(body);
            self.bodies.push(&(message.seq, at, body.len()))?;
        }
        for (n, new) in (0..).zip(&message.recipients) {
            let recipient = &new.recipient;
            self.recipients.push(&(
                key(message.seq, n),
                new.variant,
                new.route,
                message.due,
                message.delivery_bytes(new.variant),
                &recipient.address,
                &recipient.original,
                recipient.notify,
                &recipient.delivered_to,
            ))?;
        }
        Ok(())
    }

    fn add_results(&mut self, write: &Write) -> Result<(), StoreError> {
        for u in &write.updates {
            let state = u.state as i64;
            let warned = u8::from(u.warned);
            self.updates.push(&(u.key, state, u.due, u.attempts, warned, u.at, &u.remote, &u.reply, &u.code))?;
        }
        for c in &write.changes {
            self.changes.push(&(c.key, c.from as i64, c.to as i64, c.due, &c.reason))?;
        }
        for r in &write.reports {
            let recipients =
                serde_json::to_string(&r.recipients).map_err(|error| StoreError::Refused(error.to_string()))?;
            self.reports.push(&(r.number, r.seq, r.variant, r.kind as i64, r.due, r.expires_at, recipients))?;
        }
        for number in &write.reports_done {
            self.reports_done.push(number)?;
        }
        for later in &write.reports_later {
            self.reports_later.push(&(later.number, later.due, later.attempts))?;
        }
        for e in &write.events {
            self.events.push(&(&e.message_id, e.number, e.at, &e.kind, &e.text, e.only_with))?;
        }
        for seq in &write.finish {
            self.finish.push(seq)?;
        }
        for id in &write.finish_ids {
            self.finish_ids.push(id)?;
        }
        Ok(())
    }

    async fn run(self, connection: &mut SqliteConnection) -> Result<Written, sqlx::Error> {
        let query = sqlx::query(GROUP)
            .bind(self.routes.finish())
            .bind(self.messages.finish())
            .bind(self.headers)
            .bind(self.variants.finish())
            .bind(self.body_octets)
            .bind(self.bodies.finish())
            .bind(self.recipients.finish())
            .bind(self.updates.finish())
            .bind(self.changes.finish())
            .bind(self.reports.finish())
            .bind(self.reports_done.finish())
            .bind(self.reports_later.finish())
            .bind(self.events.finish())
            .bind(self.finish.finish())
            .bind(self.finish_ids.finish());
        let mut written = Written::default();
        let mut rows = query.fetch(connection);
        while let Some(row) = rows.try_next().await? {
            take(&row, &mut written)?;
        }
        Ok(written)
    }
}

fn take(row: &SqliteRow, written: &mut Written) -> Result<(), sqlx::Error> {
    let what: i64 = row.try_get(0)?;
    let number: i64 = row.try_get(1)?;
    match what {
        INSERTED => drop(written.inserted.insert(number)),
        CHANGED => written.changed.push(number),
        REPORT => written.reports.push(number),
        REPORT_DONE => written.reports_done.push(number),
        FINISHED => written.finished.push((number, row.try_get(2)?)),
        _ => {}
    }
    Ok(())
}

impl SqliteStore {
    pub(super) async fn write_group(&self, group: &[Write]) -> Result<Written, StoreError> {
        let batch = Batch::of(group)?;
        let mut held = self.writer().await?;
        match batch.run(held.connection()?).await {
            Ok(written) => {
                if self.checkpoint_due.swap(false, Ordering::Relaxed) {
                    // The group is durable: a failure here is noticed by the next one.
                    let _ = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(held.connection()?).await;
                }
                Ok(written)
            }
            Err(error) => {
                let error = classify(&error);
                let undone = sqlx::query("ROLLBACK").execute(held.connection()?).await;
                if matches!(error, StoreError::Trouble(_)) || undone.is_err() {
                    held.give_up();
                }
                Err(error)
            }
        }
    }

    pub(super) async fn delete_events(&self, until: i64, limit: u32) -> Result<u64, StoreError> {
        let mut held = self.writer().await?;
        // From the front, where the oldest ids are; what is still queued keeps its history.
        let result = sqlx::query(
            "DELETE FROM events WHERE (message_id, n) IN (
                SELECT message_id, n FROM events AS e WHERE at < ?
                AND NOT EXISTS (SELECT 1 FROM messages AS m WHERE m.id = e.message_id) LIMIT ?)",
        )
        .bind(until)
        .bind(limit)
        .execute(held.connection()?)
        .await;
        result.map(|done| done.rows_affected()).map_err(|error| held.failed(&error))
    }

    pub(super) async fn delete_routes(&self, routes: &[RouteId]) -> Result<Vec<RouteId>, StoreError> {
        let list = serde_json::to_string(routes).map_err(|error| StoreError::Refused(error.to_string()))?;
        let mut held = self.writer().await?;
        let text = format!(
            "DELETE FROM routes WHERE route IN (SELECT value FROM json_each(?)) AND {UNUSED_ROUTE} RETURNING route"
        );
        let result = sqlx::query_scalar(AssertSqlSafe(text)).bind(list).fetch_all(held.connection()?).await;
        result.map_err(|error| held.failed(&error))
    }

    pub(super) async fn write_nothing(&self) -> Result<(), StoreError> {
        let mut held = self.writer().await?;
        let result = sqlx::query("UPDATE meta SET value = value WHERE key = 'epoch'").execute(held.connection()?).await;
        result.map(drop).map_err(|error| held.failed(&error))
    }
}
