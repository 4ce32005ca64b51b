//! The relay transport: smart hosts, the MX of the recipient's domain, or a table of hosts.

use std::collections::BTreeMap;

use ipnet::IpNet;
use rand::seq::SliceRandom;
use resources::snapshot::{HostPort, Relay, RelayTo, Snapshot};
use rules::{Pattern, StaticTable, Table};
use smtp::client::{ClientConfig, Login, Protocol, Timeouts, TlsUse};
use types::Domain;

use crate::exchange::Message;
use crate::hosts::{self, Attempt, Host, Plan};
use crate::job::{AttemptResult, Context, Job, JobRecipient};
use crate::own;
use crate::resolver::{DnsFault, Mx};

/// The port of the mail between servers (RFC 5321 section 4.5.4.2).
const SMTP_PORT: u16 = 25;

/// Delivers to another server, each domain of the recipients by its own hosts where they are found by domain.
pub(crate) async fn deliver(context: &Context, job: &Job, relay: &Relay) -> Attempt {
    let mut whole = Attempt { results: Vec::with_capacity(job.recipients.len()), unreachable: None };
    for (domain, recipients) in groups(job, relay) {
        let numbers: Vec<u32> = recipients.iter().map(|recipient| recipient.number).collect();
        let attempt = match find_hosts(context, relay, domain).await {
            Ok((found, refuse)) => {
                let plan = Plan { hosts: found, tls: &relay.tls, client: client(context, relay), refuse };
                let message = Message { job, recipients, protocol: Protocol::Smtp, prefix: String::new() };
                hosts::send(context, &plan, &message).await
            }
            Err(result) => numbers.into_iter().map(|number| (number, result.clone())).collect::<Vec<_>>().into(),
        };
        whole.results.extend(attempt.results);
        whole.unreachable = whole.unreachable.or(attempt.unreachable);
    }
    whole
}

/// Recipients that go the same way.
fn groups<'a>(job: &'a Job, relay: &Relay) -> Vec<(Option<&'a Domain>, Vec<&'a JobRecipient>)> {
    if let RelayTo::Hosts(_) = relay.to {
        return vec![(None, job.recipients.iter().collect())];
    }
    let mut groups = BTreeMap::<&Domain, Vec<&JobRecipient>>::new();
    for recipient in &job.recipients {
        groups.entry(recipient.address.domain()).or_default().push(recipient);
    }
    groups.into_iter().map(|(domain, recipients)| (Some(domain), recipients)).collect()
}

fn client(context: &Context, relay: &Relay) -> ClientConfig {
    let hello = relay.helo.clone().unwrap_or_else(|| context.node.snapshots().current().platform.hostname.clone());
    ClientConfig {
        protocol: Protocol::Smtp,
        hello: hello.to_string(),
        tls: TlsUse::Never,
        login: relay.auth.as_ref().map(|credentials| Login {
            user: credentials.user.clone(),
            password: credentials.password.reveal().to_owned(),
        }),
        auth_without_tls: relay.auth_without_tls,
        timeouts: Timeouts::default(),
    }
}

type Found<'a> = (Vec<Host>, &'a [IpNet]);

async fn find_hosts<'a>(
    context: &Context,
    relay: &'a Relay,
    domain: Option<&Domain>,
) -> Result<Found<'a>, AttemptResult> {
    match (&relay.to, domain) {
        (RelayTo::Hosts(smart), _) => Ok((smart.iter().map(named).collect(), &[])),
        (RelayTo::Mx { port, refuse }, Some(domain)) => Ok((by_mx(context, domain, *port).await?, refuse.as_slice())),
        (RelayTo::HostTable { table, mx_port, refuse }, Some(domain)) => {
            let snapshot = context.node.snapshots().current();
            let listed = in_table(&snapshot, table, domain)?;
            if listed.is_empty() {
                return Ok((by_mx(context, domain, *mx_port).await?, refuse.as_slice()));
            }
            Ok((listed, &[]))
        }
        (_, None) => Err(AttemptResult::deferred(3, 0, "there is no domain to find hosts by")),
    }
}

