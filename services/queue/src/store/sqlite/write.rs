//! Writing a group: one transaction, one sync. Every statement is prepared once and runs for every row.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{CachedStatement, Connection, OptionalExtension};
use serde::Serialize;

use super::SqliteStore;
use super::read::UNUSED_ROUTE;
use crate::model::{Body, NewMessage, RouteId, Seq, State, key, seq_of};
use crate::store::{RecipientUpdate, StoreError, Write, Written};

type Done<T> = Result<T, rusqlite::Error>;

/// Rows of a message have keys up to this one above its first.
const ROWS_MAX: i64 = 65_535;

/// The statements of a group.
struct Statements<'c> {
    commit: CachedStatement<'c>,
    route: CachedStatement<'c>,
    traced: CachedStatement<'c>,
    owed: CachedStatement<'c>,
    message: CachedStatement<'c>,
    variant: CachedStatement<'c>,
    body: CachedStatement<'c>,
    recipient: CachedStatement<'c>,
    update: CachedStatement<'c>,
    change: CachedStatement<'c>,
    report: CachedStatement<'c>,
    report_done: CachedStatement<'c>,
    report_later: CachedStatement<'c>,
    event: CachedStatement<'c>,
    seq_of_id: CachedStatement<'c>,
    body_file: CachedStatement<'c>,
    open: CachedStatement<'c>,
    owes: CachedStatement<'c>,
    delete_variants: CachedStatement<'c>,
    delete_recipients: CachedStatement<'c>,
    delete_body: CachedStatement<'c>,
    delete_message: CachedStatement<'c>,
}

