//! How a pool shares its requests, exactly: weights, held requests, endpoints that are out, many at a time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};

use crate::harness::{Origin, PATIENCE, Proxy, nowhere, one_pool, respond};

/// Holds requests until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn pass(&self) {
        let open = self.0.0.lock().expect("lock");
        drop(self.0.1.wait_while(open, |open| !*open).expect("lock"));
    }

    fn open(&self) {
        *self.0.0.lock().expect("lock") = true;
        self.0.1.notify_all();
    }
}

/// Three origins that hold every request, the pool's list of them with weights, and who tells of an arrival.
fn held(weights: [u16; 3], gate: &Gate) -> ([Origin; 3], String, mpsc::Receiver<()>) {
    let (told, arrived) = mpsc::channel();
    let told = Arc::new(Mutex::new(told));
    let origins = weights.map(|_| {
        let (gate, told) = (gate.clone(), Arc::clone(&told));
        Origin::spawn(move |_, stream| {
            told.lock().expect("lock").send(()).expect("the test waits");
            gate.pass();
            respond(stream, "ok")
        })
    });
    let entry = |(origin, weight): (&Origin, u16)| format!("{{ address: \"{}\", weight: {weight} }}", origin.address);
    let list: Vec<String> = origins.iter().zip(weights).map(entry).collect();
    (origins, list.join(", "), arrived)
}

fn pool(list: &str, more: &str) -> String {
    format!("pools:\n  only:\n    endpoints: [{list}]\n{more}\nroutes: [{{ pool: only }}]\n")
}

fn shares(origins: &[Origin]) -> Vec<usize> {
    origins.iter().map(|origin| origin.heads().len()).collect()
}

#[test]
fn round_robin_follows_the_weights_exactly() {
    let gate = Gate::default();
    gate.open();
    let (origins, list, _arrived) = held([5, 2, 1], &gate);
    let proxy = Proxy::start(&pool(&list, ""));
    for _ in 0..80 {
        assert_eq!(proxy.get("/", "").status, 200);
    }
    assert_eq!(shares(&origins), [50, 20, 10]);
}

#[test]
fn the_turns_of_an_endpoint_that_is_out_go_to_all_others_alike() {
    let origins = [Origin::named("a"), Origin::named("b"), Origin::named("c")];
    let dead = nowhere();
    let list = format!(
        "{}\", \"{dead}\", \"{}\", \"{}",
        origins[0].address, origins[1].address, origins[2].address
    );
    let check = "    health_check: { interval: 20ms, unhealthy_after: 1 }";
    let proxy = Proxy::start(&one_pool(&list, check));
    proxy.wait_metric("switchyard_endpoint_healthy", &[&format!("endpoint=\"{dead}\"")], 0.0);
    for _ in 0..120 {
        assert_eq!(proxy.get("/", "").status, 200);
    }
    assert_eq!(shares(&origins), [40, 40, 40]);
}

#[test]
fn least_requests_goes_where_the_fewest_are_held_for_the_weight() {
    let gate = Gate::default();
    let (origins, list, arrived) = held([2, 1, 1], &gate);
    let proxy = Proxy::start(&pool(&list, "    balance: least_requests"));
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| assert_eq!(proxy.get("/", "").status, 200));
            arrived.recv_timeout(PATIENCE).expect("it arrives");
        }
        gate.open();
    });
    assert_eq!(shares(&origins), [6, 3, 3]);
}

#[test]
fn least_requests_spreads_requests_that_come_all_at_once() {
    const REQUESTS: usize = 60;
    let gate = Gate::default();
    let (origins, list, arrived) = held([1, 1, 1], &gate);
    let proxy = Proxy::start(&pool(&list, "    balance: least_requests"));
    std::thread::scope(|scope| {
        for _ in 0..REQUESTS {
            scope.spawn(|| assert_eq!(proxy.get("/", "").status, 200));
        }
        for _ in 0..REQUESTS {
            arrived.recv_timeout(PATIENCE).expect("it arrives");
        }
        gate.open();
    });
    // Two that look at the same moment may choose the same one; more than half as many too many would be no balance.
    let shares = shares(&origins);
    println!("{REQUESTS} at once: {shares:?}");
    assert!(shares.iter().all(|share| (10..=30).contains(share)), "{shares:?}");
}

#[test]
fn endpoints_behind_one_connect_proxy_are_told_apart() {
    let targets = Arc::new(Mutex::new(Vec::<String>::new()));
    let (seen, opened) = (Arc::clone(&targets), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&opened);
    // The end of its own tunnels: answers as the target that it was asked for.
    let tunnel = Origin::spawn(move |head, stream| {
        if let Some(target) = head.strip_prefix("CONNECT ") {
            count.fetch_add(1, Ordering::SeqCst);
            let target = target.split(' ').next().expect("a target").to_owned();
            seen.lock().expect("lock").push(target);
            let text = b"HTTP/1.1 200 OK\r\n\r\n";
            return std::io::Write::write_all(stream, text).is_ok();
        }
        respond(stream, "through")
    });
    let more = format!(
        "    balance: user\n    connections: {{ reuse: false, proxy: \"http://{}\" }}",
        tunnel.address
    );
    let proxy = Proxy::start(&one_pool("a.test:80\", \"b.test:80\", \"c.test:80", &more));
    for user in 0..40 {
        assert_eq!(proxy.get("/", &format!("X-User-Id: {user}\r\n")).body, "through");
    }
    assert_eq!(opened.load(Ordering::SeqCst), 40);
    let targets = targets.lock().expect("lock");
    for name in ["a.test:80", "b.test:80", "c.test:80"] {
        assert!(
            targets.iter().filter(|target| *target == name).count() > 3,
            "{name}: {targets:?}"
        );
    }
}
