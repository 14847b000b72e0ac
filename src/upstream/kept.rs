//! Connections that wait for their next request. Pingora's pool has a task of its own watch each of them: to start it, to
//! wake it with the next request and to end it costs a request more than all of the rollout does. Here nothing runs for
//! them: whether one was closed meanwhile is asked of the system when it is taken, and of the runtime now and then of all.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use log::warn;
use parking_lot::Mutex;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::{GetProxyDigest, GetSocketDigest};
use tokio::io::AsyncReadExt;
use tokio::task::unconstrained;

use super::connection::{Connection, Peeked};
use crate::clock::Tick;
use crate::telemetry::targets;

/// So many other endpoints are looked at for one that gives a connection up, when there is no room for another.
const ASKED_FOR_ROOM: usize = 8;

/// The waiting connections of one endpoint, the one that has waited longest first.
pub struct Kept {
    waiting: Mutex<VecDeque<Waiting>>,
    room: Arc<Room>,
}

struct Waiting {
    stream: Stream,
    until: Tick,
}

impl Waiting {
    /// Whether it goes on waiting.
    fn stays(&mut self, now: Tick) -> bool {
        self.until > now && is_silent(&mut self.stream)
    }
}

/// How many may wait in the whole process.
pub struct Room {
    max: usize,
    taken: AtomicUsize,
    endpoints: Mutex<Endpoints>,
}

/// Who can be asked to give one up, and whose turn it is.
#[derive(Default)]
struct Endpoints {
    all: Vec<Weak<Kept>>,
    next: usize,
}

impl Kept {
    /// None yet.
    pub fn new(room: &Arc<Room>) -> Arc<Self> {
        let new = Arc::new(Self {
            waiting: Mutex::default(),
            room: Arc::clone(room),
        });
        let mut endpoints = room.endpoints.lock();
        if endpoints.all.len() == endpoints.all.capacity() {
            endpoints.all.retain(|kept| kept.strong_count() > 0);
        }
        endpoints.all.push(Arc::downgrade(&new));
        new
    }

    /// The open one that was used last. What the system has of it decides, not what the runtime heard: where threads have much
    /// to do, a request would go over a connection that is closed, or be answered with what came before it was sent.
    pub fn take(&self) -> Option<Stream> {
        loop {
            let stream = self.waiting.lock().pop_back()?.stream;
            self.room.leave(1);
            let connection = stream.get_proxy_digest().as_deref().and_then(Connection::of);
            match connection.map(|connection| connection.peek()) {
                Some(Peeked::Silence) => return Some(stream),
                Some(Peeked::Bytes) => warn_of_bytes(&stream),
                Some(Peeked::End) | None => {}
            }
        }
    }

    /// Keeps a connection that nothing is due on, at most until then. Where there is no room, one that has waited for long
    /// is closed for it.
    pub fn put(&self, stream: Stream, until: Tick) {
        let entered = self.room.enter();
        let gives_up = if entered { None } else { self.give_up() };
        if entered || gives_up.is_some() || self.room.another_gives_up() {
            self.waiting.lock().push_back(Waiting { stream, until });
        }
    }

    /// The one that has waited longest; its place is not given back.
    fn give_up(&self) -> Option<Waiting> {
        self.waiting.lock().pop_front()
    }

    /// Closes those that waited for too long, and those that their other ends closed.
    pub fn sweep(&self, now: Tick) {
        let gone = {
            let mut waiting = self.waiting.lock();
            let Some(first) = waiting.iter_mut().position(|one| !one.stays(now)) else {
                return;
            };
            let mut rest = waiting.split_off(first).into_iter();
            let mut gone: Vec<_> = rest.next().into_iter().collect();
            for mut one in rest {
                if one.stays(now) {
                    waiting.push_back(one);
                } else {
                    gone.push(one);
                }
            }
            gone
        };
        self.close(gone);
    }

    /// Closes all of them: the endpoint is no longer one of its pool.
    pub fn clear(&self) {
        let all = std::mem::take(&mut *self.waiting.lock());
        self.close(all.into());
    }

    /// Closes what is waiting no longer, which takes system calls: nobody is kept from the others meanwhile.
    fn close(&self, gone: Vec<Waiting>) {
        let places = gone.len();
        drop(gone);
        self.room.leave(places);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.room.leave(self.waiting.get_mut().len());
    }
}

