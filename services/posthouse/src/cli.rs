//! The command line.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::backup::BackupArgs;
use crate::exit::{Failure, Outcome, text};
use crate::explain::ExplainArgs;
use crate::hash::HashArgs;
use crate::queue_changes::{Change, ChangeArgs};
use crate::queue_list::{CatArgs, ListArgs, ShowArgs};
use crate::queue_transfer::{ExportArgs, ImportArgs};
use crate::reach::Which;
use crate::run::RunArgs;
use crate::sessions::SessionsArgs;
use crate::site::{CheckArgs, DovecotArgs, InitArgs};
use crate::trace::TraceArgs;
use crate::{backup, explain, hash, queue_changes, queue_list, queue_transfer, run, sendmail, sessions, site, trace};

const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  failed
    2  the command line cannot be understood
   64  the site has faults (each is on stderr as file:line:column: what: remedy), or the request cannot be understood
   65  a message cannot be understood
   67  a recipient is unknown or refused (sendmail)
   69  no platform runs, or it refuses
   73  a file cannot be written
   75  try again later
  130, 143  ended at once by a second SIGINT or SIGTERM";

/// A mail platform: SMTP, rules, a durable queue and delivery, from a folder of YAML.
#[derive(Debug, Parser)]
#[command(name = "posthouse", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the platform that a folder describes
    Run(RunArgs),
    /// Say whether a folder describes a platform, with every fault at once
    Check(CheckArgs),
    /// Write a small site to begin with
    Init(InitArgs),
    /// Show what would be answered to an envelope, and every rule that was tried
    Explain(ExplainArgs),
    /// Look at the mail that waits, and change what becomes of it
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Queue {
        #[command(subcommand)]
        command: QueueCommand,
        #[command(flatten)]
        which: Which,
    },
    /// Show what became of a message, or watch running SMTP dialogues
    Trace {
        #[command(flatten)]
        args: TraceArgs,
        #[command(flatten)]
        which: Which,
    },
    /// List running SMTP sessions
    Sessions {
        #[command(flatten)]
        args: SessionsArgs,
        #[command(flatten)]
        which: Which,
    },
    /// Copy the queue and the self-made certificates into a folder that a platform can run with (mailboxes are not part of it)
    Backup {
        #[command(flatten)]
        args: BackupArgs,
        #[command(flatten)]
        which: Which,
    },
    /// Hash a password for a MailUser
    HashPassword(HashArgs),
    /// Write a site in the form of another program
    Export {
        #[command(subcommand)]
        command: ExportCommand,
    },
    /// Submit a message from stdin: [--state DIR] -t -i -f SENDER -F NAME -N NOTIFY -R RET -V ENVID RECIPIENT ...
    #[command(disable_help_flag = true)]
    Sendmail {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Write the custom resource definitions for Kubernetes
    Crds,
    /// Deliver as another user: how the platform starts itself
    #[command(hide = true)]
    DeliverAs,
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// List messages, newest first
    List(ListArgs),
    /// Show everything that is known of a message but its text
    Show(ShowArgs),
    /// Write the text of a message as it would be sent
    Cat(CatArgs),
    /// Keep recipients from being delivered until they are released
    Hold(ChangeArgs),
    /// End a hold; what was held is due at once
    Release(ChangeArgs),
    /// Make what waits due at once
    Retry(ChangeArgs),
    /// Take messages out of the queue
    Remove {
        #[command(flatten)]
        args: ChangeArgs,
        /// Tell the senders
        #[arg(long)]
        report: bool,
    },
    /// Write messages as files
    Export(ExportArgs),
    /// Take messages from files; what is here already stays as it is
    Import(ImportArgs),
}

#[derive(Debug, Subcommand)]
enum ExportCommand {
    /// A passwd-file by which Dovecot logs the same users in
    Dovecot(DovecotArgs),
}

/// Does what the command line says.
pub fn main(mut arguments: Vec<OsString>) -> ExitCode {
    if is_sendmail(arguments.first()) {
        arguments.remove(0);
        return finish_sendmail(sendmail::main(arguments));
    }
    // Its options are not of the kind that a parser of today takes.
    if arguments.get(1).is_some_and(|command| command == "sendmail") {
        if !asks_for_help(arguments.get(2)) {
            return finish_sendmail(sendmail::main(arguments.split_off(2)));
        }
        // Its own options are not those of the parser: what hyphens begin is handed on.
        arguments = ["posthouse", "help", "sendmail"].map(OsString::from).into();
    }
    if arguments.get(1).is_some_and(|command| command == "deliver-as") {
        return delivery::as_user::main(io::stdin(), io::stdout());
    }
    let ended = Cli::try_parse_from(arguments).map(|cli| dispatch(cli.command));
    match ended {
        Ok(ended) => finish(ended),
        Err(error) => {
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        }
    }
}

fn is_sendmail(name: Option<&OsString>) -> bool {
    name.and_then(|name| Path::new(name).file_name()).is_some_and(|name| name == OsStr::new("sendmail"))
}

