//! What starting and leasing read.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use posthouse_proto::queue::v1 as proto;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, AssertSqlSafe, Row, SqliteConnection, ValueRef};

use super::{SqliteStore, classify};
use crate::model::{
    Content, DueRecipient, Recipient, ReportKey, ReportKind, RouteId, StoredReport, Variant, key, number_of, seq_of,
};
use crate::store::{HeadRow, Loaded, Pick, ReadReport, StoreError, StoredRoute};

/// What is no number (a damaged row) is read as one: it fails, alone, when its contents are read.
const HEADS: &str = "SELECT route, CAST(due AS INTEGER), rkey, CAST(variant AS INTEGER), CAST(bytes AS INTEGER)
    FROM recipients WHERE route = ? AND state = 0 ORDER BY due, rkey LIMIT ?;";

/// What is larger than it can be is not read: 64 MiB is `HEADERS_MAX_BYTES`.
const CONTENT: &str = "SELECT m.id, m.received_at, m.body_bytes, m.body_file, m.body_type, m.smtp_utf8,
    v.sender, v.envid, v.dsn_return, CASE WHEN length(v.header) <= 67108864 THEN v.header END,
    CASE WHEN length(b.body) = m.body_bytes THEN b.body END, v.vkey
    FROM json_each(?) AS j JOIN messages AS m ON m.seq = j.value >> 16 JOIN variants AS v ON v.vkey = j.value
    LEFT JOIN bodies AS b ON b.seq = m.seq";

const RECIPIENTS: &str = "SELECT r.rkey, r.due, r.attempts, r.warned, r.address, r.original, r.notify, r.delivered_to,
    t.transport, t.name
    FROM json_each(?) AS j JOIN recipients AS r ON r.rkey = j.value JOIN routes AS t ON t.route = r.route
    WHERE r.state = 0";

/// Two looks into an index for each route.
pub(super) const UNUSED_ROUTE: &str = "NOT EXISTS
    (SELECT 1 FROM recipients AS r WHERE r.route = routes.route AND r.state = 0)
    AND NOT EXISTS (SELECT 1 FROM recipients AS r WHERE r.route = routes.route AND r.state = 1)";

impl SqliteStore {
    pub(super) async fn read_start(&self) -> Result<Loaded, StoreError> {
        let work = |connection: &mut rusqlite::Connection| {
            let epoch = "UPDATE meta SET value = value + 1 WHERE key = 'epoch' RETURNING value";
            let epoch = connection.query_row(epoch, (), |row| row.get(0))?;
            connection.execute(&format!("DELETE FROM routes WHERE {UNUSED_ROUTE}"), ())?;
            let count = |text: &str| connection.query_row(text, (), |row| row.get::<_, i64>(0));
            let number = |text: &str| Ok::<_, rusqlite::Error>(u64::try_from(count(text)?).unwrap_or(0));
            // Each walks the leaves of one index at most.
            Ok(Loaded {
                epoch,
                next_seq: count("SELECT coalesce(max(seq), 0) + 1 FROM messages")?,
                messages: number("SELECT count(*) FROM messages")?,
                open: number("SELECT count(*) FROM recipients INDEXED BY recipients_due WHERE state = 0")?,
                held: number("SELECT count(*) FROM recipients INDEXED BY recipients_held WHERE state = 1")?,
                reports: number("SELECT count(*) FROM reports")?,
            })
        };
        self.writes.aside(work).await
    }

    pub(super) async fn read_routes(&self) -> Result<Vec<StoredRoute>, StoreError> {
        let mut held = self.for_leases().await?;
        // One look into the index per route.
        let rows = sqlx::query(
            "SELECT route, transport, name,
                (SELECT CAST(due AS INTEGER) FROM recipients AS r WHERE r.route = routes.route AND r.state = 0 ORDER BY due LIMIT 1)
             FROM routes",
        )
        .fetch_all(held.connection()?)
        .await;
        let rows = rows.map_err(|error| held.failed(&error))?;
        let route = |row: &SqliteRow| -> Result<StoredRoute, sqlx::Error> {
            let transport: String = row.try_get(1)?;
            let name: String = row.try_get(2)?;
            Ok(StoredRoute {
                route: row.try_get(0)?,
                transport: transport.into(),
                name: name.into(),
                due: row.try_get(3)?,
            })
        };
        rows.iter().map(|row| route(row).map_err(|error| classify(&error))).collect()
    }

