//! An authority for certificates, and the far ends that know it.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_RSA_SHA256, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use crate::device::Device;
use crate::line::connect;
use crate::node::Setup;

/// A connection with TLS.
pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// Certifies nodes and devices, for one test.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: rcgen::Certificate,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            root,
        }
    }

    /// Its own certificate, as PEM.
    pub(crate) fn pem(&self) -> String {
        self.root.pem()
    }

    /// A certificate for these names, and its key, as PEM.
    pub(crate) fn certify(&self, common_name: &str, names: &[SanType], key: &KeyPair) -> String {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.subject_alt_names = names.to_vec();
        params.signed_by(key, &self.issuer).unwrap().pem()
    }

    /// Writes the certificate and key of a node called `test`.
    pub(crate) fn write_pair(&self, setup: &Setup, key: &KeyPair) {
        let names = [dns("test"), SanType::IpAddress([127, 0, 0, 1].into())];
        setup.file("node.pem", self.certify("test", &names, key));
        setup.file("node.key", key.serialize_pem());
    }

    /// The settings for a listener with the pair written before.
    pub(crate) fn settings(setup: &Setup, section: &str) -> [String; 2] {
        let file = |name: &str| setup.dir().join(name).display().to_string();
        [
            format!("{section}.certificate_file={}", file("node.pem")),
            format!("{section}.private_key_file={}", file("node.key")),
        ]
    }

    /// A node whose devices' listener speaks TLS.
    pub(crate) fn setup(&self, settings: &[&str]) -> Setup {
        let mut setup = Setup::new(settings);
        self.write_pair(&setup, &KeyPair::generate().unwrap());
        for setting in Self::settings(&setup, "devices_tls") {
            setup = setup.set(&setting);
        }
        setup
    }

    /// A far end that knows this authority.
    pub(crate) fn far(&self) -> ClientConfig {
        self.far_with(rustls::ALL_VERSIONS)
    }

    /// One that speaks only these versions.
    pub(crate) fn far_with(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        self.builder(versions).with_no_client_auth()
    }

    /// One that shows a certificate with these names.
    pub(crate) fn far_as(&self, common_name: &str, names: &[SanType]) -> ClientConfig {
        use rustls::pki_types::pem::PemObject;
        let key = KeyPair::generate().unwrap();
        let pem = self.certify(common_name, names, &key);
        let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        self.builder(rustls::ALL_VERSIONS)
            .with_client_auth_cert(chain, key)
            .unwrap()
    }

    fn builder(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.der().clone()).unwrap();
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        ClientConfig::builder_with_provider(crypto)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
    }
}

/// A name in a certificate.
pub(crate) fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

/// An RSA key.
pub(crate) fn rsa() -> KeyPair {
    KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap()
}

/// A connection on which hands are not shaken yet.
pub(crate) fn secure(socket: TcpStream, far: &Arc<ClientConfig>) -> TlsStream {
    let name = ServerName::try_from("test").unwrap();
    StreamOwned::new(
        ClientConnection::new(Arc::clone(far), name).unwrap(),
        socket,
    )
}

/// A connection with TLS, or why there is none.
pub(crate) fn shake_hands(addr: SocketAddr, far: &Arc<ClientConfig>) -> std::io::Result<TlsStream> {
    let mut stream = secure(connect(addr, None), far);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// A device over TLS, in `dev` mode, that has been welcomed.
pub(crate) fn welcome(
    addr: SocketAddr,
    far: &Arc<ClientConfig>,
    device_id: &str,
) -> Device<TlsStream> {
    let path = format!("/ws?device_id={device_id}");
    let mut device = Device::over(shake_hands(addr, far).unwrap(), &path, &[]).expect("upgraded");
    device.await_welcome();
    device
}

/// A file that another test step replaces.
pub(crate) fn replace(path: &PathBuf, content: &str) {
    // As tools do that renew certificates: never half a file.
    let new = path.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::rename(new, path).unwrap();
}