impl<'c> Statements<'c> {
    fn prepare(connection: &'c Connection) -> Done<Self> {
        let prepare = |text| connection.prepare_cached(text);
        Ok(Self {
            commit: prepare("COMMIT")?,
            route: prepare("INSERT OR IGNORE INTO routes (route, transport, name) VALUES (?, ?, ?)")?,
            traced: prepare("SELECT 1 FROM events WHERE message_id = ? LIMIT 1")?,
            owed: prepare(
                "SELECT 1 FROM reports AS r JOIN messages AS m ON m.seq = r.seq WHERE r.number = ? AND m.id = ?",
            )?,
            message: prepare(
                "INSERT INTO messages
                 (seq, id, received_at, body_bytes, body_file, body_type, smtp_utf8, header_message_id, origin)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            )?,
            variant: prepare("INSERT INTO variants (vkey, sender, envid, dsn_return, header) VALUES (?, ?, ?, ?, ?)")?,
            body: prepare("INSERT INTO bodies (seq, body) VALUES (?, ?)")?,
            recipient: prepare(
                "INSERT INTO recipients
                 (rkey, variant, route, state, due, attempts, bytes, warned, address, original, notify, delivered_to)
                 VALUES (?, ?, ?, 0, ?, 0, ?, 0, ?, ?, ?, ?)",
            )?,
            update: prepare(
                "UPDATE recipients SET state = CASE WHEN state = 1 AND ?2 = 0 THEN 1 ELSE ?2 END, due = ?3,
                 attempts = ?4, warned = ?5, last_at = ?6, last_remote = ?7, last_reply = ?8, last_code = ?9
                 WHERE rkey = ?1 AND state < 2",
            )?,
            change: prepare(
                "UPDATE recipients SET state = ?3, due = coalesce(?4, due), hold_reason = ?5
                 WHERE rkey = ?1 AND state = ?2",
            )?,
            report: prepare(
                "INSERT INTO reports (number, seq, variant, kind, due, attempts, expires_at, recipients)
                 SELECT ?1, ?2, ?3, ?4, ?5, 0, ?6, ?7 WHERE EXISTS (SELECT 1 FROM messages WHERE seq = ?2)
                 ON CONFLICT DO NOTHING",
            )?,
            report_done: prepare("DELETE FROM reports WHERE number = ?")?,
            report_later: prepare("UPDATE reports SET due = ?2, attempts = ?3 WHERE number = ?1")?,
            event: prepare(
                "INSERT INTO events (message_id, n, at, kind, text) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            )?,
            seq_of_id: prepare("SELECT seq FROM messages WHERE id = ?")?,
            body_file: prepare("SELECT body_file FROM messages WHERE seq = ?")?,
            open: prepare("SELECT rkey FROM recipients WHERE rkey BETWEEN ? AND ? AND state < 2")?,
            owes: prepare("SELECT 1 FROM reports WHERE seq = ? LIMIT 1")?,
            delete_variants: prepare("DELETE FROM variants WHERE vkey BETWEEN ? AND ?")?,
            delete_recipients: prepare("DELETE FROM recipients WHERE rkey BETWEEN ? AND ?")?,
            delete_body: prepare("DELETE FROM bodies WHERE seq = ?")?,
            delete_message: prepare("DELETE FROM messages WHERE seq = ?")?,
        })
    }
}

/// A value as JSON text; one that has none is the operation's own fault.
fn json<T: Serialize>(value: &T) -> Done<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// One group on its way.
struct Group<'c, 'w> {
    sql: Statements<'c>,
    written: Written,
    /// Messages that may leave with this group.
    finish: BTreeSet<Seq>,
    /// Last results of recipients whose message may leave with this group: most do, and their rows need no update.
    last: BTreeMap<Seq, Vec<&'w RecipientUpdate>>,
    /// People change recipients in this group: every update is made at once, in the order of the operations.
    in_order: bool,
}

fn write(connection: &mut Connection, group: &[Write]) -> Done<Written> {
    node::fault::point("queue.before-write");
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute(())?;
    let mut on_its_way = Group {
        sql: Statements::prepare(connection)?,
        written: Written::default(),
        finish: group.iter().flat_map(|write| write.finish.iter().copied()).collect(),
        last: BTreeMap::new(),
        in_order: group.iter().any(|write| !write.changes.is_empty()),
    };
    for write in group {
        on_its_way.take(write)?;
    }
    for write in group {
        on_its_way.finish_by_id(&write.finish_ids)?;
    }
    on_its_way.finish()?;
    // Everything is written but the commit itself.
    node::fault::point("queue.before-commit");
    on_its_way.sql.commit.execute(())?;
    node::fault::point("queue.after-commit");
    Ok(on_its_way.written)
}

impl<'w> Group<'_, 'w> {
    fn take(&mut self, write: &'w Write) -> Done<()> {
        for route in &write.routes {
            self.sql.route.execute((route.route, &*route.transport, &*route.name))?;
        }
        if let Some(message) = write.message.as_deref()
            && self.insert(message)?
        {
            self.written.inserted.insert(message.seq);
        }
        for update in &write.updates {
            let seq = seq_of(update.key);
            if update.state == State::Open || self.in_order || !self.finish.contains(&seq) {
                self.update(update)?;
            } else {
                self.last.entry(seq).or_default().push(update);
            }
        }
        for c in &write.changes {
            if self.sql.change.execute((c.key, c.from as i64, c.to as i64, c.due, &c.reason))? > 0 {
                self.written.changed.push(c.key);
            }
        }
        for r in &write.reports {
            let row = (r.number, r.seq, r.variant, r.kind as i64, r.due, r.expires_at, json(&r.recipients)?);
            if self.sql.report.execute(row)? > 0 {
                self.written.reports.push(r.number);
            }
        }
        for number in &write.reports_done {
            if self.sql.report_done.execute((number,))? > 0 {
                self.written.reports_done.push(*number);
            }
        }
        for later in &write.reports_later {
            self.sql.report_later.execute((later.number, later.due, later.attempts))?;
        }
        for e in &write.events {
            if e.only_with.is_none_or(|seq| self.written.inserted.contains(&seq)) {
                self.sql.event.execute((&e.message_id, e.number, e.at, &e.kind, &e.text))?;
            }
        }
        Ok(())
    }

