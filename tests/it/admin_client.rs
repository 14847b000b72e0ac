//! Asks the admin side, as a script would.

use serde_json::Value;

use crate::harness::{Answer, Origin, Proxy, exchange};

/// Two origins that answer their names, the proxy in front, rollout `checkout` for every request.
pub struct Scene {
    pub proxy: Proxy,
    _origins: [Origin; 2],
}

impl Scene {
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// With more configuration.
    pub fn start_with(more: &str) -> Self {
        let origins = [Origin::named("stable"), Origin::named("canary")];
        let proxy = Proxy::start(&format!(
            "pools:\n  stable: {{ endpoints: [\"{}\"] }}\n  canary: {{ endpoints: [\"{}\"] }}\n\
             routes: [{{ rollout: checkout }}]\n\
             rollouts:\n  checkout:\n    releases: {{ stable: {{ pool: stable }}, canary: {{ pool: canary }} }}\n{more}",
            origins[0].address, origins[1].address
        ));
        Self {
            proxy,
            _origins: origins,
        }
    }

    /// Which origin answers a user.
    pub fn origin_of(&self, user: &str) -> String {
        let answer = self.proxy.get("/", &format!("X-User-Id: {user}\r\n"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    pub fn ask(&self, method: &str, path: &str, fields: &str, body: &str) -> Answer {
        ask(
            &self.proxy.admin,
            method,
            path,
            &format!("Host: localhost\r\n{fields}"),
            body,
        )
    }

    /// With a JSON body; and the answer's.
    pub fn json(&self, method: &str, path: &str, fields: &str, body: &str) -> (u16, Value) {
        let kind = if body.is_empty() { "" } else { JSON };
        let answer = self.ask(method, &format!("/api/v1{path}"), &format!("{kind}{fields}"), body);
        let value = serde_json::from_str(&answer.body).unwrap_or_else(|e| panic!("{e}: {}", answer.body));
        (answer.status, value)
    }

    /// A change that is made and live.
    pub fn made(&self, method: &str, path: &str, body: &str) -> u64 {
        self.made_if(method, path, "", body)
    }

    pub fn made_if(&self, method: &str, path: &str, fields: &str, body: &str) -> u64 {
        let (status, changed) = self.json(method, path, fields, body);
        assert!(matches!(status, 200 | 201), "{method} {path}: {status} {changed}");
        assert_eq!(changed["live"], true, "{changed}");
        changed["revision"].as_u64().expect("a revision")
    }

    pub fn revision(&self) -> u64 {
        self.json("GET", "/status", "", "").1["revision"]
            .as_u64()
            .expect("a revision")
    }
}

pub const JSON: &str = "Content-Type: application/json\r\n";
pub const NDJSON: &str = "Content-Type: application/x-ndjson\r\n";
pub const CSV: &str = "Content-Type: text/csv\r\n";
pub const PLAIN: &str = "Content-Type: text/plain\r\n";

/// One request on a connection of its own, with exactly those fields and the length.
pub fn ask(address: &str, method: &str, path: &str, fields: &str, body: &str) -> Answer {
    let length = body.len();
    exchange(
        address,
        &format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{fields}\r\n{body}"),
    )
}

/// The If-Match of a revision.
pub fn if_match(revision: u64) -> String {
    format!("If-Match: \"{revision}\"\r\n")
}
