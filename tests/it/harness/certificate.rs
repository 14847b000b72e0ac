//! A certificate authority of one test, and a server certificate by it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const NAME: &str = "edge.test";
static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// A server certificate for `edge.test` in files, and who trusts it.
pub struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    roots: RootCertStore,
}

impl Certificate {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("authority");
        let key = KeyPair::generate().expect("key");
        let params = CertificateParams::new(vec![NAME.to_owned()]).expect("params");
        let server = params.signed_by(&key, &authority).expect("certificate");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = |kind: &str, text: String| {
            let path = std::env::temp_dir().join(format!("switchyard-it-{}-{number}.{kind}", std::process::id()));
            std::fs::write(&path, text).expect("file");
            path
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).expect("root");
        Self {
            chain: file("pem", server.pem()),
            key: file("key", key.serialize_pem()),
            roots,
        }
    }

    /// A listener that shows it.
    pub fn listener(&self) -> String {
        format!(
            "{{ address: \"127.0.0.1:0\", tls: {{ certificate: {}, key: {} }} }}",
            self.chain.display(),
            self.key.display()
        )
    }

    /// A client's connection that has shaken hands, with the protocols offered in order.
    pub async fn connect(&self, address: &str, protocols: &[&str]) -> TlsStream<TcpStream> {
        let mut config = ClientConfig::builder()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        let socket = TcpStream::connect(address).await.expect("connect");
        let name = ServerName::try_from(NAME).expect("name");
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, socket).await.expect("handshake")
    }
}
