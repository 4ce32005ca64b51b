//! `cargo xtask bench tls`: full TLS 1.3 handshakes per CPU second of the server, beside `openssl s_server`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::common::{Helper, Results, Site, Target, binary, cpu_seconds, median, wait_for};
use crate::test;

const ROUNDS: usize = 3;

/// How it is measured.
#[derive(Args)]
pub struct Options {
    /// Seconds of each of the six runs
    #[arg(long, default_value_t = 5, value_name = "N")]
    seconds: u32,
    /// Measures this binary instead of building one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Writes the figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// In turns, with the same certificate and the same client.
pub fn run(options: &Options) -> Result<()> {
    let site = Site::new("tls")?;
    let binary = binary(options.binary.as_deref(), site.path())?;
    let (certificate, key) = certificate(site.path())?;
    let platform = platform(&site, &binary)?;
    let address = platform.address("mx")?;
    let peer_port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let peer = s_server(&certificate, &key, peer_port)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(handshakes_per_cpu_second(platform.pid(), address.port(), options.seconds)?);
        theirs.push(handshakes_per_cpu_second(peer.0.id(), peer_port, options.seconds)?);
    }
    let failed = platform.metric("posthouse_tls_handshakes_total", &["result=\"failure\""]);
    let mut results = Results::new("tls");
    results.add(
        "tls_posthouse_per_cpu_second",
        "Posthouse: handshakes per CPU second",
        median(&ours),
        "/s",
        Target::None,
    );
    results.add("tls_openssl_per_cpu_second", "openssl s_server: the same", median(&theirs), "/s", Target::None);
    let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect();
    results.add("tls_ratio", "ratio, median of the rounds", median(&ratios), "", Target::AtLeast(0.9));
    ensure!(failed == 0.0, "{failed} handshakes failed");
    results.note(format!(
        "`openssl s_time -new -tls1_3`, {ROUNDS} rounds of {} s in turns, certificate ECDSA P-256, no resumption; CPU time of \
         the server's process (user and system): the connection, the handshake with its two tickets, and for Posthouse the \
         session's begin (the question to policy, the greeting) as well. The peer is `s_server -www`.",
        options.seconds
    ));
    results.finish(options.json.as_deref())?;
    platform.stop()
}

/// A key and a certificate for it, as PEM files.
fn certificate(folder: &Path) -> Result<(PathBuf, PathBuf)> {
    let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    command.args(["-subj", "/CN=mx.bench.test", "-addext", "subjectAltName=DNS:mx.bench.test"]);
    test::output(command.arg("-keyout").arg(&key).arg("-out").arg(&certificate))?;
    Ok((certificate, key))
}

fn platform(site: &Site, binary: &Path) -> Result<super::common::Running> {
    site.write(
        "site.yaml",
        "\
apiVersion: posthouse.dev/v1alpha1
kind: MailPlatform
metadata: { name: main }
spec: { hostname: mx.bench.test, postmaster: p@bench.test, admin: { address: \"127.0.0.1:0\" } }
---
apiVersion: posthouse.dev/v1alpha1
kind: MailListener
metadata: { name: mx }
spec:
  protocol: smtp
  address: 127.0.0.1
  port: 0
  tls: { mode: implicit, files: [{ certificate: ../tls.crt, key: ../tls.key }] }
  limits: { sessionsPerSourceMax: 20000 }
---
apiVersion: posthouse.dev/v1alpha1
kind: MailTransport
metadata: { name: boxes }
spec: { maildir: { path: \"mail/%d/%n\" } }
---
apiVersion: posthouse.dev/v1alpha1
kind: MailDomain
metadata: { name: bench }
spec: { domain: bench.test, delivery: { transport: boxes } }
---
apiVersion: posthouse.dev/v1alpha1
kind: MailUser
metadata: { name: p }
spec: { address: p@bench.test }
",
    )?;
    Ok(site.start(binary)?.0)
}

fn s_server(certificate: &Path, key: &Path, port: u16) -> Result<Helper> {
    let mut command = Command::new("openssl");
    command.args(["s_server", "-quiet", "-www", "-accept", &format!("127.0.0.1:{port}")]);
    let child = command
        .arg("-cert")
        .arg(certificate)
        .arg("-key")
        .arg(key)
        // At the end of its input it would end.
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start openssl s_server")?;
    let server = Helper(child);
    let connect = || std::net::TcpStream::connect(("127.0.0.1", port)).ok();
    wait_for("openssl s_server", Duration::from_secs(10), connect)?;
    Ok(server)
}

fn handshakes_per_cpu_second(server: u32, port: u16, seconds: u32) -> Result<f64> {
    let before = cpu_seconds(server)?;
    let mut command = Command::new("openssl");
    command.args(["s_time", "-new", "-tls1_3", "-time", &seconds.to_string()]);
    let text = test::output(command.args(["-connect", &format!("127.0.0.1:{port}")]))?;
    let used = cpu_seconds(server)? - before;
    let handshakes = connections(&text).with_context(|| format!("s_time says {text:?}"))?;
    println!("    port {port}: {handshakes} handshakes, {used:.2} s CPU");
    ensure!(used > 0.1 && handshakes > 100.0, "too little was measured: {handshakes} handshakes, {used} s CPU");
    Ok(handshakes / used)
}

/// `1234 connections in 5 real seconds, 0 bytes read per connection`
fn connections(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.contains("connections in") && line.contains("real seconds"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_of_s_time_is_read() {
        let text = "Collecting connection statistics for 2 seconds\n***\n\n1789 connections in 1.01s; 1771.29 connections/user \
                    sec, bytes read 0\n1789 connections in 3 real seconds, 0 bytes read per connection\n";
        assert_eq!(connections(text), Some(1789.0));
        assert_eq!(connections("nothing"), None);
    }
}