impl Room {
    /// For so many.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            taken: AtomicUsize::new(0),
            endpoints: Mutex::default(),
        })
    }

    fn enter(&self) -> bool {
        let more = |taken: usize| (taken < self.max).then_some(taken + 1);
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    fn leave(&self, places: usize) {
        self.taken.fetch_sub(places, Ordering::Relaxed);
    }

    /// Closes the longest waiting connection of an endpoint that has one. They take turns.
    fn another_gives_up(&self) -> bool {
        let asked = {
            let mut endpoints = self.endpoints.lock();
            let Endpoints { all, next } = &mut *endpoints;
            let asked = all.len().min(ASKED_FOR_ROOM);
            let turn: Vec<_> = (0..asked)
                .map(|place| all[next.wrapping_add(place) % all.len()].clone())
                .collect();
            *next = next.wrapping_add(asked);
            turn
        };
        asked
            .iter()
            .filter_map(Weak::upgrade)
            .any(|kept| kept.give_up().is_some())
    }
}

/// Whether the runtime has heard of nothing that came on it, not even of its end. Costs no system call.
pub fn is_silent(stream: &mut Stream) -> bool {
    let mut byte = [0; 1];
    // The runtime's budget must not make it look silent.
    let read = pin!(unconstrained(stream.read(&mut byte)));
    match read.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => true,
        Poll::Ready(read) => {
            if matches!(read, Ok(1..)) {
                warn_of_bytes(stream);
            }
            false
        }
    }
}

