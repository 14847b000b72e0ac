//! Certificate authorities of a test's own, what they sign, and origins that speak TLS.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::harness::{PATIENCE, read_head};

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// Signs certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Its own certificate.
    pub file: PathBuf,
}

/// A certificate and its key, in files.
pub struct Signed {
    pub chain: PathBuf,
    pub key: PathBuf,
}

fn file(kind: &str, text: &str) -> PathBuf {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("switchyard-it-{}-signed-{number}.{kind}", std::process::id()));
    std::fs::write(&path, text).expect("file");
    path
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        params
            .distinguished_name
            .push(DnType::CommonName, format!("authority {number}"));
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("authority");
        Self {
            file: file("ca", &issuer.pem()),
            issuer,
        }
    }

    /// A certificate for a name.
    pub fn sign(&self, name: &str) -> Signed {
        let key = KeyPair::generate().expect("key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("params");
        let signed = params.signed_by(&key, &self.issuer).expect("certificate");
        Signed {
            chain: file("pem", &signed.pem()),
            key: file("key", &key.serialize_pem()),
        }
    }

    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("root");
        roots
    }

    /// A connection of a client that trusts this authority, wants `name`, and has shaken hands or failed to.
    pub fn connect(
        &self,
        address: &str,
        name: &str,
        protocols: &[&str],
    ) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
        self.over(TcpStream::connect(address)?, name, protocols)
    }

    /// The same, on a connection that is there.
    pub fn over(
        &self,
        mut socket: TcpStream,
        name: &str,
        protocols: &[&str],
    ) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let mut config = ClientConfig::builder()
            .with_root_certificates(self.roots())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut connection = ClientConnection::new(Arc::new(config), name).map_err(std::io::Error::other)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(StreamOwned::new(connection, socket))
    }

    /// What a server needs to show `signed`; with `demand`, it wants certificates of that authority from clients.
    pub fn server(signed: &Signed, protocols: &[&str], demand: Option<&Authority>) -> Arc<ServerConfig> {
        let builder = match demand {
            Some(authority) => {
                let verifier = WebPkiClientVerifier::builder(Arc::new(authority.roots())).build();
                ServerConfig::builder().with_client_cert_verifier(verifier.expect("a verifier"))
            }
            None => ServerConfig::builder().with_no_client_auth(),
        };
        let chain = CertificateDer::pem_file_iter(&signed.chain).expect("a file");
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
        let key = PrivateKeyDer::from_pem_file(&signed.key).expect("a key");
        let mut config = builder.with_single_cert(chain, key).expect("a pair");
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// An HTTP/1.1 origin over TLS that answers every request with `ok`.
pub struct TlsOrigin {
    pub address: String,
    /// Connections whose handshake was completed, each with the protocol that was agreed on.
    pub agreed: Arc<Mutex<Vec<String>>>,
}

impl TlsOrigin {
    pub fn spawn(config: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address").to_string();
        let agreed = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&agreed);
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let (config, seen) = (Arc::clone(&config), Arc::clone(&seen));
                thread::spawn(move || serve(config, socket, &seen));
            }
        });
        Self { address, agreed }
    }

    pub fn agreed(&self) -> Vec<String> {
        self.agreed.lock().expect("lock").clone()
    }
}

fn serve(config: Arc<ServerConfig>, mut socket: TcpStream, seen: &Mutex<Vec<String>>) {
    let mut connection = ServerConnection::new(config).expect("a connection");
    while connection.is_handshaking() {
        // A client that does not like what it is shown.
        if connection.complete_io(&mut socket).is_err() {
            return;
        }
    }
    let protocol = connection.alpn_protocol().unwrap_or_default();
    seen.lock()
        .expect("lock")
        .push(String::from_utf8_lossy(protocol).into_owned());
    let mut stream = StreamOwned::new(connection, socket);
    while read_head(&mut stream).is_some() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        if stream.write_all(text.as_bytes()).and_then(|()| stream.flush()).is_err() {
            return;
        }
    }
}
