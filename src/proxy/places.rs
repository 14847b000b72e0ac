//! Places for connections and for requests in flight: counted, given back on drop, and refused at once when all are
//! taken, so that what is being served goes on.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::settings::Limits;

/// So many things at a time.
#[derive(Debug)]
pub struct Places {
    taken: AtomicUsize,
    most: usize,
}

impl Places {
    /// `most` places, all free.
    pub fn new(most: NonZeroUsize) -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicUsize::new(0),
            most: most.get(),
        })
    }

    /// Takes one, unless all are taken.
    pub fn take(self: &Arc<Self>) -> Option<Place> {
        let place = Place(Arc::clone(self));
        (self.taken.fetch_add(1, Ordering::Relaxed) < self.most).then_some(place)
    }
}

/// One place, given back on drop.
#[derive(Debug)]
pub struct Place(Arc<Places>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a connection is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crowded {
    /// There are as many as there may be.
    All,
    /// This client has as many as it may have.
    Client,
}

/// Addresses whose connections are counted in all only: behind each of them are many clients.
pub type Trusted = Box<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// The open downstream connections of the process, and whose they are.
pub struct Connections {
    all: Arc<Places>,
    per_client: Option<NonZeroUsize>,
    trusted: Trusted,
    clients: Mutex<HashMap<IpAddr, usize>>,
}

impl Connections {
    /// With the bounds of `limits`.
    pub fn new(limits: &Limits, trusted: Trusted) -> Arc<Self> {
        Arc::new(Self {
            all: Places::new(limits.connections_max),
            per_client: limits.connections_per_client,
            trusted,
            clients: Mutex::new(HashMap::new()),
        })
    }

    /// Counts a connection of `client` until what is returned is dropped.
    ///
    /// # Errors
    /// When there is no place for it.
    pub fn enter(self: &Arc<Self>, client: Option<IpAddr>) -> Result<Entered, Crowded> {
        let place = self.all.take().ok_or(Crowded::All)?;
        let counted = client.map(whole).filter(|ip| !(self.trusted)(*ip));
        let (Some(most), Some(client)) = (self.per_client, counted) else {
            return Ok(Entered {
                _place: place,
                client: None,
            });
        };
        let mut clients = self.clients.lock();
        let open = clients.entry(client).or_default();
        if *open >= most.get() {
            return Err(Crowded::Client);
        }
        *open += 1;
        Ok(Entered {
            _place: place,
            client: Some((Arc::clone(self), client)),
        })
    }

    fn leave(&self, client: IpAddr) {
        let mut clients = self.clients.lock();
        if let Some(open) = clients.get_mut(&client) {
            *open -= 1;
            if *open == 0 {
                clients.remove(&client);
            }
        }
    }
}

/// The address by which a client is counted. One of IPv6 has a network of its own, of at least 64 bits.
fn whole(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) if v6.is_loopback() => IpAddr::V6(v6),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

/// A connection that has its place.
#[must_use]
pub struct Entered {
    _place: Place,
    client: Option<(Arc<Connections>, IpAddr)>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some((connections, client)) = &self.client {
            connections.leave(*client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(all: usize, per_client: usize) -> Arc<Connections> {
        let limits = Limits {
            connections_max: NonZeroUsize::new(all).expect("not zero"),
            connections_per_client: NonZeroUsize::new(per_client),
            ..Limits::default()
        };
        Connections::new(&limits, Box::new(|ip| ip.is_loopback()))
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn a_place_that_is_given_back_can_be_taken_again() {
        let places = Places::new(NonZeroUsize::MIN);
        for _ in 0..3 {
            let place = places.take().expect("free");
            assert!(places.take().is_none());
            assert!(places.take().is_none());
            drop(place);
        }
    }

    #[test]
    fn one_client_cannot_take_all_places_and_trusted_peers_can() {
        let connections = connections(5, 2);
        let mut held: Vec<Entered> = Vec::new();
        for _ in 0..2 {
            held.push(connections.enter(ip("192.0.2.1")).expect("free"));
        }
        assert_eq!(connections.enter(ip("192.0.2.1")).err(), Some(Crowded::Client));
        assert_eq!(connections.enter(ip("::ffff:192.0.2.1")).err(), Some(Crowded::Client));
        for _ in 0..3 {
            held.push(connections.enter(ip("127.0.0.1")).expect("trusted"));
        }
        assert_eq!(connections.enter(ip("192.0.2.2")).err(), Some(Crowded::All));
        held.clear();
        assert!(connections.enter(ip("192.0.2.1")).is_ok());
        assert!(connections.clients.lock().is_empty(), "nobody is remembered");
    }

    #[test]
    fn a_client_of_ipv6_is_its_network() {
        let connections = connections(5, 1);
        let _held = connections.enter(ip("2001:db8:0:1::1")).expect("free");
        let again = connections.enter(ip("2001:db8:0:1:ffff::2"));
        assert_eq!(again.err(), Some(Crowded::Client));
        assert!(connections.enter(ip("2001:db8:0:2::1")).is_ok());
        let _more = connections.enter(ip("2001:db8:0:3::1")).expect("another client");
    }
}