fn warn_of_bytes(stream: &Stream) {
    let digest = stream.get_socket_digest();
    let address = digest.as_ref().and_then(|digest| digest.peer_addr());
    warn!(
        target: targets::UPSTREAM,
        "{} sent something that nobody asked for on a connection that waits for a request: it is closed",
        address.map_or_else(|| "an endpoint".to_owned(), ToString::to_string)
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::EndpointMetrics;
    use crate::upstream::connection::Registry;
    use crate::upstream::dial::Dial;
    use pingora::connectors::L4Connect;
    use pingora::protocols::UniqueID;
    use std::time::Duration;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::yield_now;

    const NOW: Tick = Tick::from_millis(1_000);

    fn later() -> Tick {
        NOW.after(Duration::from_secs(1))
    }

    /// Both ends of new connections.
    struct Ends {
        listener: TcpListener,
        dial: Dial,
    }

    impl Ends {
        async fn new() -> Self {
            Self {
                listener: TcpListener::bind("127.0.0.1:0").await.expect("bind"),
                dial: Dial {
                    connect_timeout: Duration::from_secs(60),
                    tcp_keepalive: None,
                    takes_within: Duration::from_secs(60),
                    tunnel: None,
                    registry: Arc::new(Registry::default()),
                    metrics: Arc::new(EndpointMetrics::new("p", "kept")),
                    upgrade: false,
                    kept: None,
                },
            }
        }

        async fn both(&self) -> (Stream, TcpStream) {
            let address = self.listener.local_addr().expect("address").into();
            let (near, far) = tokio::join!(self.dial.connect(&address), self.listener.accept());
            (near.expect("connected"), far.expect("accepted").0)
        }

        /// Puts a new connection there: its number and its other end.
        async fn put(&self, kept: &Kept, until: Tick) -> (i32, TcpStream) {
            let (near, far) = self.both().await;
            let id = near.id();
            kept.put(near, until);
            (id, far)
        }
    }

    fn ids(kept: &Kept) -> Vec<i32> {
        kept.waiting.lock().iter().map(|one| one.stream.id()).collect()
    }

    fn connection(stream: &Stream) -> Arc<Connection> {
        let digest = stream.get_proxy_digest().expect("a digest");
        Connection::of(&digest).expect("a connection")
    }

    /// Waits until the other end is gone.
    async fn is_closed(mut far: TcpStream) {
        assert_eq!(far.read(&mut [0; 1]).await.expect("an end"), 0);
    }

    #[tokio::test]
    async fn the_one_that_was_used_last_is_taken_first() {
        let (ends, kept) = (Ends::new().await, Kept::new(&Room::new(10)));
        let (first, _far) = ends.put(&kept, later()).await;
        let (second, _away) = ends.put(&kept, later()).await;
        assert_eq!(kept.take().map(|stream| stream.id()), Some(second));
        assert_eq!(kept.take().map(|stream| stream.id()), Some(first));
        assert!(kept.take().is_none());
        assert_eq!(kept.room.taken.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn one_that_was_closed_or_sent_something_is_not_taken_though_the_runtime_has_not_heard_of_it() {
        let (ends, kept) = (Ends::new().await, Kept::new(&Room::new(10)));
        let (open, _far) = ends.put(&kept, later()).await;
        let (closed, far_of_closed) = ends.both().await;
        let (sent, mut far_of_sent) = ends.both().await;
        let both = [connection(&closed), connection(&sent)];
        kept.put(closed, later());
        kept.put(sent, later());
        far_of_sent.write_all(b"HTTP/1.1 200 OK\r\n").await.expect("write");
        drop(far_of_closed);
        // The runtime hears of nothing while its only thread does not wait.
        while both.iter().any(|one| one.peek() == Peeked::Silence) {
            std::thread::yield_now();
        }
        assert_eq!(both.map(|one| one.peek()), [Peeked::End, Peeked::Bytes]);
        assert_eq!(kept.take().map(|stream| stream.id()), Some(open));
        assert!(kept.take().is_none());
        assert_eq!(kept.room.taken.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn where_there_is_no_room_the_longest_waiting_of_the_same_endpoint_or_one_of_another_gives_its_place() {
        let (ends, room) = (Ends::new().await, Room::new(2));
        let (one, other, idle) = (Kept::new(&room), Kept::new(&room), Kept::new(&room));
        let (_, first) = ends.put(&one, later()).await;
        let (second, far) = ends.put(&one, later()).await;
        let (third, _away) = ends.put(&one, later()).await;
        is_closed(first).await;
        assert_eq!(ids(&one), [second, third]);
        let (fourth, _distant) = ends.put(&other, later()).await;
        is_closed(far).await;
        assert_eq!(
            (ids(&one), ids(&other), ids(&idle)),
            (vec![third], vec![fourth], vec![])
        );
        assert_eq!(room.taken.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn where_nobody_gives_its_place_none_is_kept() {
        let (ends, kept) = (Ends::new().await, Kept::new(&Room::new(0)));
        let (_, far) = ends.put(&kept, later()).await;
        is_closed(far).await;
        assert!(kept.take().is_none());
    }

    #[tokio::test]
    async fn in_time_every_endpoint_is_asked_for_its_place() {
        let (ends, room) = (Ends::new().await, Room::new(1));
        let waits = Kept::new(&room);
        let (_, far) = ends.put(&waits, later()).await;
        let many: Vec<_> = (0..5 * ASKED_FOR_ROOM).map(|_| Kept::new(&room)).collect();
        let last = many.last().expect("many");
        // The first turn is that of the one that waits.
        room.endpoints.lock().next = 1;
        for _ in 0..6 {
            ends.put(last, later()).await;
        }
        is_closed(far).await;
    }

    #[tokio::test]
    async fn a_sweep_closes_those_that_waited_too_long_or_were_closed_and_leaves_the_others_in_their_order() {
        let (ends, kept) = (Ends::new().await, Kept::new(&Room::new(10)));
        let (_, old) = ends.put(&kept, NOW).await;
        let (first, _far) = ends.put(&kept, later()).await;
        let (_, gone) = ends.put(&kept, later()).await;
        let (last, _away) = ends.put(&kept, later()).await;
        kept.sweep(NOW);
        is_closed(old).await;
        drop(gone);
        while kept.waiting.lock().len() > 2 {
            yield_now().await;
            kept.sweep(NOW);
        }
        assert_eq!(ids(&kept), [first, last]);
        assert_eq!(kept.room.taken.load(Ordering::Relaxed), 2);
        kept.clear();
        assert_eq!(kept.room.taken.load(Ordering::Relaxed), 0);
        assert!(kept.take().is_none());
    }

    #[tokio::test]
    async fn an_endpoint_that_goes_gives_its_places_back() {
        let (ends, room) = (Ends::new().await, Room::new(2));
        let kept = Kept::new(&room);
        let (_, far) = ends.put(&kept, later()).await;
        let (_, away) = ends.put(&kept, later()).await;
        drop(kept);
        is_closed(far).await;
        is_closed(away).await;
        assert_eq!(room.taken.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn however_many_threads_put_and_take_the_bound_holds_and_no_place_is_lost() {
        const MOST: usize = 3;
        const THREADS: usize = 4;
        let (ends, room) = (Ends::new().await, Room::new(MOST));
        let endpoints = [Kept::new(&room), Kept::new(&room)];
        let mut far = Vec::new();
        let mut near: Vec<Vec<Stream>> = (0..THREADS).map(|_| Vec::new()).collect();
        for _ in 0..50 {
            for own in &mut near {
                let (stream, end) = ends.both().await;
                own.push(stream);
                far.push(end);
            }
        }
        let (all, room) = (&endpoints, &room);
        std::thread::scope(|scope| {
            for mut own in near {
                scope.spawn(move || {
                    let mut turn = 0;
                    while let Some(stream) = own.pop() {
                        turn += 1;
                        all[turn % 2].put(stream, later());
                        assert!(room.taken.load(Ordering::Relaxed) <= MOST);
                        if turn % 3 == 0 {
                            own.extend(all[turn % 2].take());
                        }
                        if turn % 7 == 0 {
                            all[turn % 2].sweep(NOW);
                        }
                    }
                });
            }
        });
        let waiting: usize = endpoints.iter().map(|kept| kept.waiting.lock().len()).sum();
        assert_eq!(room.taken.load(Ordering::Relaxed), waiting);
        assert!((1..=MOST).contains(&waiting), "{waiting}");
    }
}
