//! Verifies who logs in, slowly, off the async threads, a bounded number at a time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use node::Clock;
use posthouse_proto::policy::v1 as proto;
use resources::Snapshot;
use rules::{Login, Lookups, RuleSet, Secret};
use tokio::sync::Semaphore;
use types::{Address, Reply};

use crate::budgets::Budgets;
use crate::judge::Judge;
use crate::password::{self, PasswordError, Scheme, cost_of};

/// Octets of a password that is looked at: SHA-crypt takes time by the length.
const PASSWORD_OCTETS_MAX: usize = 1024;
/// Wait for other verifications; longer is 454.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(20);

/// Who logged in, or what is answered.
pub(crate) enum Outcome {
    /// The session acts as this mailbox.
    User(Address),
    /// One text for every cause.
    Refused(Reply),
    /// Our trouble.
    Failed(Reply),
    /// Too many have failed: the password was not looked at.
    Limited(Reply),
}

/// Compares a password with a stored form, slowly.
pub(crate) type Compare = fn(&str, &[u8]) -> Result<bool, PasswordError>;

/// What verification keeps between calls.
pub(crate) struct Authenticator {
    compare: Compare,
    permits: Mutex<Option<(usize, Arc<Semaphore>)>>,
    dummy: Mutex<Dummy>,
    budgets: Budgets,
    clock: Clock,
}

/// What unknown users are verified against, so that they take as long as most who are known.
#[derive(Default)]
struct Dummy {
    /// Version of the snapshot whose users were counted.
    version: Option<String>,
    /// The most frequent form among MailUsers.
    of_users: Option<Secret>,
    /// The last form that a table of users gave.
    of_tables: Option<Secret>,
    /// Where neither is there.
    made: Option<Secret>,
}

/// The causes that a refusal hides, and those that it does not.
enum Verdict {
    Right(Address),
    Wrong,
    Trouble,
    Limited,
}

impl Authenticator {
    /// An authenticator that compares by [`crate::verify_password`], or as a test says.
    pub(crate) fn new(compare: Compare, clock: Clock) -> Self {
        let budgets = Budgets::default();
        Self { compare, permits: Mutex::default(), dummy: Mutex::default(), budgets, clock }
    }

    /// Verifies a name and a password. A refusal takes the platform's floor of time whatever its cause.
    pub(crate) async fn authenticate(
        &self,
        snapshot: &Snapshot,
        judge: &Judge,
        request: proto::AuthenticateRequest,
    ) -> Outcome {
        let floor = tokio::time::sleep(snapshot.platform.auth_failure_floor);
        match self.verify(snapshot, judge, request).await {
            Verdict::Right(user) => Outcome::User(user),
            Verdict::Wrong => {
                floor.await;
                Outcome::Refused(Reply::enhanced(535, 5, 7, 8, "authentication failed"))
            }
            Verdict::Trouble => {
                floor.await;
                Outcome::Failed(Reply::enhanced(454, 4, 7, 0, "authentication is not possible now, try again later"))
            }
            Verdict::Limited => {
                floor.await;
                // The same for a name that nobody has, and for the right password: it tells nothing.
                Outcome::Limited(Reply::enhanced(421, 4, 7, 0, "too many failed logins, try again later"))
            }
        }
    }

    async fn verify(&self, snapshot: &Snapshot, judge: &Judge, request: proto::AuthenticateRequest) -> Verdict {
        let rules = &*snapshot.rules;
        let mut lookups = Lookups::default();
        let login = match Address::parse(&request.user) {
            Ok(name) => match judge.ask(rules, &mut lookups, |l| rules::find_login(rules, l, &name)).await {
                Ok(login) => login,
                Err(_) => return Verdict::Trouble,
            },
            Err(_) => None,
        };
        let acts_as_itself = match (&login, request.authorization_id.as_str()) {
            (_, "") => true,
            (None, _) => false,
            (Some(login), id) => match acts_as(rules, judge, &mut lookups, login, id).await {
                Ok(same) => same,
                Err(()) => return Verdict::Trouble,
            },
        };
        let bounds = &snapshot.platform.auth_failures;
        let source = request.session.as_ref().and_then(source);
        let name = login.as_ref().map_or_else(|| request.user.to_lowercase(), |login| login.address.key());
        let Some(charge) = self.budgets.charge(bounds, self.clock.instant(), source, &name) else {
            return Verdict::Limited;
        };
        let known =
            login.filter(|login| !login.disabled && acts_as_itself && request.password.len() <= PASSWORD_OCTETS_MAX);
        let verdict = self.compare(snapshot, known, request).await;
        match &verdict {
            Verdict::Right(_) => self.budgets.succeeded(&charge, self.clock.instant()),
            Verdict::Wrong => {}
            Verdict::Trouble | Verdict::Limited => self.budgets.give_back(&charge),
        }
        verdict
    }

