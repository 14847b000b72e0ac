//! TLS to the endpoints of a pool: authorities and client certificates, read once at start.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pingora::protocols::tls::CaType;
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

use super::settings::UpstreamTls;

/// What every peer of a pool gets.
#[derive(Clone, Default)]
pub struct TlsMaterial {
    pub authorities: Option<Arc<CaType>>,
    pub client: Option<Arc<CertKey>>,
}

/// A file that cannot be used.
#[derive(Debug, Error)]
pub enum TlsFileError {
    /// Not readable, or not PEM.
    #[error("{path}: {cause}: write the path of a PEM file")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the PEM reader said.
        cause: String,
    },
    /// Readable, but without what is looked for.
    #[error("{path}: holds no {what}: write the path of a PEM file that does")]
    Empty {
        /// The file.
        path: PathBuf,
        /// `certificate` or `private key`.
        what: &'static str,
    },
}

impl TlsMaterial {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// On the first file that cannot be used.
    pub fn load(settings: &UpstreamTls) -> Result<Self, TlsFileError> {
        let authorities = match &settings.ca {
            Some(path) => {
                let list = certificates(path)?.into_iter();
                let parsed = list.map(|der| WrappedX509::new(der, parse_x509));
                Some(Arc::from(parsed.collect::<Vec<_>>()))
            }
            None => None,
        };
        let client = match &settings.client {
            Some(files) => Some(Arc::new(CertKey::new(
                certificates(&files.certificate)?,
                private_key(&files.key)?,
            ))),
            None => None,
        };
        Ok(Self { authorities, client })
    }
}

/// Reads all files that the settings name.
///
/// # Errors
/// The key below `tls`, and what is wrong with its file.
pub fn check(settings: &UpstreamTls) -> Result<(), (&'static str, TlsFileError)> {
    if let Some(path) = &settings.ca {
        certificates(path).map_err(|e| ("ca", e))?;
    }
    if let Some(files) = &settings.client {
        certificates(&files.certificate).map_err(|e| ("client_certificate", e))?;
        private_key(&files.key).map_err(|e| ("client_key", e))?;
    }
    Ok(())
}

fn certificates(path: &Path) -> Result<Vec<Vec<u8>>, TlsFileError> {
    let list = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|cause| unreadable(path, &cause))?;
    if list.is_empty() {
        return Err(TlsFileError::Empty {
            path: path.to_owned(),
            what: "certificate",
        });
    }
    // Pingora parses them with a panic on what is not X.509, so that is refused here.
    match list
        .iter()
        .find(|der| x509_parser::parse_x509_certificate(der).is_err())
    {
        Some(_) => Err(unreadable(path, &"a certificate in it is not valid X.509")),
        None => Ok(list.into_iter().map(|c| c.to_vec()).collect()),
    }
}

fn private_key(path: &Path) -> Result<Vec<u8>, TlsFileError> {
    match PrivateKeyDer::from_pem_file(path) {
        Ok(key) => Ok(key.secret_der().to_vec()),
        Err(rustls_pki_types::pem::Error::NoItemsFound) => Err(TlsFileError::Empty {
            path: path.to_owned(),
            what: "private key",
        }),
        Err(cause) => Err(unreadable(path, &cause)),
    }
}

fn unreadable(path: &Path, cause: &dyn std::fmt::Display) -> TlsFileError {
    TlsFileError::Unreadable {
        path: path.to_owned(),
        cause: cause.to_string(),
    }
}
