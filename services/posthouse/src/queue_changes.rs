//! `posthouse queue hold|release|retry|remove`.

use std::io::Write;

use clap::Args;
use posthouse_proto::queue::v1::{ChangeRequest, Filter};
use serde_json::json;

use crate::exit::{Code, Failure, Outcome};
use crate::output::count;
use crate::queue_list::FilterArgs;
use crate::reach::{self, Which};

/// What is done to messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Keep back.
    Hold,
    /// End a hold.
    Release,
    /// Make due.
    Retry,
    /// Take out.
    Remove,
}

/// Arguments of all of them.
#[derive(Debug, Args)]
pub struct ChangeArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Every message of the queue
    #[arg(long)]
    all: bool,
    /// Why, for the history of the messages
    #[arg(long, default_value = "")]
    reason: String,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl ChangeArgs {
    fn request(&self, report: bool) -> Result<ChangeRequest, Failure> {
        let filter = self.filter.filter()?;
        if filter == Filter::default() && !self.all {
            let text = "name the messages: ids, a filter such as --sender or --route, or --all";
            return Err(Failure::new(Code::Usage, text));
        }
        if filter != Filter::default() && self.all {
            return Err(Failure::new(Code::Usage, "--all means every message: leave out the ids and filters"));
        }
        Ok(ChangeRequest { filter: Some(filter), all: self.all, reason: self.reason.clone(), report })
    }
}

/// Changes messages and says how many it were. `report`: senders are told of a removal.
pub async fn change(which: &Which, change: Change, args: &ChangeArgs, report: bool, out: &mut dyn Write) -> Outcome {
    let request = args.request(report)?;
    let mut reached = reach::queue(which).await?;
    let (answer, done) = match change {
        Change::Hold => (reached.queue.hold(request).await?, "held"),
        Change::Release => (reached.queue.release(request).await?, "released"),
        Change::Retry => (reached.queue.retry_now(request).await?, "due now"),
        Change::Remove => (reached.queue.remove(request).await?, "removed"),
    };
    let answer = answer.into_inner();
    if args.json {
        writeln!(out, "{}", json!({ "messages": answer.messages, "recipients": answer.recipients }))?;
    } else {
        let (messages, recipients) = (count(answer.messages, "message"), count(answer.recipients, "recipient"));
        writeln!(out, "{done}: {messages}, {recipients}")?;
    }
    if answer.messages == 0 && !args.filter.ids.is_empty() {
        return Err(Failure::new(Code::Failed, "none of these messages is in the queue in such a state"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_must_be_meant() {
        let args = |filter: FilterArgs, all| ChangeArgs { filter, all, reason: String::new(), json: false };
        let sender = || FilterArgs { sender: Some("@example.org".to_owned()), ..FilterArgs::default() };
        assert_eq!(args(FilterArgs::default(), false).request(false).unwrap_err().code, Code::Usage);
        assert_eq!(args(sender(), true).request(false).unwrap_err().code, Code::Usage);
        assert!(args(FilterArgs::default(), true).request(true).unwrap().report);
        assert_eq!(args(sender(), false).request(false).unwrap().filter.unwrap().sender, "@example.org");
    }
}