fn named(host: &HostPort) -> Host {
    Host { name: host.host.clone(), port: host.port, by_mx: false }
}

/// The hosts of a table's row for the domain, for a wildcard that it matches, or for `*`. Empty: it is not listed.
fn in_table(snapshot: &Snapshot, name: &str, domain: &Domain) -> Result<Vec<Host>, AttemptResult> {
    // What is wrong with our own documents is never a reason to bounce.
    let Some(Table::Static(table)) = snapshot.rules.tables.get(name).map(AsRef::as_ref) else {
        return Err(AttemptResult::deferred(3, 5, format!("host table {name} is not there")));
    };
    let Some(values) = find_row(table, domain.as_str()) else { return Ok(Vec::new()) };
    let hosts = values.iter().flat_map(|value| value.split([',', ' '])).filter(|value| !value.is_empty());
    hosts
        .map(|value| {
            parse_host(value)
                .ok_or_else(|| AttemptResult::deferred(3, 5, format!("host table {name}: {value} is not host:port")))
        })
        .collect()
}

fn find_row<'a>(table: &'a StaticTable, domain: &str) -> Option<&'a [String]> {
    let wildcard = || {
        let rows = table.wildcards().iter();
        rows.filter(|(pattern, _)| matches!(pattern, Pattern::Wildcard(text) if covers(text, domain)))
            .max_by_key(|(pattern, _)| matches!(pattern, Pattern::Wildcard(text) if text != "*"))
            .map(|(_, values)| values)
    };
    let found = table.exact.get(domain).or_else(wildcard).or_else(|| table.exact.get("*"));
    found.map(Vec::as_slice)
}

/// `*` covers all, `*.example.org` what is below it.
fn covers(pattern: &str, domain: &str) -> bool {
    pattern.strip_prefix('*').is_some_and(|rest| domain.ends_with(rest) && domain.len() > rest.len())
}

/// `host`, `host:port`, `[address]:port`.
fn parse_host(text: &str) -> Option<Host> {
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Some(Host { name: address.ip().to_string(), port: address.port(), by_mx: false });
    }
    if let Ok(address) = text.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
        return Some(Host { name: address.to_string(), port: SMTP_PORT, by_mx: false });
    }
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, port.parse().ok()?),
        None => (text, SMTP_PORT),
    };
    Domain::parse(name).ok().map(|name| Host { name: name.to_string(), port, by_mx: false })
}

/// The mail hosts of a domain in the order of trying (RFC 5321 section 5.1).
async fn by_mx(context: &Context, domain: &Domain, port: u16) -> Result<Vec<Host>, AttemptResult> {
    let host = |name: String| Host { name, port, by_mx: true };
    if domain.is_literal() {
        let address = domain.literal();
        return address
            .map(|address| vec![host(address.to_string())])
            .ok_or_else(|| AttemptResult::failed(1, 3, format!("{domain} is not an address")));
    }
    let us = context.node.snapshots().current().platform.hostname.clone();
    match context.resolver.mx(domain.as_str()).await {
        // RFC 5321 section 5.1: without MX the domain is its own mail host.
        Ok(all) if all.is_empty() => {
            if *domain == us {
                return Err(own::loops_back());
            }
            match context.resolver.addresses(domain.as_str()).await {
                Ok(found) if !found.is_empty() => Ok(vec![host(domain.to_string())]),
                Ok(_) => Err(AttemptResult::failed(1, 2, format!("{domain} has neither mail hosts nor addresses"))),
                Err(fault) => Err(domain_fault(domain, &fault)),
            }
        }
        Ok(all) => {
            in_order(all, us.as_str(), &mut rand::rng(), domain).map(|names| names.into_iter().map(host).collect())
        }
        Err(fault) => Err(domain_fault(domain, &fault)),
    }
}

fn domain_fault(domain: &Domain, fault: &DnsFault) -> AttemptResult {
    match fault {
        DnsFault::NotFound => AttemptResult::failed(1, 2, format!("domain {domain} does not exist")),
        DnsFault::Trouble(text) => {
            AttemptResult::deferred(4, 3, format!("mail hosts of {domain} cannot be looked up: {text}"))
        }
    }
}

