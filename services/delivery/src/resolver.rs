//! The one resolver: DNS servers and cache as the snapshot says, names looked up as they are.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use node::Snapshots;

/// Wait for one answer of a DNS server.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a question is asked again.
const RETRIES: usize = 1;
/// An MX record set with more hosts is cut: what is behind them would never be reached.
const MX_MAX: usize = 100;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DnsFault {
    /// NXDOMAIN, or a text that cannot be a name: permanent.
    #[error("the name does not exist")]
    NotFound,
    /// SERVFAIL, time-out and the like: transient.
    #[error("{0}")]
    Trouble(String),
}

/// One MX record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mx {
    pub(crate) preference: u16,
    /// Without the dot at its end; empty: Null MX (RFC 7505).
    pub(crate) host: String,
}

/// Built anew when the snapshot says so.
pub(crate) struct Resolver {
    snapshots: Snapshots,
    answer_timeout: Duration,
    built: Mutex<Option<Built>>,
}

struct Built {
    servers: Vec<SocketAddr>,
    cache: bool,
    resolver: TokioResolver,
}

impl Resolver {
    pub(crate) fn new(snapshots: Snapshots) -> Self {
        Self { snapshots, answer_timeout: ANSWER_TIMEOUT, built: Mutex::new(None) }
    }

    /// The MX records of a domain; empty: it has none.
    pub(crate) async fn mx(&self, domain: &str) -> Result<Vec<Mx>, DnsFault> {
        let answers = self.lookup(domain, RecordType::MX).await?;
        let mx = answers.into_iter().filter_map(|data| match data {
            RData::MX(mx) => Some(Mx {
                preference: mx.preference,
                host: mx.exchange.to_ascii().trim_end_matches('.').to_ascii_lowercase(),
            }),
            _ => None,
        });
        Ok(mx.take(MX_MAX).collect())
    }

    /// The addresses of a host, IPv6 and IPv4 in turn; empty: the name exists and has none.
    pub(crate) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, DnsFault> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let (six, four) = future::join(self.lookup(host, RecordType::AAAA), self.lookup(host, RecordType::A)).await;
        let addresses = |answers: &Result<Vec<RData>, DnsFault>| -> Vec<IpAddr> {
            answers
                .iter()
                .flatten()
                .filter_map(|data| match data {
                    RData::A(address) => Some(IpAddr::V4(address.0)),
                    RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                    _ => None,
                })
                .collect()
        };
        let found = in_turn(addresses(&six), addresses(&four));
        if found.is_empty() {
            // One of the two that could not be asked may have had an address.
            for answer in [&six, &four] {
                if let Err(DnsFault::Trouble(_)) = answer {
                    return answer.clone().map(|_| Vec::new());
                }
            }
            six.and(four)?;
        }
        Ok(found)
    }

    async fn lookup(&self, name: &str, kind: RecordType) -> Result<Vec<RData>, DnsFault> {
        let mut absolute = Name::from_ascii(name).map_err(|_| DnsFault::NotFound)?;
        // No search list: a name of the mail world is whole.
        absolute.set_fqdn(true);
        let resolver = self.resolver()?;
        match resolver.lookup(absolute, kind).await {
            Ok(lookup) => Ok(lookup.answers().iter().map(|record| record.data.clone()).collect()),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
                ResponseCode::NXDomain => Err(DnsFault::NotFound),
                ResponseCode::NoError => Ok(Vec::new()),
                code => Err(DnsFault::Trouble(format!("the DNS server answered {code}"))),
            },
            Err(error) => Err(DnsFault::Trouble(error.to_string())),
        }
    }

    fn resolver(&self) -> Result<TokioResolver, DnsFault> {
        let snapshot = self.snapshots.current();
        let (servers, cache) = (&snapshot.platform.dns_servers, snapshot.platform.dns_cache);
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(built) = built.as_ref().filter(|built| built.servers == *servers && built.cache == cache) {
            return Ok(built.resolver.clone());
        }
        let resolver = build(servers, cache, self.answer_timeout).map_err(|e| DnsFault::Trouble(e.to_string()))?;
        *built = Some(Built { servers: servers.clone(), cache, resolver: resolver.clone() });
        Ok(resolver)
    }

    #[cfg(test)]
    pub(crate) fn with_answer_timeout(mut self, timeout: Duration) -> Self {
        self.answer_timeout = timeout;
        self
    }
}

fn build(servers: &[SocketAddr], cache: bool, answer_timeout: Duration) -> Result<TokioResolver, NetError> {
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let servers = servers.iter().map(|server| {
            let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
            for connection in &mut connections {
                connection.port = server.port();
            }
            NameServerConfig::new(server.ip(), true, connections)
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options: &mut ResolverOpts = builder.options_mut();
    options.timeout = answer_timeout;
    options.attempts = RETRIES;
    // Smart hosts may stand in /etc/hosts.
    options.use_hosts_file = ResolveHosts::Always;
    if !cache {
        options.cache_size = 0;
        options.positive_max_ttl = Some(Duration::ZERO);
        options.negative_max_ttl = Some(Duration::ZERO);
    }
    builder.build()
}

fn in_turn(first: Vec<IpAddr>, second: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut all = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let before = all.len();
        all.extend(first.next());
        all.extend(second.next());
        if all.len() == before {
            return all;
        }
    }
}
