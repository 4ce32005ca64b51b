//! What `cargo xtask bench decision` runs: a big site from YAML to a snapshot, then envelopes through the policy service.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "it measures time and tells the figures as JSON")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use node::{Clock, Node, Peer, Snapshots};
use posthouse_proto::policy::v1::policy_client::PolicyClient;
use posthouse_proto::policy::v1::{EnvelopeRequest, Session, answer};
use resources::{Environment, Snapshot, compile, load};

const DOMAINS: usize = 10_000;
const USERS_PER_DOMAIN: usize = 10;
const RULES: usize = 1_000;
const TABLES: usize = 20;
const ROWS_PER_TABLE: usize = 500;
const WARM_UP: usize = 2_000;
const CALLS: usize = 20_000;

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let (snapshot, load_time, compile_time) = snapshot()?;
    let rss = resident_mib()?;
    let folder = std::env::temp_dir().join(format!("posthouse-bench-decision-{}", std::process::id()));
    let node = Node::new(Snapshots::new(snapshot), folder, Clock::system());
    policy::start(&node).await?;
    let mut client = PolicyClient::new(node.wire(Peer::Policy));
    let (mut envelopes, mut stories) = (Vec::with_capacity(CALLS), Vec::new());
    for n in 0..WARM_UP + CALLS {
        let (request, is_taken) = request(n);
        let begin = Instant::now();
        let response = client.envelope(request).await?.into_inner();
        let took = begin.elapsed();
        let answer = response.answers.first().and_then(|answer| answer.answer.as_ref());
        if matches!(answer, Some(answer::Answer::Accepted(_))) != is_taken {
            return Err(format!("call {n} was answered {answer:?}").into());
        }
        if n >= WARM_UP {
            envelopes.push(took);
        }
    }
    for n in 0..CALLS / 20 {
        let begin = Instant::now();
        client.explain(request(n).0).await?;
        stories.push(begin.elapsed());
    }
    println!(
        "{{\"load_s\":{},\"compile_s\":{},\"rss_snapshot_mib\":{rss},\"envelope_p50_us\":{},\"envelope_p99_us\":{},\
         \"envelope_max_us\":{},\"explain_p50_us\":{}}}",
        load_time.as_secs_f64(),
        compile_time.as_secs_f64(),
        percentile_us(&mut envelopes, 50),
        percentile_us(&mut envelopes, 99),
        percentile_us(&mut envelopes, 100),
        percentile_us(&mut stories, 50),
    );
    Ok(())
}

fn percentile_us(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    let rank = (times.len() * percent).div_ceil(100).max(1);
    times.get(rank - 1).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}

/// Of this process.
fn resident_mib() -> Result<f64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

fn snapshot() -> Result<(Snapshot, Duration, Duration), Failure> {
    let files = files();
    let begin = Instant::now();
    let (objects, mut faults) = load(&files);
    let load_time = begin.elapsed();
    drop(files);
    let environment = Environment { is_root: false, state_dir: "/state".into(), working_dir: "/".into() };
    let none = |_: &Path| Err("there are no files here".to_owned());
    let begin = Instant::now();
    let (snapshot, more) = compile(objects, &environment, &none);
    let compile_time = begin.elapsed();
    faults.extend(more);
    if let Some(fault) = faults.first() {
        return Err(format!("{} faults, the first: {}", faults.len(), fault.what).into());
    }
    Ok((snapshot.ok_or("no snapshot")?, load_time, compile_time))
}

/// Nobody is refused by the rules but every 16th sender; every other recipient is nobody.
fn request(n: usize) -> (EnvelopeRequest, bool) {
    let scattered = n.wrapping_mul(7919);
    let is_bad = n % 16 == 15;
    let is_user = n % 2 == 1;
    let sender = if is_bad {
        format!("bad{}@host.spam.example", 8 * (scattered % 100))
    } else {
        format!("carl{n}@remote.example")
    };
    let local = if is_user { format!("u{}", scattered % USERS_PER_DOMAIN) } else { format!("nobody{n}") };
    let request = EnvelopeRequest {
        session: Some(Session {
            listener: "mx".to_owned(),
            client_ip: format!("192.0.2.{}", n % 250),
            address_known: true,
            helo: "mail.remote.example".to_owned(),
            ..Session::default()
        }),
        sender,
        recipients: vec![format!("{local}@d{}.example", scattered % DOMAINS)],
    };
    (request, is_user && !is_bad)
}