    /// A message that is not inserted (its id is here, or has been; the report that it fulfils is not owed any more)
    /// leaves no rows in the other tables either.
    fn insert(&mut self, message: &NewMessage) -> Done<bool> {
        if self.sql.traced.exists((&message.id,))? {
            return Ok(false);
        }
        if let Some(report) = &message.report
            && !self.sql.owed.exists((report.number, &report.message_id))?
        {
            return Ok(false);
        }
        let (file, inline) = match &message.body {
            Body::File(name) => (Some(name), None),
            Body::Inline(body) => (None, Some(body)),
        };
        let inserted = self.sql.message.execute((
            message.seq,
            &message.id,
            message.received_at,
            message.body_bytes as i64,
            file,
            message.body_type,
            message.smtp_utf8,
            &message.header_message_id,
            json(&message.origin)?,
        ))?;
        if inserted == 0 {
            return Ok(false);
        }
        for (n, v) in (0..).zip(&message.variants) {
            self.sql.variant.execute((key(message.seq, n), &v.sender, &v.envid, v.dsn_return, &*v.header))?;
        }
        if let Some(body) = inline {
            self.sql.body.execute((message.seq, &**body))?;
        }
        for (n, new) in (0..).zip(&message.recipients) {
            let recipient = &new.recipient;
            self.sql.recipient.execute((
                key(message.seq, n),
                new.variant,
                new.route,
                message.due,
                message.delivery_bytes(new.variant) as i64,
                &recipient.address,
                &recipient.original,
                recipient.notify,
                &recipient.delivered_to,
            ))?;
        }
        Ok(true)
    }

    fn update(&mut self, u: &RecipientUpdate) -> Done<()> {
        let row = (u.key, u.state as i64, u.due, u.attempts, u.warned, u.at, &u.remote, &u.reply, &u.code);
        self.sql.update.execute(row).map(drop)
    }

    fn finish_by_id(&mut self, ids: &[String]) -> Done<()> {
        for id in ids {
            self.finish.extend(self.sql.seq_of_id.query_row((id,), |row| row.get::<_, Seq>(0)).optional()?);
        }
        Ok(())
    }

    /// Messages leave if nothing of them is open or owed.
    fn finish(&mut self) -> Done<()> {
        for seq in std::mem::take(&mut self.finish) {
            let last = self.last.remove(&seq).unwrap_or_default();
            let keys = (key(seq, 0), key(seq, 0) + ROWS_MAX);
            if self.is_needed(seq, keys, &last)? {
                for update in last {
                    self.update(update)?;
                }
                continue;
            }
            let Some(file) = self.sql.body_file.query_row((seq,), |row| row.get(0)).optional()? else { continue };
            self.sql.delete_variants.execute(keys)?;
            self.sql.delete_recipients.execute(keys)?;
            self.sql.delete_body.execute((seq,))?;
            self.sql.delete_message.execute((seq,))?;
            self.written.finished.push((seq, file));
        }
        Ok(())
    }

    fn is_needed(&mut self, seq: Seq, keys: (i64, i64), last: &[&RecipientUpdate]) -> Done<bool> {
        let mut open = self.sql.open.query(keys)?;
        while let Some(row) = open.next()? {
            let open: i64 = row.get(0)?;
            if !last.iter().any(|update| update.key == open) {
                return Ok(true);
            }
        }
        drop(open);
        self.sql.owes.exists((seq,))
    }
}

impl SqliteStore {
    pub(super) fn write_group(&self, group: &[Write]) -> Result<Written, StoreError> {
        let written = self.writes.run(|connection| write(connection, group))?;
        self.writes.checkpoint_if_due();
        Ok(written)
    }

    pub(super) async fn delete_events(&self, until: i64, limit: u32) -> Result<u64, StoreError> {
        // From the front, where the oldest ids are; what is still queued keeps its history.
        let text = "DELETE FROM events WHERE (message_id, n) IN (
            SELECT message_id, n FROM events AS e WHERE at < ?
            AND NOT EXISTS (SELECT 1 FROM messages AS m WHERE m.id = e.message_id) LIMIT ?)";
        let deleted = self.writes.aside(move |connection| connection.prepare_cached(text)?.execute((until, limit)));
        Ok(deleted.await? as u64)
    }

    pub(super) async fn delete_routes(&self, routes: &[RouteId]) -> Result<Vec<RouteId>, StoreError> {
        let routes = routes.to_vec();
        let work = move |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let mut dropped = Vec::new();
            {
                let mut delete =
                    transaction.prepare_cached(&format!("DELETE FROM routes WHERE route = ? AND {UNUSED_ROUTE}"))?;
                for route in routes {
                    if delete.execute((route,))? > 0 {
                        dropped.push(route);
                    }
                }
            }
            transaction.commit()?;
            Ok(dropped)
        };
        self.writes.aside(work).await
    }

    pub(super) async fn write_nothing(&self) -> Result<(), StoreError> {
        let work = |connection: &mut Connection| {
            connection.execute("UPDATE meta SET value = value WHERE key = 'epoch'", ()).map(drop)
        };
        self.writes.aside(work).await
    }
}
