use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use node::Part;
use resources::Snapshot;
use resources::snapshot::{
    Auth, ClientCertificates, Endpoint, Identity, Limits, LineEnds, Listener, Protocol, Tls, TlsMode, TlsVersion,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::census::Census;
use crate::certificates::{Certificates, TlsFault, replace};
use crate::connection;
use crate::panics::guarded;
use crate::shared::Shared;
use crate::socket::{Listening, Place, remedy};
use crate::terms::Terms;

/// Where the bound addresses are written, below the state folder: `{"name": ["127.0.0.1:2525"]}`.
pub const LISTENERS_FILE: &str = "run/listeners.json";
/// Name of the built-in listener of `posthouse sendmail`.
pub const SENDMAIL_LISTENER: &str = "sendmail";
/// Its socket, below the state folder.
pub const SENDMAIL_SOCKET: &str = "run/sendmail.sock";

/// Every user of the machine may submit; who it is, the kernel says.
const SENDMAIL_MODE: u32 = 0o666;
/// Unix sockets of MailListeners: user and group of the process.
const UNIX_MODE: u32 = 0o660;
/// Name of ours in the health of the node.
const HEALTH: &str = "listeners";

/// Why a listener does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenerFault {
    /// A socket does not open.
    #[error("listener {listener}: cannot listen on {address}: {source}: {remedy}")]
    Bind {
        /// Name of the MailListener.
        listener: String,
        /// Address and port, or path.
        address: String,
        /// What the system says.
        source: std::io::Error,
        /// What to do about it.
        remedy: &'static str,
    },
    /// Its TLS cannot be set up.
    #[error("listener {listener}: {source}")]
    Tls {
        /// Name of the MailListener.
        listener: String,
        /// What is wrong.
        source: TlsFault,
    },
    /// The bound addresses cannot be published.
    #[error("cannot write {path}: {source}: make the state folder writable")]
    Publish {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
}

/// Opens and closes sockets as snapshots say.
pub(crate) struct Manager {
    shared: Arc<Shared>,
    certificates: Certificates,
    running: BTreeMap<String, Running>,
}

/// A listener that runs.
struct Running {
    terms: Arc<ArcSwap<Terms>>,
    census: Arc<Census>,
    sockets: BTreeMap<Place, Open>,
}

/// An open socket and the task that accepts from it.
struct Open {
    bound: String,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Manager {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let certificates = Certificates::new(shared.node.state_dir());
        Self { shared, certificates, running: BTreeMap::new() }
    }

    /// Follows the snapshots until the node drains.
    pub(crate) async fn follow(mut self, mut changes: watch::Receiver<u64>) {
        let drain = self.shared.node.drain().clone();
        loop {
            tokio::select! {
                () = drain.begun() => break,
                changed = changes.changed() => if changed.is_err() { break },
            }
            let snapshot = self.shared.node.snapshots().current();
            for fault in self.apply(&snapshot).await {
                metrics::counter!("posthouse_listener_faults_total").increment(1);
                tracing::error!(%fault, "listener fault, tried again with the next snapshot");
            }
        }
        // The accept tasks end with the drain; sessions go on by themselves.
        for running in std::mem::take(&mut self.running).into_values() {
            close(running.sockets).await;
        }
    }

    /// Makes the sockets what the snapshot says: those that stay are not touched, sessions least of all.
    pub(crate) async fn apply(&mut self, snapshot: &Snapshot) -> Vec<ListenerFault> {
        let mut faults = Vec::new();
        let wanted = wanted(snapshot, self.shared.node.state_dir());
        // First make room: an address may move from one listener to another.
        for (name, running) in &mut self.running {
            let places = wanted.get(name).map(|(_, places)| places);
            let gone = running.sockets.extract_if(.., |place, _| !places.is_some_and(|places| places.contains(place)));
            close(gone.collect()).await;
        }
        self.running.retain(|name, _| wanted.contains_key(name));
        for (name, (listener, places)) in &wanted {
            match self.certificates.server_config(listener, snapshot, self.shared.node.clock().now()) {
                Ok(tls) => self.open(name, places, Terms::new(listener, snapshot, tls), &mut faults),
                // What runs keeps its terms; what does not run yet stays away.
                Err(source) => faults.push(ListenerFault::Tls { listener: name.clone(), source }),
            }
        }
        self.certificates.settle(snapshot);
        if let Err(fault) = self.publish() {
            faults.push(fault);
        }
        let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let health = if texts.is_empty() { Part::Ready } else { Part::Degraded(texts.join("; ")) };
        self.shared.node.health().set(HEALTH, health);
        faults
    }

    fn open(&mut self, name: &str, places: &BTreeSet<Place>, terms: Terms, faults: &mut Vec<ListenerFault>) {
        let terms = Arc::new(terms);
        let running = self.running.entry(name.to_owned()).or_insert_with(|| Running {
            terms: Arc::new(ArcSwap::new(Arc::clone(&terms))),
            census: Arc::default(),
            sockets: BTreeMap::new(),
        });
        running.terms.store(terms);
        for place in places {
            if running.sockets.contains_key(place) {
                continue;
            }
            let opened = Listening::open(place).and_then(|socket| Ok((socket.bound()?, socket)));
            match opened {
                Ok((bound, socket)) => {
                    tracing::info!(listener = name, address = bound, "listening");
                    let (stop, stopped) = watch::channel(false);
                    let accepting = connection::accept(
                        socket,
                        Arc::clone(&running.terms),
                        Arc::clone(&running.census),
                        Arc::clone(&self.shared),
                        stopped,
                    );
                    let task = tokio::spawn(guarded("accept", accepting));
                    running.sockets.insert(place.clone(), Open { bound, stop, task });
                }
                Err(source) => {
                    let remedy = remedy(&source);
                    let (listener, address) = (name.to_owned(), place.to_string());
                    faults.push(ListenerFault::Bind { listener, address, source, remedy });
                }
            }
        }
    }

    /// Writes the bound addresses for tests and for people who use port 0.
    fn publish(&self) -> Result<(), ListenerFault> {
        let bound: BTreeMap<&str, Vec<&str>> = self
            .running
            .iter()
            .map(|(name, running)| (name.as_str(), running.sockets.values().map(|open| open.bound.as_str()).collect()))
            .collect();
        let path = self.shared.node.state_dir().join(LISTENERS_FILE);
        let write = || {
            let text = serde_json::to_vec(&bound)?;
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            replace(&path, &text, 0o644)
        };
        write().map_err(|source| ListenerFault::Publish { path: path.display().to_string(), source })
    }
}

async fn close(sockets: BTreeMap<Place, Open>) {
    for open in sockets.into_values() {
        open.stop.send_replace(true);
        // A task that panicked has dropped its socket too.
        let _ = open.task.await;
        tracing::info!(address = open.bound, "listening ended");
    }
}

/// Every listener of a snapshot with its sockets, the built-in one included.
fn wanted(snapshot: &Snapshot, state_dir: &Path) -> BTreeMap<String, (Arc<Listener>, BTreeSet<Place>)> {
    let mut wanted: BTreeMap<_, _> = snapshot
        .listeners
        .iter()
        .map(|(name, listener)| (name.clone(), (Arc::clone(listener), places(&listener.endpoint, state_dir))))
        .collect();
    if snapshot.platform.sendmail_socket && !wanted.contains_key(SENDMAIL_LISTENER) {
        let place = Place::Unix { path: state_dir.join(SENDMAIL_SOCKET), mode: SENDMAIL_MODE };
        wanted.insert(SENDMAIL_LISTENER.to_owned(), (Arc::new(sendmail(snapshot)), [place].into()));
    }
    wanted
}

fn places(endpoint: &Endpoint, state_dir: &Path) -> BTreeSet<Place> {
    match endpoint {
        Endpoint::Unix(path) => [Place::Unix { path: state_dir.join(path), mode: UNIX_MODE }].into(),
        Endpoint::Tcp { addresses, port, v6_only } => {
            let all_ipv4 = addresses.contains(&IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            addresses
                .iter()
                .map(|address| Place::Tcp {
                    address: SocketAddr::new(*address, *port),
                    // A dual-stack socket beside one for all of IPv4 would ask for the same address twice.
                    v6_only: *v6_only || (all_ipv4 && *address == IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
                })
                .collect()
        }
    }
}

/// The built-in listener: submission by users of this machine.
fn sendmail(snapshot: &Snapshot) -> Listener {
    Listener {
        name: SENDMAIL_LISTENER.to_owned(),
        protocol: Protocol::Submission,
        endpoint: Endpoint::Unix(SENDMAIL_SOCKET.into()),
        tls: Tls {
            mode: TlsMode::Off,
            certificates: Vec::new(),
            self_signed: false,
            version_min: TlsVersion::V1_2,
            client_certificates: ClientCertificates::Off,
            client_authorities: None,
        },
        auth: Auth { offered: false, required: false, without_tls: false },
        identity: Identity::Direct,
        loopback_is_local: true,
        hostname: snapshot.platform.hostname.clone(),
        tags: Vec::new(),
        line_ends: LineEnds::Normalise,
        received_client: true,
        limits: Limits::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_ipv4_and_all_of_ipv6_are_two_sockets_that_do_not_collide() {
        let tcp = |addresses: &[&str], v6_only| Endpoint::Tcp {
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            port: 25,
            v6_only,
        };
        let place = |address: &str, v6_only| Place::Tcp { address: address.parse().unwrap(), v6_only };
        let cases = [
            (tcp(&["::"], false), vec![place("[::]:25", false)]),
            (tcp(&["::"], true), vec![place("[::]:25", true)]),
            (tcp(&["0.0.0.0", "::"], false), vec![place("0.0.0.0:25", false), place("[::]:25", true)]),
            (Endpoint::Unix("run/x".into()), vec![Place::Unix { path: "/s/run/x".into(), mode: 0o660 }]),
            (Endpoint::Unix("/y".into()), vec![Place::Unix { path: "/y".into(), mode: 0o660 }]),
        ];
        for (endpoint, expected) in cases {
            assert_eq!(places(&endpoint, Path::new("/s")), expected.into_iter().collect(), "{endpoint:?}");
        }
    }
}