fn files() -> Vec<(PathBuf, String)> {
    let file = |name: &str, text: String| (PathBuf::from(name), text);
    vec![
        file("site.yaml", platform()),
        file("rules.yaml", rules()),
        file("domains.yaml", domains()),
        file("users.yaml", users()),
    ]
}

fn document(text: &mut String, kind: &str, name: &str, spec: &str) {
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "---\napiVersion: posthouse.dev/v1alpha1\nkind: {kind}\nmetadata: {{ name: {name} }}\nspec: {spec}\n"
    );
}

fn platform() -> String {
    let mut text = String::new();
    document(
        &mut text,
        "MailPlatform",
        "main",
        "{ hostname: mx.example.org, postmaster: u0@d0.example, policyRef: big }",
    );
    document(&mut text, "MailListener", "mx", "{ protocol: smtp, port: 2525, tls: { mode: \"off\" } }");
    document(&mut text, "MailTransport", "boxes", "{ maildir: { path: \"mail/%d/%n\" } }");
    text
}

fn domains() -> String {
    let mut text = String::new();
    for d in 0..DOMAINS {
        let spec = format!("{{ domain: d{d}.example, delivery: {{ transport: boxes }} }}");
        document(&mut text, "MailDomain", &format!("d{d}"), &spec);
    }
    text
}

/// Each with an alias; the passwords of a domain stand in one Secret.
fn users() -> String {
    let mut text = String::new();
    for d in 0..DOMAINS {
        let _ = write!(text, "---\napiVersion: v1\nkind: Secret\nmetadata: {{ name: d{d} }}\nstringData:\n");
        for u in 0..USERS_PER_DOMAIN {
            let _ = writeln!(
                text,
                "  u{u}: $6$d{d}u{u}$6ruv6AbqWTosvrUi8ujg7zb3wROQsi8FJ9FvzNaxACrwEVQPgG.M21O/M/mBoeYk3FB09LPJmEqAGPGmSi38f."
            );
        }
        for u in 0..USERS_PER_DOMAIN {
            let spec = format!(
                "{{ address: u{u}@d{d}.example, aliases: [first.last{u}@d{d}.example], passwordSecretRef: {{ name: d{d}, key: u{u} }} }}"
            );
            document(&mut text, "MailUser", &format!("u{u}-d{d}"), &spec);
        }
    }
    text
}

fn rules() -> String {
    let mut text = String::new();
    for t in 0..TABLES {
        let rows: Vec<String> = (0..ROWS_PER_TABLE).map(|n| format!("listed{n}@t{t}.example")).collect();
        document(&mut text, "MailTable", &format!("table{t}"), &format!("{{ list: [{}] }}", rows.join(", ")));
    }
    let rules: Vec<String> = (0..RULES).map(rule).collect();
    document(&mut text, "MailPolicy", "big", &format!("\n  rules:\n{}    - include: default", rules.concat()));
    text
}

/// Words, wildcards, lists, networks, tables, and two criteria at a time.
fn rule(i: usize) -> String {
    let holds = match i % 8 {
        0 => format!("sender: \"bad{i}@*.spam.example\""),
        1 => format!("sender: [\"*@spam{i}.example\", \"*.spam{i}.example\"]"),
        2 => format!("sender: user{i}@exact.example"),
        3 => format!("recipientDomain: moved{i}.example"),
        4 => {
            let networks: Vec<String> = (0..10).map(|n| format!("10.{}.{}.0/24", i % 250, n + 10 * (i % 20))).collect();
            format!("source: [{}]", networks.join(", "))
        }
        5 => format!("helo: \"*.dyn{i}.example\", not: {{ source: [10.0.0.0/8] }}"),
        6 => format!("listener: mx, recipient: {{ table: table{} }}", i % TABLES),
        _ => format!("recipient: [\"list{i}@*\", \"*-list{i}@*\"], authenticated: false"),
    };
    format!("    - {{ match: {{ {holds} }}, action: {{ reject: {{ text: refused by rule }} }} }}\n")
}
