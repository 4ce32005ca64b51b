//! A platform between clients and sink, whose processes are numbered.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use testkit::posthouse::{Posthouse, Site};

use crate::ledger::{Ledger, Verdict};
use crate::sink::{Manners, Sink};

/// Port of the listener for clients; the address is the stage's own.
const MX_PORT: u16 = 2525;
/// Port of the listener for users who log in.
const SUBMISSION_PORT: u16 = 2587;
/// A user of the platform, for submission.
pub const USER: &str = "u0@example.org";
/// The password of [`USER`].
pub const PASSWORD: &str = "change-me";
/// As `openssl passwd -6 -salt posthouse change-me` prints it.
const HASH: &str =
    "$6$posthouse$GZvnUT7gwBRiMLAwDIeNKEwBXNfawg63A1P1kMUu9pnIfndbPoNx9RsE.ydW4J3ZgnpCMQ466hH.qtPLEMMUB1";
/// Users whose mail leaves by LMTP.
const USERS: u64 = 6;
/// A queue that hands out nothing for so long will not.
const STANDSTILL_MAX_MS: u64 = 60_000;
/// Domains whose mail leaves by SMTP.
const DOMAINS: u64 = 4;

/// The platform's documents and state, its ledger and its sink.
pub struct Stage {
    /// Documents and state folder.
    pub site: Site,
    /// What clients and sink write into.
    pub ledger: Arc<Ledger>,
    /// Where all mail ends.
    pub sink: Sink,
    address: std::net::Ipv4Addr,
    /// Further lines of the platform's spec.
    more: String,
    epoch: u64,
}

impl Default for Stage {
    fn default() -> Self {
        Self::new(Manners { greylist: 2, ..Manners::default() })
    }
}

impl Stage {
    /// A stage with a new ledger.
    pub fn new(manners: Manners) -> Self {
        let ledger = Arc::new(Ledger::new());
        let sink = Sink::start(&ledger, manners);
        let address = testkit::own_loopback_address();
        Self { site: Site::new(), ledger, sink, address, more: String::new(), epoch: 0 }
    }

    /// The state lies here instead: a mounted folder, for example.
    #[must_use]
    pub fn with_state(mut self, state: PathBuf) -> Self {
        self.site = self.site.with_state(state);
        self
    }

    /// Further lines of the platform's spec.
    #[must_use]
    pub fn with_platform(mut self, more: &str) -> Self {
        self.more = more.to_owned();
        self
    }

    /// The listener for clients: the same in all epochs.
    pub fn mx(&self) -> SocketAddr {
        (self.address, MX_PORT).into()
    }

    /// The listener for users who log in.
    pub fn submission(&self) -> SocketAddr {
        (self.address, SUBMISSION_PORT).into()
    }

    /// Who can be written to: by LMTP, and by SMTP.
    pub fn recipients(&self) -> Vec<String> {
        let users = (0..USERS).map(|n| format!("u{n}@example.org"));
        let others = (0..DOMAINS).flat_map(|d| (0..3).map(move |n| format!("r{n}@d{d}.test")));
        users.chain(others).collect()
    }

    /// The number of the process that was started last.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Starts the next process, without waiting; `faults` as in `POSTHOUSE_FAULT`.
    pub fn spawn(&mut self, faults: &str) -> Posthouse {
        self.epoch += 1;
        self.site.write("site.yaml", &self.documents());
        if faults.is_empty() { self.site.spawn() } else { self.site.spawn_with(&[("POSTHOUSE_FAULT", faults)]) }
    }

    /// Starts the next process and waits until it is ready.
    pub fn start(&mut self) -> Posthouse {
        let posthouse = self.spawn("");
        posthouse.wait_ready();
        posthouse
    }

    /// Kills the process and writes the end of its epoch down.
    pub fn kill(&self, posthouse: &mut Posthouse) {
        posthouse.kill();
        self.ended();
    }

    /// Writes down that the process has ended just now.
    pub fn ended(&self) {
        let now = self.ledger.now_ms();
        self.ledger.records().ends.insert(self.epoch, now);
    }