    pub(super) async fn read_heads(&self, asks: &[(RouteId, u32)]) -> Result<Vec<HeadRow>, StoreError> {
        let mut heads = Vec::new();
        let mut held = self.for_leases().await?;
        let mut rest = asks;
        while !rest.is_empty() {
            // A power of two of routes in one journey: a handful of texts stay prepared.
            let n = (1usize << rest.len().ilog2()).min(32);
            let (now, later) = rest.split_at(n);
            rest = later;
            let mut arguments = SqliteArguments::default();
            for (route, limit) in now {
                arguments.add(route).map_err(|error| StoreError::Refused(error.to_string()))?;
                arguments.add(limit).map_err(|error| StoreError::Refused(error.to_string()))?;
            }
            let query = sqlx::query_with(AssertSqlSafe(HEADS.repeat(n)), arguments);
            let rows = query.fetch_all(held.connection()?).await.map_err(|error| held.failed(&error))?;
            for row in rows {
                heads.push(head(&row).map_err(|error| classify(&error))?);
            }
        }
        Ok(heads)
    }

    pub(super) async fn read_contents(
        &self,
        picks: &[Pick],
    ) -> Result<Vec<Result<Option<Content>, String>>, StoreError> {
        let mut held = self.for_leases().await?;
        let together = contents(held.connection()?, picks).await;
        match together {
            Ok(found) => Ok(found),
            Err(_) => {
                // One of them cannot be read: find it, and let the others go on.
                let mut found = Vec::with_capacity(picks.len());
                for pick in picks {
                    match contents(held.connection()?, std::slice::from_ref(pick)).await {
                        Ok(one) => found.extend(one),
                        Err(error) if is_about_one_row(&error) => found.push(Err(error.to_string())),
                        Err(error) => return Err(held.failed(&error)),
                    }
                }
                Ok(found)
            }
        }
    }

    pub(super) async fn read_reports(&self, limit: u32) -> Result<Vec<ReadReport>, StoreError> {
        let mut held = self.for_leases().await?;
        let rows = sqlx::query(
            "SELECT r.number, r.seq, r.variant, r.kind, r.due, r.attempts, r.expires_at, r.recipients,
                m.id, m.body_bytes, m.received_at, m.smtp_utf8, v.sender, v.envid, v.dsn_return, v.header
             FROM reports AS r LEFT JOIN messages AS m ON m.seq = r.seq
             LEFT JOIN variants AS v ON v.vkey = (r.seq << 16) + r.variant
             ORDER BY r.due LIMIT ?",
        )
        .bind(limit)
        .fetch_all(held.connection()?)
        .await;
        let rows = rows.map_err(|error| held.failed(&error))?;
        rows.iter()
            .map(|row| {
                let number: i64 = row.try_get(0).map_err(|error| classify(&error))?;
                Ok(report(row, number).map_err(|error| (number, error.to_string())))
            })
            .collect()
    }
}

