//! TLS of listeners. Pingora's own has one certificate, 60 seconds for a handshake, and neither tickets nor a way to
//! change what clients are asked for, so a connection comes here in clear text, and goes on to the application with TLS.

mod material;
mod names;
mod renewal;

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use log::{debug, error, info};
use pingora::apps::ServerApp;
use pingora::listeners::tls::Acceptor;
use pingora::protocols::l4::stream::Stream as Plain;
use pingora::protocols::{GetSocketDigest, Stream};
use pingora::server::ShutdownWatch;
use thiserror::Error;

use super::settings::TlsSettings;
use crate::proxy::{Edge, Relays};
use crate::telemetry::{metrics, targets};
use material::{Stamps, acceptor, stamps};

pub use renewal::Renewal;

/// What a client that does not speak TLS as it should is counted as.
const HANDSHAKE: &str = "tls_handshake";
const HANDSHAKE_TIMEOUT: &str = "tls_handshake_timeout";
/// How rustls says that the fault is on this side.
const OUR_FAULT: &str = "unexpected error: ";

/// Why a listener's TLS cannot be had.
#[derive(Debug, Error)]
#[error("{text}")]
pub struct TlsError {
    /// The key below `tls`, such as `certificate` or `certificates[0].key`.
    pub key: String,
    /// What is wrong, and with which file.
    pub text: String,
}

/// Reads all files that the settings name.
///
/// # Errors
/// The first that cannot be used.
pub fn check(settings: &TlsSettings) -> Result<(), TlsError> {
    acceptor(settings).map(drop)
}

/// TLS of one listener: what it shows and asks for, read again when the files change.
pub struct Terminator {
    settings: TlsSettings,
    /// Of the files as they were read at first.
    loaded: Stamps,
    current: ArcSwap<Acceptor>,
}

impl Terminator {
    /// Reads the files.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn load(settings: &TlsSettings) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self {
            // Before the files are read, so that no change after that is missed.
            loaded: stamps(settings),
            current: ArcSwap::from_pointee(acceptor(settings)?),
            settings: settings.clone(),
        }))
    }

    /// Takes what is in the files now, for new connections. Sessions from before are not resumed: what a client had to
    /// show for them may no longer do.
    fn reload(&self) {
        let name = self.settings.first().certificate.display();
        match acceptor(&self.settings) {
            Ok(acceptor) => {
                self.current.store(Arc::new(acceptor));
                info!(target: targets::SERVER, "certificate {name} read again");
            }
            Err(e) => error!(target: targets::SERVER, "{e}; the certificate from before stays in use"),
        }
    }

    /// Shakes hands, within the listener's time for it.
    async fn accept(&self, stream: Stream) -> Option<Stream> {
        let plain = stream.into_any().downcast::<Plain>().ok()?;
        let digest = plain.get_socket_digest();
        let peer = || {
            let address = digest.as_ref().and_then(|digest| digest.peer_addr());
            address.map_or_else(|| "-".to_owned(), ToString::to_string)
        };
        let acceptor = self.current.load_full();
        let limit = self.settings.handshake_timeout;
        match tokio::time::timeout(limit, acceptor.tls_handshake(*plain)).await {
            Ok(Ok(secured)) => return Some(Box::new(secured)),
            Ok(Err(e)) if e.to_string().contains(OUR_FAULT) => {
                error!(target: targets::SERVER, "TLS handshake with {} failed: {e}", peer());
            }
            Ok(Err(e)) => {
                metrics::downstream_protocol_error(HANDSHAKE);
                debug!(target: targets::SERVER, "TLS handshake with {} failed: {e}", peer());
            }
            Err(_) => {
                metrics::downstream_protocol_error(HANDSHAKE_TIMEOUT);
                debug!(target: targets::SERVER, "TLS handshake with {} timed out after {limit:?}", peer());
            }
        }
        None
    }
}

/// An edge behind what comes before requests: the word of a relay, a place for the connection, TLS.
pub struct Secured {
    edge: Edge,
    relays: Option<Relays>,
    tls: Option<Arc<Terminator>>,
}

impl Secured {
    /// Puts both before `edge`; only `relays` may connect, where there are any.
    pub fn new(edge: Edge, relays: Option<Relays>, tls: Option<Arc<Terminator>>) -> Self {
        Self { edge, relays, tls }
    }
}

#[async_trait]
impl ServerApp for Secured {
    async fn process_new(self: &Arc<Self>, mut stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        // In boxes: what only the start of a connection needs is not kept with it.
        // From here on the client is the one that a relay named, for its places and for TLS, too.
        if let Some(relays) = &self.relays {
            if !Box::pin(relays.introduce(&mut *stream)).await {
                return None;
            }
        }
        let entered = match self.edge.enter(&stream) {
            Ok(entered) => entered,
            Err(crowded) => {
                // Who waits for a handshake would not understand the answer.
                if self.tls.is_none() {
                    Box::pin(self.edge.turn_away(stream, crowded)).await;
                }
                return None;
            }
        };
        let stream = match &self.tls {
            Some(tls) => Box::pin(tls.accept(stream)).await?,
            None => stream,
        };
        self.edge.serve(stream, entered, shutdown).await;
        None
    }

    async fn cleanup(&self) {
        self.edge.cleanup().await;
    }
}
