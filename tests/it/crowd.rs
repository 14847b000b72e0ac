//! Many clients at a time over few upstream connections, and many of them leave in between: nobody gets what is another's.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::dice::Dice;
use crate::harness::origin::{Wire, ok, serve};
use crate::harness::{PATIENCE, Proxy, h2c, one_pool};

const CLIENTS: u64 = 200;
const REQUESTS: u64 = 40;
/// What a response may have in bytes: some come with their heads, some are read as their clients take them.
const SIZES: [usize; 5] = [0, 60, 3_000, 20_000, 300_000];
/// Fewer than there are clients, so that connections are given up for others, too.
const IDLE_MAX: usize = 40;

/// What the origin answers to that path: says whose it is from its first byte to its last.
fn body(path: &str) -> String {
    let size = path.rsplit('/').next().and_then(|size| size.parse().ok());
    let size: usize = size.unwrap_or(0);
    path.repeat(size / path.len() + 1)
}

/// Answers by the path once the request's body is there; `late` after a while, `chunked` as its name says.
async fn origin() -> String {
    serve(|mut wire: Wire| async move {
        while let Some(head) = wire.head().await {
            let path = head.split(' ').nth(1).unwrap_or_default();
            let body = body(path);
            if wire.body_of(&head).await.is_err() {
                return;
            }
            if path.contains("/late/") {
                // A request that is given up meanwhile is what this is about.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let answer = if path.contains("/chunked/") {
                format!(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                    body.len()
                )
            } else {
                ok(&body)
            };
            if wire.write(answer).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// When a client leaves.
enum Leaves {
    Never,
    /// As soon as the request is sent.
    AtOnce,
    /// When the first byte of the answer is there.
    Midway,
}

/// One client: asks again and again, over a new connection after it left one.
async fn client(address: String, number: u64) -> u64 {
    let (mut dice, mut wire, mut answered) = (Dice(number), Wire::connect(&address).await, 0);
    for turn in 0..REQUESTS {
        let manner = ["plain", "late", "chunked"][dice.below(3) as usize];
        let size = SIZES[dice.below(SIZES.len() as u64) as usize];
        let path = format!("/{number}/{turn}/{manner}/{size}");
        let leaves = match dice.below(8) {
            0 => Leaves::AtOnce,
            1 => Leaves::Midway,
            _ => Leaves::Never,
        };
        let request = match dice.below(3) {
            0 => format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"),
            _ => format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"),
        };
        wire.write(request).await.expect("write");
        match leaves {
            Leaves::Never => {
                let head = wire.head().await.expect("an answer");
                assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
                let got = wire.body(&head).await.expect("a whole body");
                assert!(got == body(&path).as_bytes(), "{path} got {:?}", shown(&got));
                answered += 1;
                continue;
            }
            Leaves::Midway => {
                wire.exactly(1).await.expect("an answer");
            }
            Leaves::AtOnce => {}
        }
        wire = Wire::connect(&address).await;
    }
    answered
}

/// The same over HTTP/2: all on one connection, given up by resets.
async fn client_of_http_2(address: String, number: u64) -> u64 {
    let (sender, driver) = h2c::connect(&address).await;
    let (mut dice, mut answered) = (Dice(number), 0);
    for turn in 0..REQUESTS {
        let size = SIZES[dice.below(SIZES.len() as u64) as usize];
        let path = format!("/{number}/{turn}/plain/{size}");
        let get = h2c::get(&sender, &path);
        if dice.chance(8) {
            // Dropped where it is by then, which resets the stream.
            drop(tokio::time::timeout(Duration::from_micros(dice.below(2_000)), get).await);
            continue;
        }
        let (response, _) = get.await.expect("an answer");
        let got = response.into_body();
        assert!(got == body(&path).as_bytes(), "{path} got {:?}", shown(&got));
        answered += 1;
    }
    driver.abort();
    answered
}

fn shown(got: &[u8]) -> String {
    String::from_utf8_lossy(&got[..got.len().min(100)]).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_another_s_answer_over_kept_connections_though_many_leave() {
    let more = format!("    connections: {{ max_idle: {IDLE_MAX} }}");
    let yaml = format!("server: {{ threads: 2 }}\n{}", one_pool(&origin().await, &more));
    let proxy = Proxy::start_on("{ address: \"127.0.0.1:0\", h2c: true }", &yaml, &[]);
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        match number % 10 {
            0 => clients.spawn(client_of_http_2(proxy.http.clone(), number)),
            _ => clients.spawn(client(proxy.http.clone(), number)),
        };
    }
    let all = async {
        let mut answered = 0;
        while let Some(client) = clients.join_next().await {
            answered += client.expect("its own answers");
        }
        answered
    };
    let answered = tokio::time::timeout(4 * PATIENCE, all)
        .await
        .expect("everybody is answered");
    assert!(answered > CLIENTS * REQUESTS / 2, "{answered}");
    proxy.wait_metric("switchyard_upstream_connections", &["state=\"active\""], 0.0);
    let idle = proxy.metric("switchyard_upstream_connections", &["state=\"idle\""]);
    let reused = proxy.metric("switchyard_upstream_reused_total", &[]);
    println!("{answered} answers, {reused} requests over a connection that had one before, {idle} wait");
    assert!(idle <= IDLE_MAX as f64, "{idle} connections wait");
    assert!(reused > answered as f64 / 4.0, "{reused} of {answered}");
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}
