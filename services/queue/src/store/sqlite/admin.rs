//! What people ask for, and the trait itself.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use bytes::Bytes;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite};

use super::read::{recipient, variant};
use super::{SqliteStore, classify};
use crate::model::{Content, Event, MessageMeta, Origin, RouteId, Seq, State, StoredRecipient, Variant, seq_of};
use crate::store::{
    BackedUp, HeadRow, Listed, Loaded, Pick, ReadReport, Selected, Selection, Store, StoreError, StoredRoute, TraceBy,
    Write, Written,
};

const META: &str = "SELECT seq, id, received_at, body_bytes, body_file, body_type, smtp_utf8, header_message_id, origin
    FROM messages ";
const RECIPIENT: &str = "SELECT r.rkey, r.variant, r.route, r.state, CAST(r.due AS INTEGER), r.attempts, r.warned,
    r.address, r.original, r.notify, r.delivered_to, t.transport, t.name,
    r.last_at, r.last_remote, r.last_reply, r.last_code, r.hold_reason";

fn json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Refused(error.to_string()))
}

fn meta(row: &SqliteRow) -> Result<MessageMeta, sqlx::Error> {
    let origin: String = row.try_get(8)?;
    Ok(MessageMeta {
        seq: row.try_get(0)?,
        id: row.try_get(1)?,
        received_at: row.try_get(2)?,
        body_bytes: u64::try_from(row.try_get::<i64, _>(3)?).unwrap_or(0),
        body_file: row.try_get(4)?,
        body_type: row.try_get(5)?,
        smtp_utf8: row.try_get::<i64, _>(6)? != 0,
        header_message_id: row.try_get(7)?,
        // Only shown to people: what cannot be read is shown empty.
        origin: serde_json::from_str::<Origin>(&origin).unwrap_or_default(),
    })
}

fn stored_recipient(row: &SqliteRow) -> Result<StoredRecipient, sqlx::Error> {
    let text =
        |n: usize| -> Result<String, sqlx::Error> { Ok(row.try_get::<Option<String>, _>(n)?.unwrap_or_default()) };
    let number: i64 = row.try_get(3)?;
    let (state, reason) = match State::from_number(number) {
        Some(state) => (state, text(17)?),
        // Nobody leases what is not open: it rests as if it were held.
        None => (State::Held, format!("its state is unknown: {number}")),
    };
    Ok(StoredRecipient {
        key: row.try_get(0)?,
        variant: row.try_get(1)?,
        route: row.try_get(2)?,
        state,
        due: row.try_get(4)?,
        attempts: row.try_get(5)?,
        warned: row.try_get::<i64, _>(6)? != 0,
        recipient: recipient(row, 7, 11)?,
        last_at: row.try_get(13)?,
        last_remote: text(14)?,
        last_reply: text(15)?,
        last_code: text(16)?,
        hold_reason: reason,
    })
}

/// Adds ` AND ...` for every condition; the tables are m, r, v, t.
fn conditions(query: &mut QueryBuilder<Sqlite>, selection: &Selection) -> Result<(), StoreError> {
    let Selection { message_ids, sender, recipient, route, transport, states, .. } = selection;
    if !message_ids.is_empty() {
        query.push(" AND m.id IN (SELECT value FROM json_each(").push_bind(json(message_ids)?).push("))");
    }
    for (column, address) in [("v.sender", sender), ("r.address", recipient)] {
        if address.starts_with('@') {
            query.push(" AND substr(lower(").push(column).push("), -length(").push_bind(address.to_lowercase());
            query.push(")) = ").push_bind(address.to_lowercase());
        } else if !address.is_empty() {
            query.push(" AND lower(").push(column).push(") = ").push_bind(address.to_lowercase());
        }
    }
    for (column, name) in [("t.name", route), ("t.transport", transport)] {
        if !name.is_empty() {
            query.push(" AND ").push(column).push(" = ").push_bind(name.clone());
        }
    }
    if !states.is_empty() {
        let states: Vec<i64> = states.iter().map(|state| *state as i64).collect();
        query.push(" AND r.state IN (SELECT value FROM json_each(").push_bind(json(&states)?).push("))");
    }
    for (text, bound) in [
        (" AND r.due <= ", selection.due_until),
        (" AND r.due > ", selection.due_after),
        (" AND m.received_at <= ", selection.received_until),
    ] {
        if let Some(bound) = bound {
            query.push(text).push_bind(bound);
        }
    }
    if let Some(keys) = &selection.keys {
        query.push(" AND r.rkey IN (SELECT value FROM json_each(").push_bind(json(keys)?).push("))");
    }
    if !selection.keys_not.is_empty() {
        query.push(" AND r.rkey NOT IN (SELECT value FROM json_each(").push_bind(json(&selection.keys_not)?).push("))");
    }
    Ok(())
}

