//! Listening sockets: SO_REUSEPORT for one per reactor, and options that accepted sockets inherit.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpListener;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// A listening socket, as a poll watches it.
pub type Listener = TcpListener;

/// What a listening socket is made with.
#[derive(Clone, Copy, Debug)]
pub struct ListenerOptions {
    /// Connections the kernel may queue; capped by `net.core.somaxconn`.
    pub backlog: i32,
    /// TCP_USER_TIMEOUT: how long sent data may stay unacknowledged before the kernel gives the connection up.
    pub user_timeout: Duration,
}

/// Opens a listener that shares its port with the other reactors of this process.
///
/// Linux hands TCP_NODELAY and TCP_USER_TIMEOUT down to accepted sockets, which saves a system call each
/// per connection.
///
/// # Errors
/// Whatever `socket`, `setsockopt`, `bind` or `listen` say.
pub fn bind(addr: SocketAddr, options: ListenerOptions) -> io::Result<Listener> {
    let socket = socket_for(addr)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(options.user_timeout))?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(options.backlog)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Lets the kernel queue no more than one connection for a listener that is about to close. Connects beyond it are not
/// refused: their far ends try again, as after a lost packet.
///
/// # Errors
/// Whatever `listen` says.
pub fn narrow(listener: &Listener) -> io::Result<()> {
    SockRef::from(listener).listen(0)
}

/// Whether the kernel hands the queue of a listener that closes to others of its port.
pub fn queues_migrate() -> bool {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_migrate_req");
    text.is_ok_and(|text| text.trim() == "1")
}

/// Fails if another process listens on the address already.
///
/// SO_REUSEPORT would let a second process of the same user bind and take half of the connections; a plain bind does
/// not. SO_REUSEADDR keeps connections in TIME_WAIT from being mistaken for a listener.
///
/// # Errors
/// `AddrInUse` when somebody listens there; whatever else `bind` says.
pub fn probe(addr: SocketAddr) -> io::Result<()> {
    let socket = socket_for(addr)?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())
}

/// A socket for the families that an address stands for, whatever the system's default (`net.ipv6.bindv6only`): `[::]`
/// takes IPv4 as well, as its users expect, and `[::ffff:127.0.0.1]` is an IPv4 address.
fn socket_for(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        let takes_ipv4 = addr.ip().is_unspecified() || addr.ip().to_canonical().is_ipv4();
        socket.set_only_v6(!takes_ipv4)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: ListenerOptions = ListenerOptions {
        backlog: 16,
        user_timeout: Duration::from_secs(20),
    };

    #[test]
    fn two_reactors_share_a_port_and_a_probe_sees_them() {
        let first = bind(([127, 0, 0, 1], 0).into(), OPTIONS).unwrap();
        let addr = first.local_addr().unwrap();
        let _second = bind(addr, OPTIONS).unwrap();
        assert_eq!(probe(addr).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_narrowed_listener_gives_up_what_it_has_and_takes_one_more_at_most() {
        let listener = bind(([127, 0, 0, 1], 0).into(), OPTIONS).unwrap();
        let addr = listener.local_addr().unwrap();
        let connect = || {
            let patience = Duration::from_millis(200);
            std::net::TcpStream::connect_timeout(&addr, patience)
        };
        let queued: Vec<_> = (0..5).map(|_| connect().unwrap()).collect();
        narrow(&listener).unwrap();
        assert!(queued.iter().all(|_| listener.accept().is_ok()));
        let late: Vec<_> = (0..3).map(|_| connect()).collect();
        assert!(late.iter().filter(|connected| connected.is_ok()).count() <= 1);
    }

    #[test]
    fn an_ipv6_listener_takes_the_families_its_address_stands_for() {
        for (addr, expected) in [
            ("[::1]:0", false),
            ("[::]:0", true),
            ("[::ffff:127.0.0.1]:0", true),
        ] {
            // Not every machine has IPv6.
            let Ok(listener) = bind(addr.parse().unwrap(), OPTIONS) else {
                continue;
            };
            let port = listener.local_addr().unwrap().port();
            let connected = std::net::TcpStream::connect(("127.0.0.1", port));
            assert_eq!(connected.is_ok(), expected, "{addr}");
        }
    }

    #[test]
    fn a_probe_leaves_the_port_free() {
        let addr = bind(([127, 0, 0, 1], 0).into(), OPTIONS)
            .unwrap()
            .local_addr()
            .unwrap();
        probe(addr).unwrap();
        bind(addr, OPTIONS).unwrap();
    }
}
