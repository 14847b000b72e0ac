//! The names in certificates: of servers, to choose one by, and of clients, to know them by.

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::listeners::TlsAccept;
use pingora::protocols::tls::TlsRef;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use x509_parser::prelude::X509Certificate;

use crate::identity::ClientCertificate;

/// The names that a server's certificate is for, in lower case.
pub fn of_server(der: &[u8]) -> Vec<String> {
    // What is no certificate has no names; the handshake says more.
    let Ok((_, certificate)) = parse_x509_certificate(der) else {
        return Vec::new();
    };
    let names = alternatives(&certificate).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _other => None,
    });
    names.collect()
}

/// Keeps the names that a client's certificate shows, which is verified by then, with the connection.
pub struct Shown;

#[async_trait]
impl TlsAccept for Shown {
    async fn handshake_complete_callback(&self, tls: &TlsRef) -> Option<Arc<dyn Any + Send + Sync>> {
        let names = of_client(tls.peer_certificate_der()?)?;
        Some(Arc::new(names))
    }
}

fn of_client(der: &[u8]) -> Option<ClientCertificate> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    let mut names = ClientCertificate::default();
    for name in certificate.subject().iter_common_name() {
        names.common_name.extend(name.as_str().ok().map(str::to_owned));
    }
    for name in alternatives(&certificate) {
        match name {
            GeneralName::DNSName(name) => names.dns.push((*name).to_owned()),
            GeneralName::URI(name) => names.uri.push((*name).to_owned()),
            GeneralName::RFC822Name(name) => names.email.push((*name).to_owned()),
            _other => {}
        }
    }
    Some(names)
}

fn alternatives<'a>(certificate: &'a X509Certificate<'a>) -> impl Iterator<Item = &'a GeneralName<'a>> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    extension
        .into_iter()
        .flat_map(|extension| &extension.value.general_names)
}
