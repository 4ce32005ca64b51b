use std::collections::HashSet;

use bytes::Bytes;
use posthouse_proto::policy::v1::{Accepted, Destination};
use posthouse_proto::queue::v1::{Recipient, Variant};
use smtp::server::{RcptTo, Transaction};

use crate::wire;

/// What policy said of the recipients of the running transaction.
#[derive(Default)]
pub(crate) struct Answers {
    /// Of the recipients that the session accepted, in order.
    pub(crate) accepted: Vec<Accepted>,
    /// The message must be shown to policy before it is stored.
    pub(crate) decide: bool,
    /// Of the last answer.
    pub(crate) snapshot_version: String,
}

impl Answers {
    /// Forgets what belongs to an earlier transaction: the session holds `recipients` accepted ones.
    pub(crate) fn keep(&mut self, recipients: usize) {
        if recipients == 0 {
            self.accepted.clear();
            self.decide = false;
        } else {
            self.accepted.truncate(recipients);
        }
    }
}

/// Groups the destinations of a message into variants: one for each envelope sender, over one header section.
///
/// Destinations that are the same in all but the recipient they come from are delivered once.
pub(crate) fn variants<'a>(
    transaction: &Transaction,
    accepted: impl Iterator<Item = (&'a RcptTo, &'a Accepted)>,
    header: &Bytes,
) -> Vec<Variant> {
    let mut variants: Vec<Variant> = Vec::new();
    let mut seen = HashSet::new();
    let sender = transaction.sender.sender.as_ref().map(ToString::to_string).unwrap_or_default();
    for (rcpt, accepted) in accepted {
        for destination in &accepted.destinations {
            let sender = if destination.sender_rewritten { &destination.sender } else { &sender };
            if !seen.insert((sender.clone(), &destination.address, &destination.transport, &destination.route)) {
                continue;
            }
            let recipient = recipient(rcpt, destination);
            match variants.iter_mut().find(|variant| variant.sender == *sender) {
                Some(variant) => variant.recipients.push(recipient),
                None => variants.push(Variant {
                    header: header.clone(),
                    sender: sender.clone(),
                    envid: transaction.sender.envid.clone().unwrap_or_default(),
                    dsn_return: wire::dsn_return(transaction.sender.ret).into(),
                    recipients: vec![recipient],
                }),
            }
        }
    }
    variants
}

fn recipient(rcpt: &RcptTo, destination: &Destination) -> Recipient {
    Recipient {
        address: destination.address.clone(),
        original: rcpt.orcpt.clone().unwrap_or_default(),
        notify: rcpt.notify.map_or(0, |notify| notify.bits().into()),
        transport: destination.transport.clone(),
        route: destination.route.clone(),
        delivered_to: destination.delivered_to.clone(),
    }
}

#[cfg(test)]
mod tests {
    use smtp::server::{MailFrom, Notify};
    use types::Address;

    use super::*;

    fn rcpt(address: &str) -> RcptTo {
        RcptTo {
            recipient: smtp::server::Recipient::Address(Address::parse(address).unwrap()),
            orcpt: Some(format!("rfc822;{address}")),
            notify: Some(Notify::FAILURE),
        }
    }

    fn destination(address: &str, sender: Option<&str>) -> Destination {
        Destination {
            address: address.to_owned(),
            transport: "lmtp".to_owned(),
            route: "lmtp".to_owned(),
            delivered_to: address.to_owned(),
            sender: sender.unwrap_or_default().to_owned(),
            sender_rewritten: sender.is_some(),
        }
    }

    #[test]
    fn destinations_are_grouped_by_sender_and_delivered_once() {
        let sender =
            MailFrom { sender: Address::parse("s@a.org").ok(), envid: Some("e".to_owned()), ..MailFrom::default() };
        let recipients = vec![rcpt("one@a.org"), rcpt("two@a.org"), rcpt("three@a.org")];
        let transaction = Transaction { sender, recipients };
        let accepted = [
            vec![destination("box@a.org", None), destination("far@b.org", Some("s+1@a.org"))],
            vec![destination("box@a.org", None), destination("other@a.org", Some(""))],
            vec![destination("third@a.org", None)],
        ]
        .map(|destinations| Accepted { destinations, ..Accepted::default() });
        let header = Bytes::from_static(b"A: b\r\n");
        let variants = variants(&transaction, transaction.recipients.iter().zip(&accepted), &header);
        let found: Vec<(&str, Vec<&str>)> = variants
            .iter()
            .map(|v| (v.sender.as_str(), v.recipients.iter().map(|r| r.address.as_str()).collect()))
            .collect();
        assert_eq!(
            found,
            [
                ("s@a.org", vec!["box@a.org", "third@a.org"]),
                ("s+1@a.org", vec!["far@b.org"]),
                ("", vec!["other@a.org"])
            ]
        );
        assert!(variants.iter().all(|v| v.envid == "e" && v.header == header));
        assert_eq!(variants[0].recipients[0].original, "rfc822;one@a.org");
        assert_eq!(variants[0].recipients[0].notify, 4);
    }
}
