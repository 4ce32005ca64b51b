//! Texts of messages that were committed just now: most of them leave before they would have to be read back.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::model::{Body, Content, DueRecipient, NewMessage, Seq};

/// Octets that are kept.
const BYTES_MAX: u64 = 16 << 20;
/// Messages that are kept: small ones weigh more than their octets.
const MESSAGES_MAX: usize = 8192;

/// How long the oldest may keep its place from a newer one. Routes are served oldest first: to drop the oldest for the
/// newest would drop each shortly before its turn.
const PLACE_MAX: Duration = Duration::from_secs(10);

/// Bounded in octets and number.
#[derive(Default)]
pub struct Recent {
    messages: HashMap<Seq, Arc<NewMessage>>,
    order: VecDeque<(Seq, Instant)>,
    bytes: u64,
}

impl Recent {
    /// Keeps a message if there is room.
    pub fn keep(&mut self, message: &Arc<NewMessage>, instant: Instant) {
        let bytes = weight(message);
        while let Some((oldest, since)) = self.order.front().copied() {
            let is_there = self.messages.contains_key(&oldest);
            let full = self.bytes + bytes > BYTES_MAX || self.messages.len() >= MESSAGES_MAX;
            if is_there && !full {
                break;
            }
            if is_there && instant.saturating_duration_since(since) < PLACE_MAX {
                return;
            }
            self.order.pop_front();
            self.forget(oldest);
        }
        if self.order.len() >= 2 * MESSAGES_MAX {
            // Behind one that stays, most have gone.
            self.order.retain(|(seq, _)| self.messages.contains_key(seq));
        }
        self.bytes += bytes;
        self.order.push_back((message.seq, instant));
        self.messages.insert(message.seq, Arc::clone(message));
    }

    /// A message that changed, or is leased for the last time.
    pub fn forget(&mut self, seq: Seq) {
        if let Some(gone) = self.messages.remove(&seq) {
            self.bytes = self.bytes.saturating_sub(weight(&gone));
        }
    }

    pub fn content(&self, seq: Seq, variant: u32, numbers: &[u32]) -> Option<Content> {
        self.messages.get(&seq).and_then(|message| fresh_content(message, variant, numbers))
    }
}

fn weight(message: &NewMessage) -> u64 {
    let headers: usize = message.variants.iter().map(|v| v.header.len()).sum();
    let body = if let Body::Inline(body) = &message.body { body.len() } else { 0 };
    (headers + body) as u64
}

/// What a delivery of a message carries that nobody has tried to deliver yet.
pub fn fresh_content(message: &NewMessage, variant: u32, numbers: &[u32]) -> Option<Content> {
    let text = message.variants.get(variant as usize)?.clone();
    let recipients = numbers.iter().filter_map(|number| {
        let new = message.recipients.get(*number as usize)?;
        let recipient = new.recipient.clone();
        Some(DueRecipient { number: *number, recipient, attempts: 0, warned: false, due: message.due })
    });
    let body: Option<Bytes> = match &message.body {
        Body::Inline(body) => Some(body.clone()),
        Body::File(_) => None,
    };
    Some(Content {
        seq: message.seq,
        variant,
        id: message.id.clone(),
        received_at: message.received_at,
        body_bytes: message.body_bytes,
        body,
        body_type: message.body_type,
        smtp_utf8: message.smtp_utf8,
        text,
        recipients: recipients.collect(),
    })
}