const JOINED: &str = " FROM recipients AS r JOIN messages AS m ON m.seq = r.rkey >> 16
    LEFT JOIN variants AS v ON v.vkey = (m.seq << 16) + r.variant LEFT JOIN routes AS t ON t.route = r.route ";

impl SqliteStore {
    async fn read_list(&self, selection: &Selection, after: &str, limit: u32) -> Result<Vec<Listed>, StoreError> {
        let mut query = QueryBuilder::new(META);
        // ids of 26 characters up to `v`: all stand before this one.
        query.push("AS m WHERE m.id < ").push_bind(if after.is_empty() { "~".to_owned() } else { after.to_owned() });
        query.push(
            " AND EXISTS (SELECT 1 FROM recipients AS r
             LEFT JOIN variants AS v ON v.vkey = (m.seq << 16) + r.variant LEFT JOIN routes AS t ON t.route = r.route
             WHERE r.rkey BETWEEN m.seq << 16 AND (m.seq << 16) + 65535",
        );
        conditions(&mut query, selection)?;
        query.push(") ORDER BY m.id DESC LIMIT ").push_bind(limit);
        let mut held = self.for_people().await?;
        let rows = query.build().fetch_all(held.connection()?).await.map_err(|error| held.failed(&error))?;
        let metas: Vec<MessageMeta> =
            rows.iter().map(meta).collect::<Result<_, _>>().map_err(|error| classify(&error))?;
        let seqs: Vec<Seq> = metas.iter().map(|meta| meta.seq).collect();
        let mut query = QueryBuilder::new(RECIPIENT);
        query.push(", v.sender FROM json_each(").push_bind(json(&seqs)?);
        query.push(
            ") AS j JOIN recipients AS r ON r.rkey BETWEEN j.value << 16 AND (j.value << 16) + 65535
             LEFT JOIN variants AS v ON v.vkey = (j.value << 16) + r.variant
             LEFT JOIN routes AS t ON t.route = r.route ORDER BY r.rkey",
        );
        let rows = query.build().fetch_all(held.connection()?).await.map_err(|error| held.failed(&error))?;
        let mut recipients: BTreeMap<Seq, (String, Vec<StoredRecipient>)> = BTreeMap::new();
        for row in &rows {
            let one = stored_recipient(row).map_err(|error| classify(&error))?;
            let sender: Option<String> = row.try_get(18).map_err(|error| classify(&error))?;
            let of = recipients.entry(seq_of(one.key)).or_insert_with(|| (sender.unwrap_or_default(), Vec::new()));
            of.1.push(one);
        }
        let listed = |meta: MessageMeta| {
            let (sender, recipients) = recipients.remove(&meta.seq).unwrap_or_default();
            Listed { meta, sender, recipients }
        };
        Ok(metas.into_iter().map(listed).collect())
    }

    async fn read_selected(&self, selection: &Selection, after: i64, limit: u32) -> Result<Vec<Selected>, StoreError> {
        let mut query = QueryBuilder::new(RECIPIENT);
        query.push(", m.id, m.received_at, v.sender").push(JOINED).push("WHERE r.rkey > ").push_bind(after);
        conditions(&mut query, selection)?;
        query.push(" ORDER BY r.rkey LIMIT ").push_bind(limit);
        let mut held = self.for_people().await?;
        let rows = query.build().fetch_all(held.connection()?).await.map_err(|error| held.failed(&error))?;
        let selected = |row: &SqliteRow| -> Result<Selected, sqlx::Error> {
            Ok(Selected {
                recipient: stored_recipient(row)?,
                message_id: row.try_get(18)?,
                received_at: row.try_get(19)?,
                sender: row.try_get::<Option<String>, _>(20)?.unwrap_or_default(),
            })
        };
        rows.iter().map(|row| selected(row).map_err(|error| classify(&error))).collect()
    }

    async fn read_trace(&self, by: &TraceBy, limit: u32) -> Result<Vec<Event>, StoreError> {
        let mut query = QueryBuilder::new("SELECT message_id, n, at, kind, text FROM events WHERE message_id ");
        match by {
            TraceBy::MessageId(id) => {
                query.push("= ").push_bind(id.clone());
            }
            TraceBy::Address(text) | TraceBy::HeaderMessageId(text) => {
                // What a message was received with stands in one event, as JSON: the quoted text is looked for.
                query.push("IN (SELECT message_id FROM events WHERE kind = 'received' AND instr(lower(text), ");
                query.push_bind(json(&text.to_lowercase())?).push(") > 0 ORDER BY message_id DESC LIMIT ");
                query.push_bind(limit).push(")");
            }
        }
        query.push(" ORDER BY message_id, n");
        let mut held = self.for_people().await?;
        let rows = query.build().fetch_all(held.connection()?).await.map_err(|error| held.failed(&error))?;
        let event = |row: &SqliteRow| -> Result<Event, sqlx::Error> {
            Ok(Event {
                message_id: row.try_get(0)?,
                number: row.try_get(1)?,
                at: row.try_get(2)?,
                kind: row.try_get(3)?,
                text: row.try_get(4)?,
                only_with: None,
            })
        };
        rows.iter().map(|row| event(row).map_err(|error| classify(&error))).collect()
    }
}

