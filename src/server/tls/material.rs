//! From files to what a handshake needs: certificates by name, authorities of clients, versions, protocols, tickets.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use pingora::listeners::tls::{Acceptor, TlsSettings as Pingoras};
use rustls::crypto::ring::{Ticketer, default_provider, sign::any_supported_type};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;
use super::names::{self, Shown};
use crate::server::settings::{ClientAuth, TlsFiles, TlsSettings};
use crate::server::stamp::Stamp;

/// Sessions that are kept for TLS 1.2 clients without tickets.
const SESSIONS_MAX: usize = 4096;

/// Of each file.
pub type Stamps = Vec<Option<Stamp>>;

/// Of all files that the settings name.
pub fn stamps(settings: &TlsSettings) -> Stamps {
    let pairs = settings
        .certificates
        .iter()
        .flat_map(|files| [&files.certificate, &files.key]);
    let authorities = settings.client_auth.as_ref().map(|asked| &asked.ca);
    pairs.chain(authorities).map(|path| Stamp::of(path)).collect()
}

/// Reads the files.
pub fn acceptor(settings: &TlsSettings) -> Result<Acceptor, TlsError> {
    let wrong = |text: String| TlsError {
        key: "certificate".to_owned(),
        text,
    };
    let certificates: Arc<dyn ResolvesServerCert> = Arc::new(ByName::read(&settings.certificates)?);
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|e| wrong(e.to_string()))?;
    let builder = match &settings.client_auth {
        Some(asked) => builder.with_client_cert_verifier(verifier(asked)?),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::clone(&certificates));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = Ticketer::new().map_err(|e| wrong(e.to_string()))?;
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    let mut pingoras = Pingoras::with_callbacks(Box::new(Shown)).map_err(|e| wrong(e.to_string()))?;
    pingoras.set_cert_resolver(certificates);
    let mut acceptor = pingoras.build();
    // What it built itself has none of the above.
    acceptor.acceptor = Arc::new(config).into();
    Ok(acceptor)
}

fn verifier(asked: &ClientAuth) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let wrong = |text: String| TlsError {
        key: "client_auth.ca".to_owned(),
        text: format!("{}: {text}", asked.ca.display()),
    };
    let mut roots = RootCertStore::empty();
    for certificate in chain(&asked.ca, "client_auth.ca")? {
        roots.add(certificate).map_err(|e| wrong(e.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()));
    let builder = if asked.required {
        builder
    } else {
        builder.allow_unauthenticated()
    };
    builder
        .build()
        .map(|verifier| verifier as _)
        .map_err(|e| wrong(e.to_string()))
}

fn chain(path: &Path, key: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |text: String| TlsError {
        key: key.to_owned(),
        text: format!("{}: {text}", path.display()),
    };
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| wrong(format!("{e}: write the path of a PEM file")))?;
    if chain.is_empty() {
        return Err(wrong(
            "holds no certificate: write the path of a PEM file that does".to_owned(),
        ));
    }
    Ok(chain)
}

/// The certificates of a listener.
#[derive(Debug)]
struct ByName {
    /// For clients that name nobody, or nobody known.
    first: Arc<CertifiedKey>,
    /// In lower case; `*.example.com` for one label before it.
    named: HashMap<String, Arc<CertifiedKey>>,
}

impl ByName {
    fn read(files: &[TlsFiles]) -> Result<Self, TlsError> {
        let mut first = None;
        let mut named = HashMap::new();
        for (n, files) in files.iter().enumerate() {
            // Those after the first one are a list of their own.
            let place = n
                .checked_sub(1)
                .map_or_else(String::new, |n| format!("certificates[{n}]."));
            let pair = Arc::new(pair(files, &place)?);
            for name in names::of_server(&pair.cert[0]) {
                named.entry(name).or_insert_with(|| Arc::clone(&pair));
            }
            first.get_or_insert(pair);
        }
        let none = || TlsError {
            key: "certificate".to_owned(),
            text: "there is none: write the path of a PEM file".to_owned(),
        };
        let first = first.ok_or_else(none)?;
        Ok(Self { first, named })
    }

    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        let wild = || {
            let (_, parent) = name.split_once('.')?;
            self.named.get(&format!("*.{parent}"))
        };
        self.named.get(&name).or_else(wild)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| self.find(name));
        Some(Arc::clone(named.unwrap_or(&self.first)))
    }
}

fn pair(files: &TlsFiles, place: &str) -> Result<CertifiedKey, TlsError> {
    let path = files.key.display();
    let wrong = |key: &str, text: String| TlsError {
        key: format!("{place}{key}"),
        text,
    };
    let chain = chain(&files.certificate, &format!("{place}certificate"))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|e| wrong("key", format!("{path}: {e}: write the path of a PEM file")))?;
    let signing = any_supported_type(&key).map_err(|e| wrong("key", format!("{path}: {e}")))?;
    let pair = CertifiedKey::new(chain, signing);
    pair.keys_match().map_err(|e| {
        let certificate = files.certificate.display();
        wrong("key", format!("{certificate} and {path} do not belong together: {e}"))
    })?;
    Ok(pair)
}
