//! Texts of messages that were committed just now: most of them leave before they would have to be read back.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::model::{Body, Content, DueRecipient, NewMessage, Seq};

/// Octets that are kept.
const BYTES_MAX: u64 = 16 << 20;
/// Messages that are kept: small ones weigh more than their octets.
const MESSAGES_MAX: usize = 8192;

/// First in, first out, bounded in octets and number.
#[derive(Default)]
pub struct Recent {
    messages: HashMap<Seq, Arc<NewMessage>>,
    order: VecDeque<Seq>,
    bytes: u64,
}

impl Recent {
    pub fn keep(&mut self, message: &Arc<NewMessage>) {
        self.bytes += weight(message);
        self.order.push_back(message.seq);
        self.messages.insert(message.seq, Arc::clone(message));
        while self.bytes > BYTES_MAX || self.order.len() > MESSAGES_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            self.forget(oldest);
        }
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
