//! What a browser sees: one answer about origins, whoever gives the response.

use std::io::Write;

use crate::harness::{Answer, Origin, Proxy, exchange, fields, nowhere};

const SHOP: &str = "https://shop.example";
const ALLOW: &str = "access-control-allow-origin";

/// Says all that an upstream can about origins, and `Vary` as the request asks for.
fn talkative() -> Origin {
    Origin::spawn(|head, stream| {
        let vary = fields(head, "x-vary")
            .first()
            .map_or(String::new(), |v| format!("Vary: {v}\r\n"));
        let text = format!(
            "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Origin: https://evil.example\r\n\
             Access-Control-Allow-Credentials: true\r\nAccess-Control-Expose-Headers: X-Theirs\r\n{vary}\
             Content-Length: 2\r\n\r\nok"
        );
        stream.write_all(text.as_bytes()).is_ok()
    })
}

fn start(origin: &Origin, more: &str) -> Proxy {
    let dead = nowhere();
    let own = format!(
        "cors: {{ mode: own, allow_origins: [\"{SHOP}\"], allow_credentials: true, expose_headers: [X-Ours], max_age: 5m }}"
    );
    Proxy::start(&format!(
        "{more}\npools:\n  p: {{ endpoints: [\"{}\"] }}\n  dead: {{ endpoints: [\"{dead}\"], retries: {{ attempts: 1 }} }}\n\
         routes:\n  - {{ pool: p, match: {{ path: /own }}, {own} }}\n  \
         - {{ pool: dead, match: {{ path: /dead }}, {own} }}\n  \
         - {{ pool: p, match: {{ path: /any }}, cors: {{ mode: own, allow_origins: [\"*\"] }} }}\n  \
         - {{ pool: p, match: {{ path: /through }}, cors: {{ mode: passthrough }} }}\n  - {{ pool: p }}\n",
        origin.address
    ))
}

fn from(origin: &str) -> String {
    format!("Origin: {origin}\r\n")
}

#[test]
fn the_upstreams_word_is_replaced_by_one_answer() {
    let origin = talkative();
    let proxy = start(&origin, "");
    let own = proxy.get("/own", &from(SHOP));
    assert_eq!(own.all(ALLOW), [SHOP]);
    assert_eq!(own.all("access-control-allow-credentials"), ["true"]);
    assert_eq!(own.all("access-control-expose-headers"), ["X-Ours"]);
    for other in [
        from("https://evil.example"),
        from("https://shop.example.evil"),
        from("null"),
        String::new(),
    ] {
        let answer = proxy.get("/own", &other);
        assert!(
            !answer.head.to_ascii_lowercase().contains("access-control-allow-"),
            "{other}: {}",
            answer.head
        );
        assert_eq!(answer.all("vary"), ["Origin"], "{other}");
    }
    let any = proxy.get("/any", &from(SHOP));
    assert_eq!(any.all(ALLOW), ["*"]);
    assert!(any.all("access-control-allow-credentials").is_empty());
    assert!(origin.heads().iter().all(|head| fields(head, "origin").is_empty()));
}

#[test]
fn vary_is_added_to_what_is_there_and_never_twice() {
    let origin = talkative();
    let proxy = start(&origin, "");
    for (theirs, expected) in [
        ("Accept-Encoding", &["Accept-Encoding", "Origin"][..]),
        ("Accept-Encoding, origin", &["Accept-Encoding, origin"]),
        ("*", &["*"]),
    ] {
        let answer = proxy.get("/own", &format!("{}X-Vary: {theirs}\r\n", from(SHOP)));
        assert_eq!(answer.all("vary"), expected);
    }
}

fn preflight(proxy: &Proxy, path: &str, origin: &str) -> Answer {
    exchange(
        &proxy.http,
        &format!(
            "OPTIONS {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nOrigin: {origin}\r\n\
             Access-Control-Request-Method: DELETE\r\nAccess-Control-Request-Headers: x-user-id, x-other\r\n\r\n"
        ),
    )
}

#[test]
fn a_preflight_is_answered_here_even_for_a_dead_pool() {
    let origin = talkative();
    let proxy = start(&origin, "");
    for path in ["/own", "/dead"] {
        let answer = preflight(&proxy, path, SHOP);
        assert_eq!((answer.status, answer.all(ALLOW)), (204, vec![SHOP]));
        assert_eq!(answer.all("access-control-allow-methods"), ["DELETE"]);
        assert_eq!(answer.all("access-control-allow-headers"), ["x-user-id, x-other"]);
        assert_eq!(answer.all("access-control-max-age"), ["300"]);
        let refused = preflight(&proxy, path, "https://evil.example");
        assert_eq!(refused.status, 204);
        assert!(
            !refused.head.to_ascii_lowercase().contains("access-control-allow-"),
            "{}",
            refused.head
        );
    }
    assert!(origin.heads().is_empty(), "a preflight reaches no origin");
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[test]
fn a_page_can_read_the_answers_that_are_the_proxys_own() {
    let origin = talkative();
    let proxy = start(&origin, "identity: { anonymous: reject }");
    // Nothing says who asks in a preflight, and that is no reason to refuse it.
    let asked = preflight(&proxy, "/own", SHOP);
    assert_eq!((asked.status, asked.all(ALLOW)), (204, vec![SHOP]));
    for (path, more, status) in [
        ("/own", "", 401),
        ("/own", "X-User-Id: 1\r\nX-User-Id: 2\r\n", 400),
        ("/own", "X-User-Id: 1\r\nX_Odd: 1\r\n", 400),
        ("/dead", "X-User-Id: 1\r\n", 502),
    ] {
        let answer = proxy.get(path, &format!("{}{more}", from(SHOP)));
        assert_eq!(
            (answer.status, answer.all(ALLOW)),
            (status, vec![SHOP]),
            "{path} {more:?}"
        );
        assert_eq!(answer.all("vary"), ["Origin"], "{path} {more:?}");
        let other = proxy.get(path, &format!("{}{more}", from("https://evil.example")));
        assert_eq!((other.status, other.all(ALLOW).len()), (status, 0), "{path} {more:?}");
    }
}

#[test]
fn passthrough_leaves_both_sides_alone_and_no_mode_drops_origin() {
    let origin = talkative();
    let proxy = start(&origin, "");
    let through = proxy.get("/through", &from(SHOP));
    assert_eq!(through.all(ALLOW), ["*", "https://evil.example"]);
    assert!(through.all("vary").is_empty());
    assert_eq!(preflight(&proxy, "/through", SHOP).status, 200);
    let head = origin.heads().pop().expect("a preflight");
    assert!(head.starts_with("OPTIONS /through "), "{head}");
    assert_eq!(fields(&head, "origin"), [SHOP]);
    assert_eq!(fields(&head, "access-control-request-method"), ["DELETE"]);

    let none = proxy.get("/", &from(SHOP));
    assert_eq!(
        none.all(ALLOW),
        ["*", "https://evil.example"],
        "what the upstream says is its own business"
    );
    assert!(none.all("vary").is_empty());
    let head = origin.heads().pop().expect("a request");
    assert!(fields(&head, "origin").is_empty(), "{head}");
}
