//! From what the configuration lists to the endpoints of a pool: addresses as they are, names resolved in the
//! background and again and again. A name that stops resolving keeps its last addresses, and says so once.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use log::{info, warn};
use parking_lot::Mutex;

use super::connect_proxy::ConnectProxy;
use super::endpoint::{Endpoint, EndpointParts};
use super::pool::Pool;
use super::settings::Host;
use super::tls::TlsMaterial;
use crate::telemetry::targets;

/// How long one look-up may take; the system's resolver has its own retries below that.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// The written endpoints of one pool and what is known of each.
pub struct Directory {
    pool: Arc<Pool>,
    number: u32,
    tls: TlsMaterial,
    entries: Vec<Entry>,
    known: Mutex<Known>,
}

struct Entry {
    host: String,
    port: u16,
    weight: NonZeroU16,
    tunnel: Option<Arc<ConnectProxy>>,
}

struct Known {
    /// For each entry; empty until it was resolved.
    addresses: Vec<Vec<SocketAddr>>,
    failing: Vec<bool>,
    /// Kept across changes, so that health, ejection and requests in flight are not forgotten.
    endpoints: HashMap<(SocketAddr, usize), Arc<Endpoint>>,
}

impl Directory {
    pub fn new(
        pool: Arc<Pool>,
        number: u32,
        tls: TlsMaterial,
        proxy_for: &dyn Fn(&str, u16) -> Option<ConnectProxy>,
    ) -> Self {
        let entries: Vec<Entry> = pool
            .settings()
            .endpoints
            .iter()
            .map(|written| {
                let (host, port) = match &written.host {
                    Host::Address(address) => (address.ip().to_string(), address.port()),
                    Host::Name { name, port } => (name.clone(), port.get()),
                };
                Entry {
                    tunnel: proxy_for(&host, port).map(Arc::new),
                    weight: written.weight,
                    host,
                    port,
                }
            })
            .collect();
        let known = Known {
            addresses: entries
                .iter()
                .map(|e| e.written_address().into_iter().collect())
                .collect(),
            failing: vec![false; entries.len()],
            endpoints: HashMap::new(),
        };
        Self {
            pool,
            number,
            tls,
            entries,
            known: Mutex::new(known),
        }
    }

    /// The pool that this is the directory of.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Whether anything is to be resolved at all.
    pub fn has_names(&self) -> bool {
        self.entries.iter().any(|e| e.written_address().is_none())
    }

    /// Looks every name up once and publishes what changed.
    pub async fn resolve(&self) {
        for (place, entry) in self.entries.iter().enumerate() {
            if entry.written_address().is_none() {
                let (host, port) = entry.dialled();
                let answer = lookup(host, port).await;
                self.note(place, entry, answer);
            }
        }
        self.publish();
    }

    fn note(&self, place: usize, entry: &Entry, answer: Result<Vec<SocketAddr>, String>) {
        let mut known = self.known.lock();
        let was_failing = known.failing[place];
        let name = entry.dialled().0;
        match answer {
            Ok(addresses) => {
                if was_failing {
                    info!(target: targets::UPSTREAM, "pool {}: {name} resolves again", self.pool.name());
                }
                known.failing[place] = false;
                known.addresses[place] = addresses;
            }
            Err(cause) => {
                self.pool.metrics().resolve_failed();
                known.failing[place] = true;
                if !was_failing {
                    let kept = known.addresses[place].len();
                    warn!(
                        target: targets::UPSTREAM,
                        "pool {}: {name} does not resolve: {cause}; its last {kept} addresses stay in use",
                        self.pool.name()
                    );
                }
            }
        }
    }

    /// Gives the pool the endpoints of what is known now.
    pub fn publish(&self) {
        let mut known = self.known.lock();
        let mut next = HashMap::new();
        let mut list = Vec::new();
        for (place, entry) in self.entries.iter().enumerate() {
            for address in &known.addresses[place] {
                let key = (*address, place);
                let endpoint = match known.endpoints.get(&key) {
                    Some(endpoint) => Arc::clone(endpoint),
                    None => Arc::new(self.endpoint(entry, *address)),
                };
                next.insert(key, Arc::clone(&endpoint));
                list.push(endpoint);
            }
        }
        let changed = next.len() != known.endpoints.len() || next.keys().any(|key| !known.endpoints.contains_key(key));
        known.endpoints = next;
        if changed {
            self.pool.replace(list);
        }
    }

    fn endpoint(&self, entry: &Entry, address: SocketAddr) -> Endpoint {
        let settings = self.pool.settings();
        let server_name = settings
            .tls
            .as_ref()
            .map(|tls| tls.server_name.as_deref().unwrap_or(&entry.host));
        Endpoint::new(&EndpointParts {
            address,
            host: &entry.host,
            port: entry.port,
            weight: entry.weight,
            pool: settings.name.as_str(),
            pool_number: self.number,
            connections: &settings.connections,
            server_name,
            tls: &self.tls,
            tunnel: entry.tunnel.clone(),
        })
    }
}

impl Entry {
    /// What is connected to: the endpoint, or the proxy in front of it.
    fn dialled(&self) -> (&str, u16) {
        match &self.tunnel {
            Some(proxy) => (&proxy.host, proxy.port),
            None => (&self.host, self.port),
        }
    }

    fn written_address(&self) -> Option<SocketAddr> {
        let (host, port) = self.dialled();
        Some(SocketAddr::new(host.parse().ok()?, port))
    }
}

async fn lookup(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let answer = tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((host, port))).await;
    let mut addresses: Vec<SocketAddr> = match answer {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(cause)) => return Err(cause.to_string()),
        Err(_) => return Err(format!("no answer within {LOOKUP_TIMEOUT:?}")),
    };
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        return Err("the answer holds no address".to_owned());
    }
    Ok(addresses)
}
