//! The LMTP transport (RFC 2033): into mailboxes, by TCP or a Unix socket, all recipients in one transaction.

use std::path::PathBuf;
use std::sync::Arc;

use resources::snapshot::{ClientTls, LmtpTarget};
use smtp::client::{ClientConfig, Protocol, Timeouts, TlsUse};
use types::Address;

use crate::connection::Connection;
use crate::exchange::{Exchanged, Message, trouble_result};
use crate::hosts::{self, Attempt, Host, Plan};
use crate::job::{Context, Job};
use crate::pool::Key;

/// Delivers to the one destination of the transport.
pub(crate) async fn deliver(context: &Context, job: &Job, target: &LmtpTarget, tls: &ClientTls) -> Attempt {
    let message =
        Message { job, recipients: job.recipients.iter().collect(), protocol: Protocol::Lmtp, prefix: prefix(job) };
    let client = ClientConfig {
        protocol: Protocol::Lmtp,
        hello: context.node.snapshots().current().platform.hostname.to_string(),
        tls: TlsUse::Never,
        login: None,
        auth_without_tls: false,
        timeouts: Timeouts::default(),
    };
    match target {
        LmtpTarget::Tcp(name, port) => {
            let host = Host { name: name.clone(), port: *port, by_mx: false };
            let plan = Plan { hosts: vec![host], tls, client, refuse: &[] };
            hosts::send(context, &plan, &message).await
        }
        LmtpTarget::Unix(path) => by_socket(context, &message, context.node.state_dir().join(path), client).await,
    }
}

/// Delivered-To only where the transaction has one recipient: it would tell the others of each other.
fn prefix(job: &Job) -> String {
    let mut prefix = message::return_path(job.sender.as_ref());
    if let [recipient] = job.recipients.as_slice() {
        let outside = Address::parse(&recipient.delivered_to);
        prefix.push_str(&message::delivered_to(outside.as_ref().unwrap_or(&recipient.address)));
    }
    prefix
}

async fn by_socket(context: &Context, message: &Message<'_>, path: PathBuf, client: ClientConfig) -> Attempt {
    let (clock, transport) = (context.node.clock(), &message.job.transport);
    let key = Key { transport: transport.name.clone(), host: path.display().to_string() };
    while let Some(rested) = context.pool.take(&key, transport) {
        if let Exchanged::Answered(results, connection) = message.exchange(context, rested, true).await {
            return hosts::answered(context, message, key, results, connection);
        }
    }
    let trouble = match Connection::unix(&path, Arc::new(client), clock, message.job.deadline).await {
        Ok(connection) => match message.exchange(context, connection, false).await {
            Exchanged::Answered(results, connection) => {
                return hosts::answered(context, message, key, results, connection);
            }
            Exchanged::Stale => smtp::client::Trouble::Lost(smtp::client::Stage::Idle),
        },
        Err(fault) => fault.trouble,
    };
    let result = trouble_result(&trouble, &key.host);
    Attempt { results: message.job.all(&result), unreachable: Some(result.reply) }
}
