use std::fmt;
use std::str::FromStr;

/// RFC 4648 section 7 alphabet in lower case: sorts as the bytes do.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
const TEXT_OCTETS: usize = 26;

/// The name of a message, made by ingress when it chooses the queue shard: shard, time, random.
///
/// Prints as 26 characters of `0-9a-v`, in the order of shard and time. It is the idempotency key of `Accept`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId([u8; 16]);

/// The text is not a message id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a message id is 26 characters of 0-9 and a-v")]
pub struct MessageIdError;

impl MessageId {
    /// Puts an id together. `unix_ms` is cut to 48 bits.
    pub fn new(shard: u16, unix_ms: u64, random: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&shard.to_be_bytes());
        bytes[2..8].copy_from_slice(&unix_ms.to_be_bytes()[2..]);
        bytes[8..].copy_from_slice(&random.to_be_bytes());
        Self(bytes)
    }

    /// The shard that holds the message.
    pub fn shard(&self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    /// The bytes as they are stored.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl From<[u8; 16]> for MessageId {
    fn from(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl TryFrom<&[u8]> for MessageId {
    type Error = MessageIdError;
    fn try_from(bytes: &[u8]) -> Result<Self, MessageIdError> {
        bytes.try_into().map(Self).map_err(|_| MessageIdError)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 26 characters hold 130 bits: the two spare ones are zero and stand in front.
        let value = u128::from_be_bytes(self.0);
        let mut text = [0u8; TEXT_OCTETS];
        for (i, slot) in text.iter_mut().enumerate() {
            let shift = 5 * (TEXT_OCTETS - 1 - i);
            *slot = ALPHABET[(value >> shift) as usize & 31];
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MessageId {
    type Err = MessageIdError;
    fn from_str(text: &str) -> Result<Self, MessageIdError> {
        // The first character holds the top three of 128 bits.
        if text.len() != TEXT_OCTETS || text.as_bytes()[0] > b'7' {
            return Err(MessageIdError);
        }
        let mut value = 0u128;
        for byte in text.bytes() {
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'v' => byte - b'a' + 10,
                _ => return Err(MessageIdError),
            };
            value = value << 5 | u128::from(digit);
        }
        Ok(Self(value.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_sort_by_shard_then_time_as_text_and_as_bytes() {
        let ids =
            [MessageId::new(0, 1, 9), MessageId::new(0, 2, 0), MessageId::new(0, u64::MAX, 0), MessageId::new(1, 0, 0)];
        assert!(ids.is_sorted());
        assert!(ids.map(|id| id.to_string()).is_sorted());
        assert_eq!(ids[3].shard(), 1);
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        let good = MessageId::new(1, 2, 3).to_string();
        assert_eq!(good.parse(), Ok(MessageId::new(1, 2, 3)));
        let bad = ["", "w", &good[1..], &good.replace('0', "w"), &format!("8{}", &good[1..]), &format!("{good}0")];
        for text in bad {
            assert_eq!(text.parse::<MessageId>(), Err(MessageIdError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_id_survives_its_text(bytes: [u8; 16]) {
            let id = MessageId::from(bytes);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }
    }
}
