//! How the commands reach a platform: through its admin socket, or its queue directly when none runs.

use std::path::{Path, PathBuf};

use clap::Args;
use node::admin_socket::SocketError;
use node::{Clock, StateDir, Wire};
use posthouse_proto::ingress::v1::ingress_client::IngressClient;
use posthouse_proto::queue::v1::queue_client::QueueClient;

use crate::exit::{Code, Failure};

/// Which platform is meant.
#[derive(Debug, Clone, Default, Args)]
pub struct Which {
    /// State folder of the platform
    #[arg(long, value_name = "DIR", global = true)]
    pub state: Option<PathBuf>,
    /// Folder of the site that runs, where its state folder is the default one
    #[arg(long, value_name = "DIR", global = true, conflicts_with = "state")]
    pub site: Option<PathBuf>,
}

impl Which {
    /// The state folder.
    pub fn state_dir(&self) -> Result<PathBuf, Failure> {
        if let Some(state) = &self.state {
            return Ok(state.clone());
        }
        if let Some(site) = &self.site {
            return Ok(node::default_dir(site));
        }
        let known = node::known_dirs();
        match known.as_slice() {
            [one] => Ok(one.clone()),
            [] => Err(Failure::new(
                Code::Unavailable,
                "no state folder was found: name it with --state DIR, or the site with --site DIR",
            )),
            several => {
                let list = several.iter().map(|dir| format!("\n  --state {}", dir.display())).collect::<String>();
                Err(Failure::new(Code::Usage, format!("there are several state folders: choose one{list}")))
            }
        }
    }
}

/// A queue within reach.
pub struct Reached {
    /// To the queue.
    pub queue: QueueClient<Wire>,
    /// The state folder.
    pub state_dir: PathBuf,
    /// Whether the platform runs.
    pub runs: bool,
    /// Keeps a platform from starting over our work.
    _held: Option<StateDir>,
}

/// Reaches the queue of a platform, running or not.
pub async fn queue(which: &Which) -> Result<Reached, Failure> {
    reach(which, Absent::IsAnError).await
}

/// As [`queue`]; where there is no queue yet, one is made.
pub async fn queue_or_new(which: &Which) -> Result<Reached, Failure> {
    reach(which, Absent::IsMade).await
}

/// What a missing queue means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Absent {
    IsAnError,
    IsMade,
}

async fn reach(which: &Which, absent: Absent) -> Result<Reached, Failure> {
    let state_dir = which.state_dir()?;
    match node::admin_socket::connect(&state_dir, Clock::system()).await {
        Ok(wire) => Ok(Reached { queue: client(wire), state_dir, runs: true, _held: None }),
        Err(SocketError::NotRunning(_)) => offline(state_dir, absent).await,
        Err(error) => Err(Failure { code: Code::Unavailable, error: error.into() }),
    }
}

async fn offline(state_dir: PathBuf, absent: Absent) -> Result<Reached, Failure> {
    let is_there = state_dir.join(queue::FOLDER).is_dir();
    if !is_there && absent == Absent::IsAnError {
        let text = format!("{} is no state folder of a platform: name it with --state DIR", state_dir.display());
        return Err(Failure::new(Code::Unavailable, text));
    }
    let unavailable = |error: anyhow::Error| Failure { code: Code::Unavailable, error };
    let held = StateDir::hold(&state_dir).map_err(|error| unavailable(error.into()))?;
    let clock = Clock::system();
    let server = if is_there {
        queue::open_offline(held.path(), clock.clone()).await
    } else {
        queue::create_offline(held.path(), clock.clone()).await
    };
    let server = server.map_err(|error| unavailable(error.into()))?;
    Ok(Reached { queue: client(Wire::to_server(server, clock)), state_dir, runs: false, _held: Some(held) })
}

/// Reaches the sessions of a platform that runs.
pub async fn ingress(which: &Which) -> Result<IngressClient<Wire>, Failure> {
    let state_dir = which.state_dir()?;
    let wire = connect(&state_dir).await?;
    Ok(IngressClient::new(wire).max_decoding_message_size(usize::MAX))
}

async fn connect(state_dir: &Path) -> Result<Wire, Failure> {
    node::admin_socket::connect(state_dir, Clock::system())
        .await
        .map_err(|error| Failure { code: Code::Unavailable, error: error.into() })
}

fn client(wire: Wire) -> QueueClient<Wire> {
    QueueClient::new(wire).max_decoding_message_size(usize::MAX)
}