fn asks_for_help(argument: Option<&OsString>) -> bool {
    argument.is_some_and(|argument| argument == "--help")
}

fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    if let Command::Run(args) = &command {
        return run::run(args);
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let outcome = speak(command, &mut out);
    // What was found before a failure is shown as well.
    let flushed = out.flush().map_err(Failure::from);
    outcome.and(flushed).map(|()| ExitCode::SUCCESS)
}

fn speak(command: Command, out: &mut dyn Write) -> Outcome {
    match command {
        Command::Check(args) => site::check(&args, out),
        Command::Init(args) => site::init(&args, out),
        Command::Explain(args) => explain::explain(&args, out),
        Command::HashPassword(args) => hash::hash(&args, out),
        Command::Export { command: ExportCommand::Dovecot(args) } => site::dovecot(&args, out),
        Command::Crds => site::crds(out),
        Command::Queue { command, which } => node::process::block_on(queue(&which, command, out))?,
        Command::Trace { args, which } => node::process::block_on(trace::trace(&which, &args, out))?,
        Command::Sessions { args, which } => node::process::block_on(sessions::sessions(&which, &args, out))?,
        Command::Backup { args, which } => node::process::block_on(backup::backup(&which, &args, out))?,
        // Taken care of before: run needs no writer, the others are no words of the parser.
        Command::Run(_) | Command::Sendmail { .. } | Command::DeliverAs => Ok(()),
    }
}

async fn queue(which: &Which, command: QueueCommand, out: &mut dyn Write) -> Outcome {
    match command {
        QueueCommand::List(args) => queue_list::list(which, &args, out).await,
        QueueCommand::Show(args) => queue_list::show(which, &args, out).await,
        QueueCommand::Cat(args) => queue_list::cat(which, &args, out).await,
        QueueCommand::Hold(args) => queue_changes::change(which, Change::Hold, &args, false, out).await,
        QueueCommand::Release(args) => queue_changes::change(which, Change::Release, &args, false, out).await,
        QueueCommand::Retry(args) => queue_changes::change(which, Change::Retry, &args, false, out).await,
        QueueCommand::Remove { args, report } => queue_changes::change(which, Change::Remove, &args, report, out).await,
        QueueCommand::Export(args) => queue_transfer::export(which, &args, out).await,
        QueueCommand::Import(args) => queue_transfer::import(which, &args, out).await,
    }
}

fn finish(ended: Result<ExitCode, Failure>) -> ExitCode {
    match ended {
        Ok(code) => code,
        // `posthouse queue list | head`
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "posthouse: {}", text(&failure));
            ExitCode::from(failure.code as u8)
        }
    }
}

fn finish_sendmail(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            sendmail::report(&failure);
            ExitCode::from(failure.code as u8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn command_lines_are_understood_or_refused() {
        let good = [
            "run site",
            "run site --state /s --log info,queue=debug",
            "check site",
            "init site --hostname mx1.example.org --domain example.org",
            "explain site --listener mx --client-ip 192.0.2.1 --helo x --from <> --to a@b --to c@d --json",
            "explain site --listener mx --client-ip ::1 --from a@b --auth u@b --to c@d",
            "queue list",
            "queue --state /s list --sender @example.org --older-than 4h --json",
            "queue list --state /s --limit 5 --only held",
            "queue hold 0001 --reason why",
            "queue remove --all --report",
            "queue export dir --route example.org",
            "queue import dir --site site",
            "trace <a@b>",
            "trace --live --client-ip 192.0.2.0/24 --listener mx --state /s",
            "sessions --json",
            "backup target --state /s",
            "hash-password --scheme argon2id",
            "export dovecot site --output file",
            "crds",
        ];
        for line in good {
            let parsed = Cli::try_parse_from(["posthouse"].into_iter().chain(line.split(' ')));
            assert!(parsed.is_ok(), "{line}: {:?}", parsed.err().map(|e| e.to_string()));
        }
        let bad = [
            "",
            "run",
            "init site",
            "init site --hostname mx_1..org --domain example.org",
            "explain site --listener mx --from a@b",
            "queue",
            "queue list --older-than soon",
            "queue show nonsense",
            "queue list --state /s --site x",
            "trace",
            "trace a@b --live",
            "trace a@b --client-ip ::1",
            "hash-password --scheme md5",
        ];
        for line in bad {
            let words = line.split(' ').filter(|word| !word.is_empty());
            assert!(Cli::try_parse_from(["posthouse"].into_iter().chain(words)).is_err(), "{line}");
        }
    }

    #[test]
    fn the_name_of_the_binary_decides() {
        for (name, expected) in [("/usr/sbin/sendmail", true), ("sendmail", true), ("posthouse", false), ("", false)] {
            assert_eq!(is_sendmail(Some(&OsString::from(name))), expected, "{name}");
        }
    }
}
