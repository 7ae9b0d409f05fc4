//! TLS in front of a server that speaks none.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// It ends with the test's process.
pub(crate) struct TlsFront {
    /// Where lines connect.
    pub(crate) address: SocketAddr,
    /// Its certificate.
    pub(crate) certificate_pem: String,
}

/// How long one side is listened to before it is the other one's turn.
const TURN: Duration = Duration::from_millis(2);

impl TlsFront {
    /// Starts it before the server at this address.
    pub(crate) fn start(behind: SocketAddr) -> io::Result<Self> {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let config = builder
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key);
        let config = Arc::new(config.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            for outside in listener.incoming().flatten() {
                let connection = ServerConnection::new(config.clone()).unwrap();
                thread::spawn(move || carry(StreamOwned::new(connection, outside), behind));
            }
        });
        Ok(Self {
            address,
            certificate_pem: made.cert.pem(),
        })
    }
}

/// Carries bytes both ways until one side is done.
fn carry(mut outside: StreamOwned<ServerConnection, TcpStream>, behind: SocketAddr) {
    let mut inside = TcpStream::connect(behind).unwrap();
    // The handshake first, in one go.
    if outside.flush().is_err() {
        return;
    }
    for socket in [&outside.sock, &inside] {
        socket.set_read_timeout(Some(TURN)).unwrap();
    }
    while pass(&mut outside, &mut inside) && pass(&mut inside, &mut outside) {}
}

/// Passes on what is there; whether there may be more.
fn pass(from: &mut impl Read, to: &mut impl Write) -> bool {
    let mut bytes = [0; 4096];
    match from.read(&mut bytes) {
        Ok(0) => false,
        Ok(count) => to
            .write_all(&bytes[..count])
            .and_then(|()| to.flush())
            .is_ok(),
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}
