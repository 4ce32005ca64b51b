//! Addresses that a host found by MX must not have: networks that the transport refuses, and our own.

use std::net::{IpAddr, UdpSocket};

use ipnet::IpNet;
use resources::snapshot::{Endpoint, Snapshot};

use crate::job::AttemptResult;

/// Whether an address may be connected to.
#[derive(Debug)]
pub(crate) enum Ours {
    Connect,
    Refuse(AttemptResult),
}

/// Judges an address of a host that was found by MX.
pub(crate) fn judge(address: IpAddr, port: u16, refuse: &[IpNet], snapshot: &Snapshot) -> Ours {
    // ::ffff:127.0.0.1 is 127.0.0.1.
    let address = address.to_canonical();
    let refused = address.is_unspecified() || refuse.iter().any(|network| network.contains(&address));
    if refused && (address.is_loopback() || address.is_unspecified()) {
        // As good as a Null MX: there is nothing to reach under such a name (RFC 7505 section 1).
        return Ours::Refuse(AttemptResult::failed(1, 10, format!("{address} takes no mail: it is no public address")));
    }
    if refused {
        return Ours::Refuse(AttemptResult::failed(
            4,
            4,
            format!("{address} is in a network that is not delivered to"),
        ));
    }
    if is_us(address, port, snapshot) {
        return Ours::Refuse(loops_back());
    }
    Ours::Connect
}

/// The mail host is us, and we do not think that the mail is ours: it would come back for ever (RFC 5321 section 5.1).
pub(crate) fn loops_back() -> AttemptResult {
    AttemptResult::failed(4, 6, "the mail host of the domain is this host, which does not take its mail")
}

fn is_us(address: IpAddr, port: u16, snapshot: &Snapshot) -> bool {
    if address.is_loopback() {
        return listens(port, snapshot);
    }
    // An address that can be bound is one of this host. Nothing is sent.
    UdpSocket::bind((address, 0)).is_ok()
}

fn listens(port: u16, snapshot: &Snapshot) -> bool {
    snapshot
        .listeners
        .values()
        .any(|listener| matches!(&listener.endpoint, Endpoint::Tcp { port: ours, .. } if *ours == port))
}
