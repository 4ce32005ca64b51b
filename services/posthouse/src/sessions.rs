//! `posthouse sessions`.

use std::io::Write;

use clap::Args;
use posthouse_proto::ingress::v1::SessionsRequest;

use crate::exit::Outcome;
use crate::json;
use crate::output::{Table, count, span_ms};
use crate::reach::{self, Which};

/// `sessions`.
#[derive(Debug, Args)]
pub struct SessionsArgs {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Lists running sessions, oldest first.
pub async fn sessions(which: &Which, args: &SessionsArgs, out: &mut dyn Write) -> Outcome {
    let mut sessions = reach::ingress(which).await?.sessions(SessionsRequest {}).await?.into_inner().sessions;
    sessions.sort_by_key(|session| (session.started_at_ms, session.session));
    if args.json {
        for session in &sessions {
            writeln!(out, "{}", json::session(session))?;
        }
        return Ok(());
    }
    let now_ms = node::Clock::system().now().unix_ms();
    let mut table = Table::new(&["SESSION", "AGE", "LISTENER", "CLIENT", "USER", "STATE", "MESSAGES"]);
    for session in &sessions {
        table.row([
            session.session.to_string(),
            span_ms(session.started_at_ms, now_ms),
            session.listener.clone(),
            session.client.clone(),
            session.user.clone(),
            session.state.clone(),
            session.messages.to_string(),
        ]);
    }
    if !sessions.is_empty() {
        table.write(out)?;
    }
    writeln!(out, "{}", count(sessions.len() as u64, "session"))?;
    Ok(())
}
