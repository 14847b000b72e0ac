//! What a client's certificate says of it, once the certificate is verified.

/// The names in a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The subject's common names: mostly one.
    pub common_name: Vec<String>,
    /// Alternative names that are host names.
    pub dns: Vec<String>,
    /// Alternative names that are URIs, such as a SPIFFE id.
    pub uri: Vec<String>,
    /// Alternative names that are mail addresses.
    pub email: Vec<String>,
}

/// Which of its names is the user's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateName {
    /// The subject's common name.
    CommonName,
    /// The alternative name that is a host name.
    Dns,
    /// The alternative name that is a URI.
    Uri,
    /// The alternative name that is a mail address.
    Email,
}

impl CertificateName {
    /// For people, as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CommonName => "common_name",
            Self::Dns => "dns",
            Self::Uri => "uri",
            Self::Email => "email",
        }
    }
}

impl ClientCertificate {
    /// All names of a kind.
    #[must_use]
    pub fn all(&self, which: CertificateName) -> &[String] {
        match which {
            CertificateName::CommonName => &self.common_name,
            CertificateName::Dns => &self.dns,
            CertificateName::Uri => &self.uri,
            CertificateName::Email => &self.email,
        }
    }
}
