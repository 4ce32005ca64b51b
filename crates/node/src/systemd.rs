//! sd_notify(3): one datagram to the socket that the service manager names.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// What the service manager is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Mail is taken.
    Ready,
    /// A new configuration is being read.
    Reloading,
    /// The process is about to end.
    Stopping,
}

/// Tells the service manager, where there is one. That it cannot be told changes nothing.
pub fn tell(state: State) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&socket, &message(state)) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

fn message(state: State) -> String {
    match state {
        State::Ready => "READY=1\nSTATUS=takes mail".to_owned(),
        // systemd takes RELOADING=1 with the monotonic clock's time only.
        State::Reloading => {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
            format!("RELOADING=1\nMONOTONIC_USEC={micros}")
        }
        State::Stopping => "STOPPING=1\nSTATUS=finishes what is in flight".to_owned(),
    }
}

fn send(socket: &std::ffi::OsStr, message: &str) -> std::io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsString::from_vec(path.to_vec()))?,
    };
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_manager_reads_what_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let mut buffer = [0; 256];
        for (state, begins) in [
            (State::Ready, "READY=1\n"),
            (State::Reloading, "RELOADING=1\nMONOTONIC_USEC="),
            (State::Stopping, "STOPPING=1\n"),
        ] {
            send(path.as_os_str(), &message(state)).unwrap();
            let length = manager.recv(&mut buffer).unwrap();
            let text = std::str::from_utf8(&buffer[..length]).unwrap();
            assert!(text.starts_with(begins), "{text}");
        }
    }

    #[test]
    fn a_socket_without_a_file_is_reached_too() {
        let name = format!("posthouse-test-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send(std::ffi::OsStr::new(&format!("@{name}")), "READY=1").unwrap();
        let mut buffer = [0; 16];
        assert_eq!(manager.recv(&mut buffer).unwrap(), 7);
    }
}
