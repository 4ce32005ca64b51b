use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use resources::snapshot::Identity;
use smtp::proxy::ProxyStep;
use tokio::time::timeout;

use crate::passwd::user_name;
use crate::socket::Connected;
use crate::stream::{Plain, Socket, Stream};
use crate::terms::Terms;

/// Who is at the other end.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// `None`: a user of this machine.
    pub(crate) address: Option<IpAddr>,
    /// `false`: `address` is the one of some load balancer (invariant 8).
    pub(crate) address_known: bool,
    /// Login name of a Unix-socket peer.
    pub(crate) local_user: String,
}

impl Client {
    /// For people: the address, or `local`.
    pub(crate) fn label(&self) -> String {
        self.address.map_or_else(|| "local".to_owned(), |address| address.to_string())
    }
}

/// A connection whose client is known.
pub(crate) struct Identified {
    pub(crate) client: Client,
    pub(crate) stream: Stream,
    /// The peer may not send a PROXY header: whatever starts like one closes the connection.
    pub(crate) header_forbidden: bool,
}

/// Why a connection is closed before a word was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProxyRefusal {
    /// A listed peer sent none in time.
    Missing,
    /// A listed peer sent something else.
    Malformed,
    /// An unlisted peer sent one.
    Unlisted,
    /// The connection ended within it.
    Closed,
}

impl ProxyRefusal {
    /// As a label.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Unlisted => "unlisted",
            Self::Closed => "closed",
        }
    }
}

/// Learns who the client is, as the listener declares it.
pub(crate) async fn identify(socket: Socket, peer: Connected, terms: &Terms) -> Result<Identified, ProxyRefusal> {
    let plain = |socket, early| Stream::Plain(Plain::new(socket, early));
    let peer = match peer {
        Connected::Tcp(peer) => peer,
        Connected::Unix(uid) => {
            let local_user = match uid {
                Some(uid) => user_name(uid).await,
                None => "unknown".to_owned(),
            };
            let client = Client { address: None, address_known: false, local_user };
            return Ok(Identified { client, stream: plain(socket, Bytes::new()), header_forbidden: false });
        }
    };
    let direct = Client { address: Some(peer.ip()), address_known: terms.knows_addresses(), local_user: String::new() };
    let Identity::Proxy(listed) = &terms.listener.identity else {
        return Ok(Identified { client: direct, stream: plain(socket, Bytes::new()), header_forbidden: true });
    };
    if !listed.iter().any(|network| network.contains(&peer.ip())) {
        return Ok(Identified { client: direct, stream: plain(socket, Bytes::new()), header_forbidden: true });
    }
    let mut stream = plain(socket, Bytes::new());
    let (source, rest) = read_header(&mut stream, terms.listener.limits.proxy_timeout).await?;
    let client = match source {
        Some(source) => Client { address: Some(source.ip().to_canonical()), address_known: true, ..direct },
        // The proxy speaks for itself, or does not know: nobody may be trusted by the proxy's own address.
        None => Client { address_known: false, ..direct },
    };
    let stream = match stream {
        // A TLS client's first bytes may have come with the header.
        Stream::Plain(socket) => Stream::Plain(socket.with_early(rest)),
        other => other,
    };
    Ok(Identified { client, stream, header_forbidden: false })
}

async fn read_header(stream: &mut Stream, wait: Duration) -> Result<(Option<SocketAddr>, Bytes), ProxyRefusal> {
    let mut input = BytesMut::new();
    let read = async {
        loop {
            match stream.read_some(&mut input, 0).await {
                Ok(0) | Err(_) => return Err(ProxyRefusal::Closed),
                Ok(_) => {}
            }
            match smtp::proxy::parse(&input) {
                ProxyStep::Incomplete => {}
                ProxyStep::Header { length, source, .. } => return Ok((length, source)),
                ProxyStep::Malformed => return Err(ProxyRefusal::Malformed),
            }
        }
    };
    let (length, source) = timeout(wait, read).await.map_err(|_| ProxyRefusal::Missing)??;
    input.advance(length);
    Ok((source, input.freeze()))
}

/// What the first bytes of a peer that may not send a PROXY header are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// A header.
    Header,
    /// More is needed to tell.
    Open,
    /// Anything else.
    Mail,
}

/// Looks at the first bytes of a peer that may not send a PROXY header.
pub(crate) fn beginning(input: &[u8]) -> Beginning {
    if smtp::proxy::starts_like_header(input) {
        return Beginning::Header;
    }
    let starts: [&[u8]; 2] = [b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"];
    if starts.iter().any(|start| start.starts_with(input)) { Beginning::Open } else { Beginning::Mail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_told_from_mail_by_its_first_bytes() {
        for (input, expected) in [
            ("PROXY TCP4 ", Beginning::Header),
            ("\r\n\r\n\0\r\nQUIT\n", Beginning::Header),
            ("PRO", Beginning::Open),
            ("\r\n", Beginning::Open),
            ("", Beginning::Open),
            ("EHLO x\r\n", Beginning::Mail),
            ("\r\nEHLO x\r\n", Beginning::Mail),
            ("PRIVET\r\n", Beginning::Mail),
        ] {
            assert_eq!(beginning(input.as_bytes()), expected, "{input:?}");
        }
    }
}
