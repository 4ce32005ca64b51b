//! Trying hosts in turn until one takes the session.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use resources::snapshot::{ClientTls, ClientTlsMode, Verify};
use rustls::pki_types::ServerName;
use smtp::client::{ClientConfig, TlsUse, Trouble};

use crate::connection::{Connection, OpenFault, TlsTo};
use crate::exchange::{Exchanged, Message, is_late, trouble_result};
use crate::job::{AttemptResult, Context, Outcome};
use crate::own::{self, Ours};
use crate::pool::Key;
use crate::resolver::DnsFault;

/// Hosts of one attempt: the rest has its turn when the message is tried again.
const HOSTS_MAX: usize = 5;
/// Addresses of one attempt.
const ADDRESSES_MAX: usize = 10;

/// A host to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// Name, or address.
    pub(crate) name: String,
    pub(crate) port: u16,
    /// It was found by MX: it may be anybody's, and its addresses are looked at before they are connected to.
    pub(crate) by_mx: bool,
}

/// Where a delivery may go, and how.
pub(crate) struct Plan<'a> {
    /// In the order of trying.
    pub(crate) hosts: Vec<Host>,
    pub(crate) tls: &'a ClientTls,
    /// Without the use of TLS, which follows from `tls`.
    pub(crate) client: ClientConfig,
    /// Networks that hosts found by MX must not be in.
    pub(crate) refuse: &'a [IpNet],
}

/// What an attempt came to.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) results: Vec<(u32, AttemptResult)>,
    /// Set where no host could be talked to: the whole route is in trouble.
    pub(crate) unreachable: Option<String>,
}

impl From<Vec<(u32, AttemptResult)>> for Attempt {
    fn from(results: Vec<(u32, AttemptResult)>) -> Self {
        Self { results, unreachable: None }
    }
}

/// What is known of the hosts that did not serve.
#[derive(Default)]
struct Failures {
    transient: Option<AttemptResult>,
    permanent: Option<AttemptResult>,
}

impl Failures {
    fn add(&mut self, result: AttemptResult) {
        match result.outcome {
            Outcome::Failed => self.permanent = Some(result),
            _ => self.transient = Some(result),
        }
    }

    /// One host that may come back is worth another attempt.
    fn into_result(self) -> AttemptResult {
        self.transient
            .or(self.permanent)
            .unwrap_or_else(|| AttemptResult::failed(4, 4, "there is no host to deliver to"))
    }
}

/// Sends the message by the first host of the plan that takes the session.
pub(crate) async fn send(context: &Context, plan: &Plan<'_>, message: &Message<'_>) -> Attempt {
    let mut failures = Failures::default();
    let mut addresses_left = ADDRESSES_MAX;
    for host in plan.hosts.iter().take(HOSTS_MAX) {
        let key = Key { transport: message.job.transport.name.clone(), host: format!("{}:{}", host.name, host.port) };
        while let Some(rested) = context.pool.take(&key, &message.job.transport) {
            match message.exchange(context, rested, true).await {
                Exchanged::Answered(results, connection) => {
                    return answered(context, message, key, results, connection);
                }
                Exchanged::Stale => {}
            }
        }
        let addresses = match addresses(context, plan, host).await {
            Ok(addresses) => addresses,
            Err(result) => {
                failures.add(result);
                continue;
            }
        };
        for address in addresses {
            if addresses_left == 0 || is_late(message.job, context.node.clock()) {
                failures
                    .transient
                    .get_or_insert_with(|| AttemptResult::deferred(4, 1, "no time left to try more hosts"));
                break;
            }
            addresses_left -= 1;
            match open(context, plan, message, host, address).await {
                Ok(connection) => match message.exchange(context, connection, false).await {
                    Exchanged::Answered(results, connection) => {
                        return answered(context, message, key, results, connection);
                    }
                    Exchanged::Stale => {}
                },
                Err(fault) => {
                    let remote = format!("{} [{}]:{}", host.name, address, host.port);
                    tracing::debug!(remote, trouble = %fault.trouble, "host does not serve");
                    failures.add(trouble_result(&fault.trouble, &remote));
                }
            }
        }
    }
    let result = failures.into_result();
    let unreachable = (result.outcome == Outcome::Deferred).then(|| result.reply.clone());
    let results = message.recipients.iter().map(|recipient| (recipient.number, result.clone())).collect();
    Attempt { results, unreachable }
}

