use types::Address;

/// What MAIL said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MailFrom {
    /// Reverse-path; `None`: the null sender.
    pub sender: Option<Address>,
    /// SIZE (RFC 1870), octets.
    pub size: Option<u64>,
    /// BODY (RFC 6152).
    pub body: BodyType,
    /// SMTPUTF8 (RFC 6531).
    pub smtp_utf8: bool,
    /// RET (RFC 3461 section 4.3).
    pub ret: Option<Ret>,
    /// ENVID (RFC 3461 section 4.4), decoded; printable ASCII only.
    pub envid: Option<String>,
    /// AUTH= (RFC 4954 section 5), decoded; `<>` where the client vouches for nobody.
    pub auth: Option<String>,
}

/// What RCPT said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RcptTo {
    /// Forward-path.
    pub recipient: Recipient,
    /// ORCPT (RFC 3461 section 4.2) as `type;address`, the address decoded; no controls.
    pub orcpt: Option<String>,
    /// NOTIFY (RFC 3461 section 4.1).
    pub notify: Option<Notify>,
}

/// A forward-path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Recipient {
    /// A mailbox; a source route was stripped.
    Address(Address),
    /// `<postmaster>` without a domain (RFC 5321 section 4.5.1).
    Postmaster,
}

impl std::fmt::Display for Recipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Postmaster => f.write_str("postmaster"),
        }
    }
}

/// BODY of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BodyType {
    /// Nothing was said.
    #[default]
    Unspecified,
    /// `7BIT`.
    SevenBit,
    /// `8BITMIME`.
    EightBit,
}

/// How much of the message a report of failure returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ret {
    /// The whole message.
    Full,
    /// The header section.
    Headers,
}

/// When the sender wants to hear of a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Notify(u8);

impl Notify {
    /// No report at all.
    pub const NEVER: Self = Self(1);
    /// When it was delivered.
    pub const SUCCESS: Self = Self(2);
    /// When it failed.
    pub const FAILURE: Self = Self(4);
    /// When it is late.
    pub const DELAY: Self = Self(8);

    /// Bits of the wire contract: 1 never, 2 success, 4 failure, 8 delay; never 0.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Both wishes together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// True where every bit of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}