/// By preference, at random among equals. We and what is not nearer than we are left out.
fn in_order(
    mut all: Vec<Mx>,
    us: &str,
    random: &mut impl rand::Rng,
    domain: &Domain,
) -> Result<Vec<String>, AttemptResult> {
    // RFC 7505 section 3: one record, and no name.
    if all.iter().all(|mx| mx.host.is_empty()) {
        return Err(AttemptResult::failed(1, 10, format!("domain {domain} takes no mail (null MX)")));
    }
    all.retain(|mx| !mx.host.is_empty());
    if all.iter().all(|mx| mx.host == "localhost") {
        return Err(AttemptResult::failed(
            1,
            10,
            format!("domain {domain} takes no mail (its mail host is localhost)"),
        ));
    }
    if let Some(ours) = all.iter().filter(|mx| mx.host == us).map(|mx| mx.preference).min() {
        all.retain(|mx| mx.preference < ours);
        if all.is_empty() {
            return Err(own::loops_back());
        }
    }
    all.shuffle(random);
    all.sort_by_key(|mx| mx.preference);
    Ok(all.into_iter().map(|mx| mx.host).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mx(preference: u16, host: &str) -> Mx {
        Mx { preference, host: host.into() }
    }

    fn order(all: &[(u16, &str)]) -> Result<Vec<String>, String> {
        let all = all.iter().map(|(preference, host)| mx(*preference, host)).collect();
        let domain = Domain::parse("x.example").unwrap();
        in_order(all, "us.example", &mut rand::rng(), &domain).map_err(|result| result.enhanced.to_string())
    }

    #[test]
    fn mail_hosts_are_tried_by_preference_and_never_behind_ourselves() {
        let names = |names: &[&str]| Ok(names.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(order(&[(20, "b"), (10, "a"), (30, "c")]), names(&["a", "b", "c"]));
        assert_eq!(order(&[(20, "us.example"), (10, "a"), (20, "b"), (30, "c")]), names(&["a"]));
        assert_eq!(order(&[(10, "us.example"), (20, "b")]), Err("5.4.6".into()));
        assert_eq!(order(&[(0, "")]), Err("5.1.10".into()));
        assert_eq!(order(&[(0, ""), (10, "a")]), names(&["a"]));
        assert_eq!(order(&[(0, "localhost")]), Err("5.1.10".into()));
    }

    #[test]
    fn equal_mail_hosts_share_the_mail() {
        let mut first: Vec<String> =
            (0..200).map(|_| order(&[(10, "a"), (10, "b"), (20, "c")]).unwrap().remove(0)).collect();
        first.sort();
        first.dedup();
        assert_eq!(first, ["a", "b"]);
    }

    #[test]
    fn rows_of_a_host_table_are_hosts_with_ports() {
        let host = |name: &str, port| Some(Host { name: name.into(), port, by_mx: false });
        for (text, expected) in [
            ("mx.example.org:2525", host("mx.example.org", 2525)),
            ("MX.example.org", host("mx.example.org", 25)),
            ("192.0.2.1:26", host("192.0.2.1", 26)),
            ("192.0.2.1", host("192.0.2.1", 25)),
            ("[2001:db8::1]:26", host("2001:db8::1", 26)),
            ("[2001:db8::1]", host("2001:db8::1", 25)),
            ("mx.example.org:port", None),
            ("not a host", None),
        ] {
            assert_eq!(parse_host(text), expected, "{text}");
        }
        let row = |value: &str| vec![value.to_owned()];
        let table = StaticTable::new(
            [("a.org".to_owned(), row("exact")), ("*".to_owned(), row("all"))].into(),
            vec![(Pattern::Wildcard("*.a.org".into()), row("below"))],
            Vec::new(),
        );
        for (domain, expected) in [("a.org", "exact"), ("b.a.org", "below"), ("b.org", "all"), ("xa.org", "all")] {
            assert_eq!(find_row(&table, domain), Some(row(expected).as_slice()), "{domain}");
        }
    }
}
