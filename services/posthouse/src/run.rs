//! `posthouse run`: the whole platform in one process.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use node::folder::Folder;
use node::process::{self, EndSignals};
use node::{Clock, Node, Part, Snapshots, StateDir, admin_http, admin_socket, panics, systemd, telemetry, watch};
use resources::Snapshot;

use crate::exit::{Code, Failure};
use crate::hint;

/// `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Folder of the site
    dir: PathBuf,
    /// State folder: mail, keys, sockets. By default $STATE_DIRECTORY, or a folder of the site's name under
    /// $XDG_STATE_HOME/posthouse or ~/.local/state/posthouse
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// What is logged, as in `info` or `info,queue=debug`; by default $POSTHOUSE_LOG, or `info`
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

/// Runs until a signal ends it.
pub fn run(args: &RunArgs) -> Result<ExitCode, Failure> {
    // Dropped last: whatever happens, the log is written to its end.
    let _log =
        telemetry::logs(args.log.as_deref()).map_err(|error| Failure { code: Code::Usage, error: error.into() })?;
    let state_dir = args.state.clone().unwrap_or_else(|| node::default_dir(&args.dir));
    // Faults are told before anything is made or opened.
    let state_dir = std::path::absolute(state_dir)?;
    let snapshot = crate::site::load(&args.dir, &state_dir)?;
    let state = StateDir::hold(&state_dir).map_err(|error| Failure { code: Code::Unavailable, error: error.into() })?;
    // Only now the folder has its final name.
    let folder = Folder::new(&args.dir, state.path());
    // A large site takes seconds to read.
    let snapshot = if state.path() == state_dir { snapshot } else { crate::site::load(&args.dir, state.path())? };
    process::raise_file_limit();
    let node = Node::new(Snapshots::new(snapshot), state.path().to_owned(), Clock::system());
    process::block_on(live(node, folder))?
}

async fn live(node: Node, folder: Folder) -> Result<ExitCode, Failure> {
    let mut signals = EndSignals::listen()?;
    start(&node, folder).await?;
    node.health().set("process", Part::Ready);
    systemd::tell(systemd::State::Ready);
    tracing::info!(
        state = %node.state_dir().display(),
        version = node.snapshots().current().version,
        resources = node.snapshots().current().resources,
        "ready: takes mail"
    );
    // Nobody may be reading: that is no reason to end.
    let _ = say_what_next(&node.snapshots().current(), node.state_dir());
    Ok(ExitCode::from(process::until_end(&node, &mut signals).await))
}

/// Probes first, then what mail needs, and last the doors.
async fn start(node: &Node, folder: Folder) -> Result<(), Failure> {
    node.health().set("process", Part::NotReady("is starting".to_owned()));
    let metrics = telemetry::metrics()?;
    panics::log_panics();
    process::keep_metrics_small(metrics.clone());
    admin_http::start(node, metrics).await?;
    queue::start(node).await?;
    policy::start(node).await?;
    delivery::start(node).await?;
    ingress::start(node).await?;
    admin_socket::start(node)?;
    watch::start(node, folder)?;
    Ok(())
}

/// For people who see it, and for whoever follows the README with a site whose password is published.
fn say_what_next(snapshot: &Snapshot, state_dir: &Path) -> io::Result<()> {
    let published = std::fs::read(state_dir.join(ingress::LISTENERS_FILE))?;
    let bound: BTreeMap<String, Vec<String>> = serde_json::from_slice(&published)?;
    let Some(hint) = hint::derive(snapshot, &bound, state_dir) else { return Ok(()) };
    let mut out = io::stdout().lock();
    if out.is_terminal() || hint.password_is_known {
        out.write_all(hint::text(&hint).as_bytes())?;
        out.flush()?;
    }
    Ok(())
}
