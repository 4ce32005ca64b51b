//! What a decision is made from, what it says, and how it tells of itself.

use std::net::IpAddr;

use types::{Address, Reply};

/// Everything that is known of one recipient of one transaction.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// Name of the MailListener.
    pub listener: &'a str,
    /// Tags besides those of the listener.
    pub tags: &'a [String],
    /// More tags may come later (from a scanner): that a tag is missing is undecided.
    pub tags_open: bool,
    /// Who is on the other side.
    pub client: Client,
    /// Argument of HELO, EHLO or LHLO.
    pub helo: Fact<&'a str>,
    /// The mailbox of the user who authenticated.
    pub user: Fact<Option<&'a Address>>,
    /// `None`: the null reverse-path.
    pub sender: Option<&'a Address>,
    /// Who it is for.
    pub recipient: Recipient<'a>,
    /// A report of ours: no listener, no rules, only routing.
    pub internal: bool,
}

/// The other side of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// Its address, learned as the listener declares.
    Ip(IpAddr),
    /// The peer of a Unix socket.
    Unix,
    /// Hidden behind something that does not tell: no criterion on the address holds, turned round neither.
    Unknown,
}

/// A fact that may come later in the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact<T> {
    /// Known now.
    Known(T),
    /// Not known yet: criteria on it are undecided.
    Later,
}

/// A recipient as RCPT names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipient<'a> {
    /// A mailbox.
    Address(&'a Address),
    /// `<postmaster>` without a domain (RFC 5321 section 4.5.1).
    Postmaster,
}

/// What is answered to RCPT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 4xx or 5xx.
    Refuse(Reply),
    /// Taken.
    Accept(Accepted),
}

/// A recipient that is taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accepted {
    /// One or more; equal ones only once.
    pub destinations: Vec<Destination>,
    /// Tags of the listener, of the facts and of the rules that were passed.
    pub tags: Vec<String>,
    /// Name of the rule that accepted, or of the built-in step.
    pub rule: String,
    /// Depends on a fact that was not known: to be asked again when it is.
    pub undecided: bool,
    /// What the members of an expansion that are not taken were refused with, while others are.
    pub dropped: Vec<Reply>,
}

/// One delivery that a recipient became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Where it is delivered to.
    pub address: Address,
    /// Name of the MailTransport.
    pub transport: String,
    /// What the delivery is grouped and shaped by.
    pub route: String,
    /// The address that was written to.
    pub delivered_to: Address,
    /// Replaces the envelope sender: `Some(None)` by the null reverse-path.
    pub sender: Option<Option<Address>>,
}

/// Listens to how a decision is made.
pub trait Story {
    /// False: nobody listens, and no text is made.
    const TOLD: bool;

    /// One rule or built-in step was tried.
    fn step(&mut self, rule: &str, matched: bool, reason: String);
}

/// Nobody listens.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoStory;

impl Story for NoStory {
    const TOLD: bool = false;

    fn step(&mut self, _: &str, _: bool, _: String) {}
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Name of the rule, or of the built-in step.
    pub rule: String,
    /// Whether it applied.
    pub matched: bool,
    /// Why, or why not.
    pub reason: String,
}

impl Story for Vec<Step> {
    const TOLD: bool = true;

    fn step(&mut self, rule: &str, matched: bool, reason: String) {
        self.push(Step { rule: rule.to_owned(), matched, reason });
    }
}
