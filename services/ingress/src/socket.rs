use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::stream::Socket;

/// Connections that the kernel keeps until they are accepted: a burst of clients must not lose SYNs.
const BACKLOG: i32 = 4096;

/// What is asked for: one socket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Tcp {
        address: SocketAddr,
        v6_only: bool,
    },
    Unix {
        path: PathBuf,
        /// Who may connect.
        mode: u32,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { address, .. } => address.fmt(f),
            Self::Unix { path, .. } => path.display().fmt(f),
        }
    }
}

/// An open listening socket.
pub(crate) enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener, UnixPath),
}

/// The file of a Unix socket: removed when the socket closes.
pub(crate) struct UnixPath(PathBuf);

impl Drop for UnixPath {
    fn drop(&mut self) {
        // Somebody else may have removed it: nothing is lost.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Who connected.
pub(crate) enum Connected {
    Tcp(SocketAddr),
    /// The uid, where the kernel tells.
    Unix(Option<u32>),
}

impl Listening {
    /// Opens a socket.
    pub(crate) fn open(place: &Place) -> io::Result<Self> {
        match place {
            Place::Tcp { address, v6_only } => match open_tcp(*address, *v6_only) {
                // A kernel without IPv6 still serves the IPv4 half of a dual-stack socket.
                Err(error) if is_without_ipv6(&error) && address.ip().is_unspecified() && !v6_only => {
                    tracing::warn!(%address, "no IPv6 here, listening on IPv4 only");
                    open_tcp(SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), address.port()), false)
                }
                opened => opened,
            }
            .map(Self::Tcp),
            Place::Unix { path, mode } => {
                open_unix(path, *mode).map(|listener| Self::Unix(listener, UnixPath(path.clone())))
            }
        }
    }

    /// Where it is bound, for people and tests: the port is the real one.
    pub(crate) fn bound(&self) -> io::Result<String> {
        match self {
            Self::Tcp(listener) => Ok(listener.local_addr()?.to_string()),
            Self::Unix(_, path) => Ok(path.0.display().to_string()),
        }
    }

    /// Waits for the next connection.
    pub(crate) async fn accept(&self) -> io::Result<(Socket, Connected)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // On a dual-stack socket IPv4 peers have IPv6 notation.
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                Ok((Socket::Tcp(stream), Connected::Tcp(peer)))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
                Ok((Socket::Unix(stream), Connected::Unix(uid)))
            }
        }
    }
}

fn open_tcp(address: SocketAddr, v6_only: bool) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(v6_only)?;
    }
    // Linux hands it on to every accepted connection: replies leave at once, and no system call is spent on it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

fn is_without_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

fn open_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    remove_stale(path)?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket.into())
}

/// Removes the file of a socket that nobody serves any more.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        // Nothing is there, or binding will say what is wrong.
        Err(_) => Ok(()),
    }
}

/// What a person can do about a socket that does not open.
pub(crate) fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "give the process CAP_NET_BIND_SERVICE (deploy/systemd/posthouse.service does), or choose a port from 1024 on"
        }
        io::ErrorKind::AddrInUse => "end what listens there (ss -ltnp shows it), or choose another port",
        io::ErrorKind::AddrNotAvailable => {
            "no interface has this address (ip address shows them): correct the listener"
        }
        io::ErrorKind::InvalidInput => "the path is too long for a Unix socket: choose a shorter one",
        _ => "correct the listener's address",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn accepted_connections_send_without_delay() {
        let place = Place::Tcp { address: "127.0.0.1:0".parse().unwrap(), v6_only: false };
        let listening = Listening::open(&place).unwrap();
        let _client = tokio::net::TcpStream::connect(listening.bound().unwrap()).await.unwrap();
        let (Socket::Tcp(stream), Connected::Tcp(peer)) = listening.accept().await.unwrap() else { unreachable!() };
        assert!(stream.nodelay().unwrap());
        assert!(peer.ip().is_loopback());
    }

    #[tokio::test]
    async fn a_dual_stack_socket_sees_ipv4_peers_by_their_ipv4_address() {
        let place = Place::Tcp { address: "[::]:0".parse().unwrap(), v6_only: false };
        let listening = Listening::open(&place).unwrap();
        let port = listening.bound().unwrap().rsplit(':').next().unwrap().to_owned();
        let _client = tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
        let (_, Connected::Tcp(peer)) = listening.accept().await.unwrap() else { unreachable!() };
        assert!(peer.is_ipv4(), "{peer}");
    }

    #[tokio::test]
    async fn a_unix_socket_that_nobody_serves_is_replaced_and_a_served_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/s");
        let place = Place::Unix { path: path.clone(), mode: 0o666 };
        std::fs::create_dir(dir.path().join("run")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = Listening::open(&place).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        assert!(Listening::open(&place).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse));
        let _client = tokio::net::UnixStream::connect(&path).await.unwrap();
        let (_, Connected::Unix(uid)) = first.accept().await.unwrap() else { unreachable!() };
        assert_eq!(uid, Some(rustix::process::getuid().as_raw()));
        drop(first);
        assert!(!path.exists());
    }
}