pub(crate) fn answered(
    context: &Context,
    message: &Message<'_>,
    key: Key,
    results: Vec<(u32, AttemptResult)>,
    connection: Box<Connection>,
) -> Attempt {
    context.pool.put(key, &message.job.transport, *connection);
    results.into()
}

/// The addresses of a host that may be connected to.
async fn addresses(context: &Context, plan: &Plan<'_>, host: &Host) -> Result<Vec<IpAddr>, AttemptResult> {
    let all = match context.resolver.addresses(&host.name).await {
        Ok(all) if all.is_empty() => {
            return Err(no_address(host, format!("{} has no address", host.name)));
        }
        Ok(all) => all,
        Err(DnsFault::NotFound) => return Err(no_address(host, format!("{} does not exist", host.name))),
        Err(DnsFault::Trouble(text)) => {
            return Err(AttemptResult::deferred(4, 3, format!("{} cannot be looked up: {text}", host.name)));
        }
    };
    if !host.by_mx {
        return Ok(all);
    }
    let snapshot = context.node.snapshots().current();
    let (mut usable, mut refused) = (Vec::new(), None);
    for address in all {
        match own::judge(address, host.port, plan.refuse, &snapshot) {
            Ours::Connect => usable.push(address),
            Ours::Refuse(result) => refused = Some(result),
        }
    }
    match refused {
        Some(result) if usable.is_empty() => Err(result),
        _ => Ok(usable),
    }
}

/// A host that the platform's own documents name is our mistake, and mends: transient. One that an MX names is theirs.
fn no_address(host: &Host, text: String) -> AttemptResult {
    if host.by_mx { AttemptResult::failed(4, 4, text) } else { AttemptResult::deferred(4, 4, text) }
}

async fn open(
    context: &Context,
    plan: &Plan<'_>,
    message: &Message<'_>,
    host: &Host,
    address: IpAddr,
) -> Result<Connection, OpenFault> {
    let (first, clear_after) = match plan.tls.mode {
        ClientTlsMode::Off => (TlsUse::Never, false),
        ClientTlsMode::Opportunistic => (TlsUse::Opportunistic, true),
        ClientTlsMode::Required => (TlsUse::Required, false),
        ClientTlsMode::Implicit => (TlsUse::Active, false),
    };
    match open_with(context, plan, message, host, address, first).await {
        // Broken TLS is no reason for mail that would have gone in the clear to stay; the login stays at home then.
        Err(fault) if fault.in_handshake && clear_after => {
            open_with(context, plan, message, host, address, TlsUse::Never).await
        }
        other => other,
    }
}

async fn open_with(
    context: &Context,
    plan: &Plan<'_>,
    message: &Message<'_>,
    host: &Host,
    address: IpAddr,
    use_of_tls: TlsUse,
) -> Result<Connection, OpenFault> {
    let tls = tls_to(context, plan, host, use_of_tls)?;
    let client = Arc::new(ClientConfig { tls: use_of_tls, ..plan.client.clone() });
    let clock = context.node.clock();
    let address = SocketAddr::new(address, host.port);
    Connection::tcp(address, &host.name, client, tls, clock, message.job.deadline).await
}

fn tls_to(context: &Context, plan: &Plan<'_>, host: &Host, use_of_tls: TlsUse) -> Result<Option<TlsTo>, OpenFault> {
    let fault = |text: String| OpenFault::from(Trouble::Shell { code: (7, 5), text });
    if use_of_tls == TlsUse::Never {
        return Ok(None);
    }
    // Where the clear would do, an unverified certificate is still better than the clear; a login is not for strangers.
    let verify = match use_of_tls {
        TlsUse::Opportunistic if plan.client.login.is_none() => Verify::None,
        _ => plan.tls.verify,
    };
    let config = context.tls.get(plan.tls, verify).map_err(|error| fault(error.to_string()))?;
    let name = ServerName::try_from(host.name.clone()).map_err(|error| fault(error.to_string()))?;
    Ok(Some(TlsTo { config, name }))
}