    /// Compares the password with what is stored of the user, or of nobody, which takes as long.
    async fn compare(&self, snapshot: &Snapshot, known: Option<Login>, request: proto::AuthenticateRequest) -> Verdict {
        let mut password = request.password;
        let rules = &*snapshot.rules;
        let stored = known.as_ref().and_then(|login| login.password.clone());
        let Some(permit) = self.permit(snapshot.platform.auth_concurrency_max).await else {
            return Verdict::Trouble;
        };
        let (stored, is_dummy) = match stored {
            Some(stored) => {
                self.saw(rules, &stored);
                (stored, false)
            }
            None => match self.dummy(rules).await {
                Some(dummy) => (dummy, true),
                None => return Verdict::Trouble,
            },
        };
        password.truncate(PASSWORD_OCTETS_MAX);
        let compare = self.compare;
        let verified = tokio::task::spawn_blocking(move || {
            // Here, so that a caller who does not wait any more makes no room for one more at a time.
            let _permit = permit;
            compare(stored.reveal(), &password)
        })
        .await;
        match (verified, known) {
            (Ok(Ok(true)), Some(login)) if !is_dummy => Verdict::Right(login.address),
            (Ok(Ok(_)), _) => Verdict::Wrong,
            (Ok(Err(_)), _) if is_dummy => Verdict::Wrong,
            (Ok(Err(error)), _) => {
                tracing::warn!(error = %error, "stored password of a user cannot be verified");
                Verdict::Trouble
            }
            (Err(error), _) => {
                tracing::error!(error = %error, "password verification ended before its time");
                Verdict::Trouble
            }
        }
    }

    async fn permit(&self, concurrency_max: usize) -> Option<tokio::sync::OwnedSemaphorePermit> {
        let concurrency_max = concurrency_max.max(1);
        let semaphore = {
            let mut permits = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
            match &*permits {
                Some((max, semaphore)) if *max == concurrency_max => Arc::clone(semaphore),
                _ => {
                    let semaphore = Arc::new(Semaphore::new(concurrency_max));
                    *permits = Some((concurrency_max, Arc::clone(&semaphore)));
                    semaphore
                }
            }
        };
        match tokio::time::timeout(QUEUE_TIMEOUT, semaphore.acquire_owned()).await {
            Ok(Ok(permit)) => Some(permit),
            _ => {
                tracing::warn!(concurrency_max, "too many password verifications are waiting");
                None
            }
        }
    }

    fn saw(&self, rules: &RuleSet, stored: &Secret) {
        if rules.users.is_empty() {
            self.dummy.lock().unwrap_or_else(PoisonError::into_inner).of_tables = Some(stored.clone());
        }
    }

    async fn dummy(&self, rules: &RuleSet) -> Option<Secret> {
        {
            let mut dummy = self.dummy.lock().unwrap_or_else(PoisonError::into_inner);
            if dummy.version.as_deref() != Some(rules.version.as_str()) {
                dummy.version = Some(rules.version.clone());
                dummy.of_users = most_frequent(rules);
            }
            let found = dummy.of_users.as_ref().or(dummy.of_tables.as_ref()).or(dummy.made.as_ref());
            if let Some(found) = found {
                return Some(found.clone());
            }
        }
        let random: [u8; 16] = rand::random();
        let made = tokio::task::spawn_blocking(move || password::hash_password(&random, Scheme::default())).await;
        let made = Secret::new(made.ok()?.ok()?);
        self.dummy.lock().unwrap_or_else(PoisonError::into_inner).made = Some(made.clone());
        Some(made)
    }
}

/// Where a login comes from, where that is known.
fn source(session: &proto::Session) -> Option<IpAddr> {
    session.client_ip.parse().ok().filter(|_| session.address_known)
}

/// Whether an authorization id names the user: by the mailbox or an alias.
async fn acts_as(rules: &RuleSet, judge: &Judge, lookups: &mut Lookups, login: &Login, id: &str) -> Result<bool, ()> {
    let Ok(name) = Address::parse(id) else { return Ok(false) };
    let other = judge.ask(rules, lookups, |l| rules::find_login(rules, l, &name)).await.map_err(|_| ())?;
    Ok(other.is_some_and(|other| other.address.key() == login.address.key()))
}

/// A stored password of the scheme and cost that most users have.
fn most_frequent(rules: &RuleSet) -> Option<Secret> {
    let mut counts: HashMap<&str, (usize, &Secret)> = HashMap::new();
    for secret in rules.users.values().filter_map(|user| user.password.as_ref()) {
        if let Some(cost) = cost_of(secret.reveal()) {
            counts.entry(cost).or_insert((0, secret)).0 += 1;
        }
    }
    counts.into_iter().max_by_key(|(cost, (count, _))| (*count, *cost)).map(|(_, (_, secret))| secret.clone())
}
