//! Asks the pure core, looks up what it needs, asks again.

use node::Clock;
use posthouse_proto::policy::v1 as proto;
use rules::{Accepted, Answer, Lookup, LookupError, Lookups, Need, NoStory, RuleSet, Step, Story, Table};
use tonic::Status;
use types::Address;

use crate::tables::Tables;
use crate::wire;

/// Recipients of one call.
pub(crate) const RECIPIENTS_MAX: usize = 1_000;
/// Lookups of one call: an expansion over a database has an end too.
const LOOKUPS_MAX: usize = 20_000;

/// Too many lookups, or one that failed: 451 to the client.
#[derive(Debug, thiserror::Error)]
#[error("a lookup failed")]
pub(crate) struct LookupFailed;

impl From<LookupFailed> for Status {
    fn from(error: LookupFailed) -> Self {
        Self::unavailable(error.to_string())
    }
}

/// Decisions with their lookups.
pub(crate) struct Judge {
    tables: Tables,
}

impl Judge {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { tables: Tables::new(clock) }
    }

    /// Answers the recipients of a transaction.
    pub(crate) async fn envelope(
        &self,
        rules: &RuleSet,
        request: &proto::EnvelopeRequest,
    ) -> Result<proto::EnvelopeResponse, Status> {
        Ok(self.answers::<NoStory>(rules, request).await?.0)
    }

    /// The same, with the story of each recipient.
    pub(crate) async fn explain(
        &self,
        rules: &RuleSet,
        mut request: proto::EnvelopeRequest,
    ) -> Result<proto::ExplainResponse, Status> {
        self.log_in_for_explain(rules, &mut request).await?;
        let (response, stories) = self.answers::<Vec<Step>>(rules, &request).await?;
        let told = request.recipients.into_iter().zip(stories);
        let stories = told.map(|(recipient, steps)| wire::story(recipient, steps)).collect();
        Ok(proto::ExplainResponse { response: Some(response), stories })
    }

    /// People name a user as they log in; a session carries the mailbox.
    async fn log_in_for_explain(&self, rules: &RuleSet, request: &mut proto::EnvelopeRequest) -> Result<(), Status> {
        let Some(session) = request.session.as_mut() else { return Ok(()) };
        let Ok(name) = Address::parse(&session.user) else { return Ok(()) };
        let mut lookups = Lookups::default();
        if let Some(login) = self.ask(rules, &mut lookups, |l| rules::find_login(rules, l, &name)).await? {
            session.user = login.address.to_string();
        }
        Ok(())
    }

    async fn answers<S: Story + Default>(
        &self,
        rules: &RuleSet,
        request: &proto::EnvelopeRequest,
    ) -> Result<(proto::EnvelopeResponse, Vec<S>), Status> {
        if request.recipients.len() > RECIPIENTS_MAX {
            return Err(Status::invalid_argument(format!("more than {RECIPIENTS_MAX} recipients")));
        }
        let transaction = wire::Transaction::read(request)?;
        let mut lookups = Lookups::default();
        let mut answers = Vec::with_capacity(request.recipients.len());
        let mut stories = Vec::with_capacity(request.recipients.len());
        let mut decide = transaction.user.is_some()
            && rules.listeners.get(transaction.listener()).is_some_and(|listener| listener.hold_to_own_addresses);
        for recipient in &request.recipients {
            let recipient = wire::RecipientName::read(recipient)?;
            let facts = transaction.facts(&recipient);
            let (answer, story) = loop {
                let mut story = S::default();
                match rules::decide(rules, &facts, &lookups, &mut story) {
                    Ok(answer) => break (answer, story),
                    Err(need) => self.look_up(rules, &mut lookups, need).await,
                }
            };
            if let Answer::Accept(accepted) = &answer {
                decide |= accepted.undecided;
                tell_dropped(accepted);
            }
            answers.push(wire::answer(answer));
            stories.push(story);
        }
        Ok((proto::EnvelopeResponse { snapshot_version: rules.version.clone(), answers, decide }, stories))
    }

    /// Asks a question of the directory until nothing is missing.
    pub(crate) async fn ask<T>(
        &self,
        rules: &RuleSet,
        lookups: &mut Lookups,
        question: impl Fn(&Lookups) -> Result<T, LookupError>,
    ) -> Result<T, LookupFailed> {
        loop {
            match question(lookups) {
                Ok(answer) => return Ok(answer),
                Err(LookupError::Need(need)) => self.look_up(rules, lookups, need).await,
                Err(LookupError::Failed { table, reason }) => {
                    tracing::warn!(table, reason, "table cannot be used");
                    return Err(LookupFailed);
                }
            }
        }
    }

    /// Looks up what a decision needs. What fails is remembered as failed, so that the decision is 451.
    async fn look_up(&self, rules: &RuleSet, lookups: &mut Lookups, need: Need) {
        let lookup = match rules.tables.get(&need.table).map(|table| &**table) {
            Some(Table::Sqlite(_)) if lookups.len() >= LOOKUPS_MAX => {
                tracing::warn!(table = need.table, "too many lookups for one transaction");
                Lookup::Failed
            }
            Some(Table::Sqlite(table)) => {
                // One more than an expansion may have: the core sees that it is too wide.
                match self.tables.look_up(table, &need.key, rules.limits.results_max.saturating_add(1)).await {
                    Ok(rows) => Lookup::Found(rows),
                    Err(error) => {
                        tracing::warn!(table = need.table, error = %error, "lookup failed");
                        Lookup::Failed
                    }
                }
            }
            _ => Lookup::Failed,
        };
        lookups.insert(need, lookup);
    }
}

fn tell_dropped(accepted: &Accepted) {
    if let Some(reply) = accepted.dropped.first() {
        let dropped = accepted.dropped.len();
        tracing::info!(rule = accepted.rule, dropped, reply = %reply, "an expansion has members that take no mail");
    }
}
