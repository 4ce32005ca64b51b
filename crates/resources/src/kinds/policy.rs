use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Status;
use crate::values::{Match, ReversePath, TableRef};

/// Ordered rules: the first that matches decides, and what no rule matches is refused (550 5.7.1).
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "posthouse.dev",
    version = "v1alpha1",
    kind = "MailPolicy",
    namespaced,
    status = "Status",
    doc = "Ordered rules: the first that matches decides, and what no rule matches is refused (550 5.7.1)."
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MailPolicySpec {
    /// The rules, in order.
    pub rules: Vec<PolicyRule>,
}

/// One rule, or `include` with the rules of another policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyRule {
    /// For people: `posthouse explain` shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The rules of this MailPolicy stand here. `default` is the built-in policy: mail for users of ours is delivered, who has logged in or is local relays, everything else is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include: Option<String>,
    /// What must hold, all of it; without this the rule always matches.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<RuleMatch>,
    /// What is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<RuleAction>,
}

/// The criteria stand in two places: by themselves and below `not`.
macro_rules! criteria {
    ($(#[$doc:meta])* $name:ident { $($more:tt)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub struct $name {
            /// The session, or a rule before, gave one of these tags. A value, a list of values, or { table: name }.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub tagged: Option<Match>,
            /// Name of the MailListener. A value, a list of values, or { table: name }.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub listener: Option<Match>,
            /// Address of the client: `any`, `local` (a Unix socket; loopback where the listener says so), an address or network, a list of them, or { table: name }.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub source: Option<Match>,
            /// Who has logged in: `true` or `any`, `false` for nobody, a user's address, a list of them, or { table: name }.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub authenticated: Option<Match>,
            /// What the client said in HELO or EHLO; * stands for anything. A value, a list of values, or { table: name }.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub helo: Option<Match>,
            /// Envelope sender; * stands for anything, <> is the null reverse-path. A value, a list of values, or { table: name }.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub sender: Option<Match>,
            /// Recipient; * stands for anything. A value, a list of values, or { table: name }.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub recipient: Option<Match>,
            /// Domain of the recipient; * stands for anything. A value, a list of values, or { table: name }.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub recipient_domain: Option<Match>,
            /// Whether the domain of the recipient is a MailDomain or an alias of one.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub recipient_domain_is_ours: Option<bool>,
            $($more)*
        }
    };
}

criteria! {
    /// What must not hold: each criterion is turned round, and all must hold then.
    NegatedMatch {}
}

criteria! {
    /// What must hold.
    RuleMatch {
        /// Criteria that must not hold, none of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub not: Option<NegatedMatch>,
    }
}

/// What a rule does: exactly one of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleAction {
    /// `{}`: into the mailbox of a user of ours, by the transport of the domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<AcceptAction>,
    /// Into a mailbox, by a transport or a virtual map of one's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver: Option<DeliverAction>,
    /// On to another server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<RelayAction>,
    /// Refuse for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reject: Option<RejectAction>,
    /// Refuse for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defer: Option<DeferAction>,
    /// Add a tag and go on with the next rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Put another envelope sender and go on with the next rule; <> is the null reverse-path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite_sender: Option<ReversePath>,
    /// Replace the recipient by what an alias table says, where it says something, and go on with the next rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aliases: Option<TableRef>,
}

/// Into the mailbox of a user of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AcceptAction {}

/// Into a mailbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeliverAction {
    /// Name of a MailTransport; by default that of the recipient's domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
    /// Instead of MailDomains and MailUsers: a table from addresses (user@domain, @domain) to addresses. Who is not in it is unknown.
    #[serde(default, rename = "virtual", skip_serializing_if = "Option::is_none")]
    pub virtual_map: Option<TableRef>,
    /// A table of aliases that is asked before the users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aliases: Option<TableRef>,
}

/// On to another server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RelayAction {
    /// Name of a MailTransport of kind relay; by default `relayTransport` of the platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<String>,
}

/// Refuse for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RejectAction {
    /// Reply code.
    #[schemars(range(min = 500, max = 599))]
    pub code: u16,
    /// Text of the reply, possibly with an enhanced code in front, as in `5.7.1 not accepted here`.
    pub text: String,
}

impl Default for RejectAction {
    fn default() -> Self {
        Self { code: 550, text: "5.7.1 not accepted here".to_owned() }
    }
}

/// Refuse for now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DeferAction {
    /// Reply code.
    #[schemars(range(min = 400, max = 499))]
    pub code: u16,
    /// Text of the reply, possibly with an enhanced code in front, as in `4.7.1 try again later`.
    pub text: String,
}

impl Default for DeferAction {
    fn default() -> Self {
        Self { code: 450, text: "4.7.1 try again later".to_owned() }
    }
}