impl Store for SqliteStore {
    async fn load(&self) -> Result<Loaded, StoreError> {
        self.read_start().await
    }

    async fn write(&self, group: &[Write]) -> Result<Written, StoreError> {
        self.write_group(group)
    }

    async fn routes(&self) -> Result<Vec<StoredRoute>, StoreError> {
        self.read_routes().await
    }

    async fn drop_routes(&self, routes: &[RouteId]) -> Result<Vec<RouteId>, StoreError> {
        self.delete_routes(routes).await
    }

    async fn heads(&self, asks: &[(RouteId, u32)]) -> Result<Vec<HeadRow>, StoreError> {
        self.read_heads(asks).await
    }

    async fn contents(&self, picks: &[Pick]) -> Result<Vec<Result<Option<Content>, String>>, StoreError> {
        self.read_contents(picks).await
    }

    async fn reports(&self, limit: u32) -> Result<Vec<ReadReport>, StoreError> {
        self.read_reports(limit).await
    }

    async fn message(&self, id: &str) -> Result<Option<MessageMeta>, StoreError> {
        let mut query = QueryBuilder::new(META);
        query.push("WHERE id = ").push_bind(id.to_owned());
        let mut held = self.for_people().await?;
        let row = query.build().fetch_optional(held.connection()?).await.map_err(|error| held.failed(&error))?;
        row.as_ref().map(meta).transpose().map_err(|error| classify(&error))
    }

    async fn body(&self, seq: Seq) -> Result<Option<Bytes>, StoreError> {
        let mut held = self.for_people().await?;
        let body: Result<Option<Vec<u8>>, _> = sqlx::query_scalar("SELECT body FROM bodies WHERE seq = ?")
            .bind(seq)
            .fetch_optional(held.connection()?)
            .await;
        Ok(body.map_err(|error| held.failed(&error))?.map(Bytes::from))
    }

    async fn variants(&self, seq: Seq) -> Result<Vec<Variant>, StoreError> {
        let mut held = self.for_people().await?;
        let rows = sqlx::query(
            "SELECT sender, envid, dsn_return, header FROM variants WHERE vkey BETWEEN ? << 16 AND (? << 16) + 65535
             ORDER BY vkey",
        )
        .bind(seq)
        .bind(seq)
        .fetch_all(held.connection()?)
        .await;
        let rows = rows.map_err(|error| held.failed(&error))?;
        rows.iter().map(|row| variant(row, 0).map_err(|error| classify(&error))).collect()
    }

    async fn list(&self, selection: &Selection, after: &str, limit: u32) -> Result<Vec<Listed>, StoreError> {
        self.read_list(selection, after, limit).await
    }

    async fn select(&self, selection: &Selection, after: i64, limit: u32) -> Result<Vec<Selected>, StoreError> {
        self.read_selected(selection, after, limit).await
    }

    async fn trace(&self, by: &TraceBy, limit: u32) -> Result<Vec<Event>, StoreError> {
        self.read_trace(by, limit).await
    }

    async fn due_count(&self, routes: &[RouteId], until: i64) -> Result<u64, StoreError> {
        let mut held = self.for_people().await?;
        let count: Result<i64, _> = sqlx::query_scalar(
            "SELECT count(*) FROM json_each(?) AS j
             JOIN recipients AS r ON r.route = j.value AND r.state = 0 AND r.due <= ?",
        )
        .bind(json(&routes)?)
        .bind(until)
        .fetch_one(held.connection()?)
        .await;
        Ok(u64::try_from(count.map_err(|error| held.failed(&error))?).unwrap_or(0))
    }

    async fn known_bodies(&self, names: &[String]) -> Result<HashSet<String>, StoreError> {
        // A file's name begins with its message's id.
        let pairs: Vec<(&str, &str)> =
            names.iter().map(|name| (name.split('-').next().unwrap_or(name), name.as_str())).collect();
        let mut held = self.for_people().await?;
        let known: Result<Vec<String>, _> = sqlx::query_scalar(
            "SELECT m.body_file FROM json_each(?) AS j JOIN messages AS m ON m.id = j.value ->> 0
             WHERE m.body_file = j.value ->> 1",
        )
        .bind(json(&pairs)?)
        .fetch_all(held.connection()?)
        .await;
        Ok(known.map_err(|error| held.failed(&error))?.into_iter().collect())
    }

    async fn trim_events(&self, until: i64, limit: u32) -> Result<u64, StoreError> {
        self.delete_events(until, limit).await
    }

    async fn tidy(&self) -> Result<(), StoreError> {
        self.checkpoint().await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.write_nothing().await
    }

    async fn backup(&self, folder: &Path) -> Result<BackedUp, StoreError> {
        self.back_up(folder).await
    }
}