    /// Waits until the queue is empty, of the running process, and compares.
    ///
    /// # Panics
    /// When something is queued and nothing arrives any more.
    #[track_caller]
    pub fn settle(&self) -> Verdict {
        let mut arrived = self.sink.arrived();
        let mut since = self.ledger.now_ms();
        while !self.queue_is_empty() {
            let (now, ms) = (self.sink.arrived(), self.ledger.now_ms());
            if now != arrived {
                (arrived, since) = (now, ms);
            }
            assert!(ms - since < STANDSTILL_MAX_MS, "the queue is not empty and nothing moves: {:?}", self.list(5));
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        self.ledger.compare()
    }

    /// Compares without waiting: what the queue holds now counts as queued.
    pub fn compare_with_queue(&self) -> Verdict {
        let queued = self.list(1_000_000);
        self.ledger.records().queued = queued
            .iter()
            .flat_map(|message| {
                let id = message["id"].as_str().unwrap_or_default();
                let recipients = message["recipients"].as_array().map_or(&[][..], Vec::as_slice);
                let open = recipients
                    .iter()
                    .filter(|recipient| !matches!(recipient["state"].as_str(), Some("delivered" | "failed")));
                open.map(move |recipient| (id.to_owned(), recipient["address"].as_str().unwrap_or_default().to_owned()))
            })
            .collect();
        self.ledger.compare()
    }

    fn queue_is_empty(&self) -> bool {
        self.list(1).is_empty()
    }

    fn list(&self, limit: usize) -> Vec<serde_json::Value> {
        let state = self.site.state();
        let state = state.to_str().expect("a path of text");
        let output = self.site.cli(&["queue", "list", "--json", "--limit", &limit.to_string(), "--state", state]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
    }

    /// Everything comes from loopback and goes to the sink: users by LMTP, all else by SMTP.
    fn documents(&self) -> String {
        let (epoch, address, sink, more) = (self.epoch, self.address, self.sink.address(), &self.more);
        let retry = "retry: { delayFirst: 1s, delayMax: 1s }\n";
        let limits = "limits: { sessionsPerSourceMax: 10000, messagesMax: 0 }\n";
        let mut text = [
            document(
                "MailPlatform",
                "main",
                &format!(
                    "hostname: e{epoch}.mx.example.org\npostmaster: {USER}\nadmin: {{ address: 127.0.0.1:0 }}\n\
                     policyRef: main\nrelayTransport: out\ntls: {{ selfSigned: true }}\n{more}"
                ),
            ),
            document(
                "MailListener",
                "mx",
                &format!(
                    "protocol: smtp\naddress: {address}\nport: {MX_PORT}\ntls: {{ mode: opportunistic }}\n{limits}"
                ),
            ),
            document(
                "MailListener",
                "submission",
                &format!(
                    "protocol: submission\naddress: {address}\nport: {SUBMISSION_PORT}\n\
                     tls: {{ mode: required }}\nauth: {{ required: true }}\n{limits}"
                ),
            ),
            document("MailDomain", "example-org", "domain: example.org\ndelivery: { transport: in }\n"),
            document("MailTransport", "in", &format!("lmtp: {{ address: \"{sink}\" }}\n{retry}")),
            document(
                "MailTransport",
                "out",
                &format!("relay:\n  hosts: [\"{sink}\"]\n  tls: {{ mode: off }}\n{retry}"),
            ),
            document(
                "MailPolicy",
                "main",
                "rules:\n\
                 \x20 - name: everybody of this machine relays\n\
                 \x20   match: { source: [127.0.0.0/8], not: { recipientDomain: example.org } }\n\
                 \x20   action: { relay: { transport: out } }\n\
                 \x20 - include: default\n",
            ),
        ]
        .concat();
        for n in 0..USERS {
            let spec = format!("address: u{n}@example.org\npasswordHash: {HASH}\n");
            text.push_str(&document("MailUser", &format!("u{n}"), &spec));
        }
        text
    }
}

/// One document; `spec` are the lines below `spec:`.
fn document(kind: &str, name: &str, spec: &str) -> String {
    let lines: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!("---\napiVersion: posthouse.dev/v1alpha1\nkind: {kind}\nmetadata: {{ name: {name} }}\nspec:\n{lines}")
}
