//! Opening a line's connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::Interest;
use mio::net::TcpStream;
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{Domain, Socket, Type};

use crate::line::{Failure, Upgrade};
use crate::name::LineId;
use crate::swarm::thread::SwarmThread;
use crate::transport::Transport;

impl SwarmThread {
    /// Connects and sends the request at once where the connection stands at once, as it does on loopback. `start` counts
    /// the line's starts.
    pub(super) fn connect(
        &self,
        id: LineId,
        start: u16,
        intended: Duration,
    ) -> Result<Upgrade, Failure> {
        let target = self.order.target(id.0);
        let stream = self
            .socket(id, start, self.plan.targets[target].address)
            .map_err(|e| Failure::socket(&e))?;
        let request = |out: &mut Vec<u8>, key: &str| {
            self.plan
                .dialect
                .write_upgrade(out, &self.plan.targets[target].authority, id, key);
        };
        let tls = self.plan.tls.as_ref().map(|tls| tls.open(id, target));
        let tls = tls
            .transpose()
            .map_err(|e| Failure::Protocol(e.to_string()))?;
        let mut upgrade = Upgrade::new(Transport::new(stream, tls), request, intended);
        let is_sent = upgrade.flush()?;
        let interest = if is_sent {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        };
        let registered = self
            .poll
            .registry()
            .register(upgrade.source(), self.token(id), interest);
        registered.map_err(|e| Failure::socket(&e))?;
        Ok(upgrade)
    }

    fn socket(&self, id: LineId, start: u16, target: SocketAddr) -> io::Result<TcpStream> {
        let socket = Socket::new(
            Domain::for_address(target),
            Type::STREAM.nonblocking(),
            None,
        )?;
        if let Some(bytes) = self.plan.habit.segment_bytes {
            socket.set_tcp_mss(bytes)?;
        }
        let names = &self.plan.dialect.names;
        if let Some(source) = self.plan.sources.of(names, id, start) {
            // The port is chosen at connect, so that it is only taken for this pair of addresses.
            setsockopt(&socket, IpBindAddressNoPort, &true)?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&target.into()) {
            Err(error) if error.raw_os_error() != Some(nix::errno::Errno::EINPROGRESS as i32) => {
                Err(error)
            }
            Ok(()) | Err(_) => Ok(TcpStream::from_std(socket.into())),
        }
    }
}
