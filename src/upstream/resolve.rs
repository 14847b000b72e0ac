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
use super::endpoint::{Endpoint, EndpointKey, EndpointParts};
use super::kept::Room;
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
    room: Arc<Room>,
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
    endpoints: HashMap<EndpointKey, Arc<Endpoint>>,
}

impl Directory {
    pub fn new(
        pool: Arc<Pool>,
        number: u32,
        tls: TlsMaterial,
        room: &Arc<Room>,
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
            room: Arc::clone(room),
            entries,
            known: Mutex::new(known),
        }
    }

    /// The pool that this is the directory of.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The places of the entries that are names.
    pub fn names(&self) -> impl Iterator<Item = usize> {
        let is_name = |(place, entry): (usize, &Entry)| entry.written_address().is_none().then_some(place);
        self.entries.iter().enumerate().filter_map(is_name)
    }

    /// Looks one name up, and publishes what changed. Yields whether it was found.
    pub async fn resolve(&self, place: usize) -> bool {
        let (host, port) = self.entries[place].dialled();
        let answer = lookup(host, port).await;
        let found = answer.is_ok();
        self.learn(place, answer);
        found
    }

    /// Takes an answer in. One that is an error changes nothing but what is said of the name.
    fn learn(&self, place: usize, answer: Result<Vec<SocketAddr>, String>) {
        self.note(place, answer);
        self.publish();
    }

    fn note(&self, place: usize, answer: Result<Vec<SocketAddr>, String>) {
        let mut known = self.known.lock();
        let was_failing = known.failing[place];
        let name = self.entries[place].dialled().0;
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
        for place in 0..self.entries.len() {
            for address in &known.addresses[place] {
                let key = (*address, place);
                let endpoint = match known.endpoints.get(&key) {
                    Some(endpoint) => Arc::clone(endpoint),
                    None => Arc::new(self.endpoint(place, *address)),
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

    fn endpoint(&self, place: usize, address: SocketAddr) -> Endpoint {
        let entry = &self.entries[place];
        let settings = self.pool.settings();
        let server_name = settings
            .tls
            .as_ref()
            .map(|tls| tls.server_name.as_deref().unwrap_or(&entry.host));
        Endpoint::new(&EndpointParts {
            address,
            place,
            host: &entry.host,
            port: entry.port,
            weight: entry.weight,
            pool: settings.name.as_str(),
            pool_number: self.number,
            connections: &settings.connections,
            server_name,
            tls: &self.tls,
            tunnel: entry.tunnel.clone(),
            room: &self.room,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::PoolName;
    use crate::upstream::pool::Acquire;
    use crate::upstream::settings::{Balance, EndpointSettings, PoolSettings};
    use std::num::NonZeroU16;

    fn name(host: &str, weight: u16) -> EndpointSettings {
        EndpointSettings {
            host: Host::Name {
                name: host.to_owned(),
                port: NonZeroU16::new(80).expect("not zero"),
            },
            weight: NonZeroU16::new(weight).expect("not zero"),
        }
    }

    fn directory(endpoints: Vec<EndpointSettings>, balance: Balance) -> Directory {
        let name = PoolName::parse("p").expect("a name");
        let pool = Arc::new(Pool::new(PoolSettings::plain(name, endpoints, balance)));
        let directory = Directory::new(pool, 0, TlsMaterial::default(), &Room::new(1), &|_, _| None);
        directory.publish();
        directory
    }

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|a| a.parse().expect("an address")).collect()
    }

    fn labels(directory: &Directory) -> Vec<String> {
        let list = directory.pool().endpoints();
        list.iter().map(|e| e.label().to_owned()).collect()
    }

    #[test]
    fn a_name_that_stops_resolving_keeps_its_last_addresses() {
        let directory = directory(vec![name("a.test", 1), name("b.test", 1)], Balance::RoundRobin);
        assert_eq!(directory.names().collect::<Vec<_>>(), [0, 1]);
        assert!(labels(&directory).is_empty());
        directory.learn(0, Ok(addresses(&["10.0.0.1:80", "10.0.0.2:80"])));
        directory.learn(1, Err("no such name".to_owned()));
        assert_eq!(labels(&directory), ["10.0.0.1:80", "10.0.0.2:80"]);
        directory.learn(0, Err("no answer".to_owned()));
        assert_eq!(labels(&directory), ["10.0.0.1:80", "10.0.0.2:80"]);
        directory.learn(1, Ok(addresses(&["10.0.0.3:80"])));
        assert_eq!(labels(&directory), ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    }

    #[test]
    fn a_new_answer_adds_and_removes_endpoints_and_forgets_nothing_of_those_that_stay() {
        let directory = directory(vec![name("a.test", 1)], Balance::RoundRobin);
        directory.learn(0, Ok(addresses(&["10.0.0.1:80", "10.0.0.2:80"])));
        let stays = Arc::clone(&directory.pool().endpoints()[1]);
        stays.set_healthy(false);
        directory.learn(0, Ok(addresses(&["10.0.0.2:80", "10.0.0.3:80"])));
        assert_eq!(labels(&directory), ["10.0.0.2:80", "10.0.0.3:80"]);
        assert!(Arc::ptr_eq(&stays, &directory.pool().endpoints()[0]));
        assert!(!directory.pool().endpoints()[0].healthy());
    }

    #[tokio::test]
    async fn a_pool_without_addresses_refuses_whatever_its_balance() {
        for balance in [
            Balance::RoundRobin,
            Balance::Random,
            Balance::User,
            Balance::LeastRequests,
        ] {
            let directory = directory(vec![name("a.test", 1)], balance);
            let want = Acquire {
                user: Some(b"42"),
                tried: &[],
            };
            assert!(directory.pool().acquire(want).await.is_err(), "{balance:?}");
            assert!(!directory.pool().any_available(crate::clock::tick()));
        }
    }
}
