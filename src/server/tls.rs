//! Certificates of TLS listeners, read again when the files change.

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use log::{error, info};
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::settings::TlsFiles;
use super::stamp::{LOOK_EACH, Stamp};
use crate::telemetry::targets;

/// The certificate of one listener.
#[derive(Debug)]
pub struct Certificate {
    files: TlsFiles,
    /// Of the files as they were read at first.
    loaded: Stamps,
    current: ArcSwap<CertifiedKey>,
}

type Stamps = [Option<Stamp>; 2];

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// A text that names the file and what is wrong with it.
    pub fn load(files: &TlsFiles) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Self {
            // Before the files are read, so that no change after that is missed.
            loaded: stamps(files),
            current: ArcSwap::from_pointee(read(files)?),
            files: files.clone(),
        }))
    }

    fn reload(&self) {
        match read(&self.files) {
            Ok(key) => {
                self.current.store(Arc::new(key));
                info!(target: targets::SERVER, "certificate {} read again", self.files.certificate.display());
            }
            Err(e) => error!(target: targets::SERVER, "{e}; the certificate from before stays in use"),
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn stamps(files: &TlsFiles) -> Stamps {
    [&files.certificate, &files.key].map(|path| Stamp::of(path))
}

fn read(files: &TlsFiles) -> Result<CertifiedKey, String> {
    let certificate = files.certificate.display();
    let key_path = files.key.display();
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| format!("{certificate}: {e}: write the path of a PEM file"))?;
    if chain.is_empty() {
        return Err(format!("{certificate}: holds no certificate"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|e| format!("{key_path}: {e}: write the path of a PEM file"))?;
    let signing = any_supported_type(&key).map_err(|e| format!("{key_path}: {e}"))?;
    let pair = CertifiedKey::new(chain, signing);
    pair.keys_match()
        .map_err(|e| format!("{certificate} and {key_path} do not belong together: {e}"))?;
    Ok(pair)
}

/// Looks after the certificates of all listeners.
pub struct Renewal(pub Vec<Arc<Certificate>>);

#[async_trait]
impl BackgroundService for Renewal {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut seen: Vec<_> = self.0.iter().map(|c| c.loaded).collect();
        let mut turn = tokio::time::interval(LOOK_EACH);
        loop {
            tokio::select! {
                _ = shutdown.wait_for(|over| *over) => return,
                _ = turn.tick() => {}
            }
            for (certificate, before) in self.0.iter().zip(&mut seen) {
                let now = stamps(&certificate.files);
                if now != *before {
                    *before = now;
                    certificate.reload();
                }
            }
        }
    }
}