/// Whether an error tells of damaged contents rather than of a store in trouble.
fn is_about_one_row(error: &sqlx::Error) -> bool {
    const CORRUPT: i32 = 11;
    const TOO_BIG: i32 = 18;
    match error {
        sqlx::Error::Database(inner) => {
            let code = inner.code().and_then(|code| code.parse::<i32>().ok()).map(|code| code & 0xff);
            matches!(code, Some(CORRUPT | TOO_BIG))
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => true,
        _ => false,
    }
}

fn head(row: &SqliteRow) -> Result<HeadRow, sqlx::Error> {
    Ok(HeadRow {
        route: row.try_get(0)?,
        due: row.try_get(1)?,
        key: row.try_get(2)?,
        variant: row.try_get(3)?,
        bytes: u64::try_from(row.try_get::<i64, _>(4)?).unwrap_or(0),
    })
}

async fn contents(
    connection: &mut SqliteConnection,
    picks: &[Pick],
) -> Result<Vec<Result<Option<Content>, String>>, sqlx::Error> {
    let vkeys: Vec<i64> = picks.iter().map(|pick| key(pick.seq, pick.variant)).collect();
    let keys: Vec<i64> =
        picks.iter().flat_map(|pick| pick.numbers.iter().map(|number| key(pick.seq, *number))).collect();
    let json = |list: &[i64]| serde_json::to_string(list).map_err(|error| sqlx::Error::Encode(Box::new(error)));
    let rows = sqlx::query(CONTENT).bind(json(&vkeys)?).fetch_all(&mut *connection).await?;
    let mut texts: HashMap<i64, Result<Content, String>> = HashMap::with_capacity(rows.len());
    for row in &rows {
        let vkey: i64 = row.try_get(11)?;
        texts.insert(vkey, content(row, vkey).map_err(|error| error.to_string()));
    }
    drop(rows);
    let mut due: HashMap<i64, DueRecipient> = HashMap::with_capacity(keys.len());
    for row in sqlx::query(RECIPIENTS).bind(json(&keys)?).fetch_all(connection).await? {
        let key: i64 = row.try_get(0)?;
        due.insert(key, due_recipient(&row, key)?);
    }
    let mut found = Vec::with_capacity(picks.len());
    for pick in picks {
        found.push(match texts.get(&key(pick.seq, pick.variant)) {
            // Recipients without their message's text cannot have been settled meanwhile: damage.
            None if pick.numbers.iter().any(|n| due.contains_key(&key(pick.seq, *n))) => {
                Err("the message's text is missing".to_owned())
            }
            None => Ok(None),
            Some(Err(reason)) => Err(reason.clone()),
            Some(Ok(text)) => {
                let mut content = text.clone();
                content.recipients = pick.numbers.iter().filter_map(|n| due.remove(&key(pick.seq, *n))).collect();
                Ok((!content.recipients.is_empty()).then_some(content))
            }
        });
    }
    Ok(found)
}

fn content(row: &SqliteRow, vkey: i64) -> Result<Content, sqlx::Error> {
    let body_bytes = u64::try_from(row.try_get::<i64, _>(2)?).unwrap_or(0);
    let file: Option<String> = row.try_get(3)?;
    let body: Option<Vec<u8>> = row.try_get(10)?;
    if file.is_none() && body.as_ref().is_none_or(|body| body.len() as u64 != body_bytes) {
        return Err(sqlx::Error::Decode("the message's body is missing or has another length".into()));
    }
    if row.try_get_raw(9)?.is_null() {
        return Err(sqlx::Error::Decode("the message's header section is oversized".into()));
    }
    let (body_type, dsn_return): (i32, i32) = (row.try_get(4)?, row.try_get(8)?);
    if proto::BodyType::try_from(body_type).is_err() || proto::DsnReturn::try_from(dsn_return).is_err() {
        return Err(sqlx::Error::Decode("the message's body type or RET is unknown".into()));
    }
    Ok(Content {
        seq: seq_of(vkey),
        variant: number_of(vkey),
        id: row.try_get(0)?,
        received_at: row.try_get(1)?,
        body_bytes,
        body: body.filter(|_| file.is_none()).map(Bytes::from),
        body_type: row.try_get(4)?,
        smtp_utf8: row.try_get::<i64, _>(5)? != 0,
        text: variant(row, 6)?,
        recipients: Vec::new(),
    })
}

/// Sender, ENVID, RET and header section, from column `at` on.
pub(super) fn variant(row: &SqliteRow, at: usize) -> Result<Variant, sqlx::Error> {
    Ok(Variant {
        sender: row.try_get(at)?,
        envid: row.try_get(at + 1)?,
        dsn_return: row.try_get(at + 2)?,
        header: Bytes::from(row.try_get::<Vec<u8>, _>(at + 3)?),
    })
}

fn due_recipient(row: &SqliteRow, key: i64) -> Result<DueRecipient, sqlx::Error> {
    let no_number = |_| sqlx::Error::Decode("the recipient's due time is no number".into());
    Ok(DueRecipient {
        number: number_of(key),
        due: row.try_get(1).map_err(no_number)?,
        attempts: row.try_get(2)?,
        warned: row.try_get::<i64, _>(3)? != 0,
        recipient: recipient(row, 4, 8)?,
    })
}

/// The envelope's part of a recipient: four columns from `at`, transport and route from `route`.
pub(super) fn recipient(row: &SqliteRow, at: usize, route: usize) -> Result<Recipient, sqlx::Error> {
    let name = |n: usize| -> Result<Arc<str>, sqlx::Error> {
        let text: Option<String> = row.try_get(n)?;
        Ok(text.unwrap_or_default().into())
    };
    Ok(Recipient {
        address: row.try_get(at)?,
        original: row.try_get(at + 1)?,
        notify: row.try_get(at + 2)?,
        delivered_to: row.try_get(at + 3)?,
        transport: name(route)?,
        route: name(route + 1)?,
    })
}

fn report(row: &SqliteRow, number: i64) -> Result<StoredReport, sqlx::Error> {
    let recipients: String = row.try_get(7)?;
    let kind = ReportKind::from_number(row.try_get(3)?)
        .ok_or_else(|| sqlx::Error::Decode("the report's kind is unknown".into()))?;
    Ok(StoredReport {
        key: ReportKey { message_id: row.try_get(8)?, number },
        seq: row.try_get(1)?,
        variant: row.try_get(2)?,
        kind,
        due: row.try_get(4)?,
        attempts: row.try_get(5)?,
        expires_at: row.try_get(6)?,
        recipients: serde_json::from_str(&recipients).map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
        body_bytes: u64::try_from(row.try_get::<i64, _>(9)?).unwrap_or(0),
        received_at: row.try_get(10)?,
        smtp_utf8: row.try_get::<i64, _>(11)? != 0,
        text: variant(row, 12)?,
    })
}
