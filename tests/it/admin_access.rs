//! Who is let in: every operation that the document lists is tried from where it must not be.

use std::path::PathBuf;

use serde_json::Value;

use crate::admin_client::{JSON, Scene, ask};
use crate::admin_document::operations;

const VIEWER: &str = "Authorization: Bearer viewer-0123456789\r\n";
const OPERATOR: &str = "Authorization: Bearer operator-0123456789\r\n";
const ADMIN: &str = "Authorization: Bearer admin-0123456789\r\n";

struct TokensFile(PathBuf);

impl TokensFile {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("switchyard-it-tokens-{}", std::process::id()));
        let text = "viewer vera viewer-0123456789\noperator otto operator-0123456789\nadmin anna admin-0123456789\n";
        std::fs::write(&path, text).expect("written");
        Self(path)
    }
}

impl Drop for TokensFile {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

/// Each operation's method, a path that exists, and the role that it needs.
fn listed(document: &Value) -> Vec<(String, String, Option<String>)> {
    let fill = |path: String| {
        path.replace("{rollout}", "checkout")
            .replace("{segment}", "testers")
            .replace("{user}", "42")
            .replace("{id}", "1")
    };
    let each = operations(document).into_iter();
    each.map(|(path, method, operation)| {
        let role = operation["x-role"].as_str().map(str::to_owned);
        (method.to_uppercase(), fill(path), role)
    })
    .collect()
}

#[test]
fn with_tokens_every_operation_needs_its_role_and_no_page_of_another_origin_has_it() {
    let file = TokensFile::new();
    let admin = format!("admin: {{ address: \"127.0.0.1:0\", tokens_file: {:?} }}\n", file.0);
    let scene = Scene::start_with(&admin);
    let host = format!("Host: {}\r\n", scene.proxy.admin);
    let status = |method: &str, path: &str, fields: &str| {
        let answer = ask(&scene.proxy.admin, method, path, &format!("{host}{JSON}{fields}"), "");
        assert!(answer.all("access-control-allow-origin").is_empty());
        answer.status
    };
    assert_eq!(scene.json("GET", "/openapi.json", VIEWER, "").0, 200);
    let document = scene.json("GET", "/openapi.json", VIEWER, "").1;
    let before = scene.json("GET", "/status", VIEWER, "").1["revision"].clone();
    let mut changing = 0;
    for (method, path, role) in listed(&document) {
        if path == "/api/v1/events" {
            continue;
        }
        let Some(role) = role else {
            assert_eq!(status(&method, &path, ""), 200, "{method} {path}");
            continue;
        };
        let place = format!("{method} {path}");
        assert_eq!(status(&method, &path, ""), 401, "{place}");
        assert_eq!(
            status(&method, &path, "Authorization: Bearer viewer-0123456780\r\n"),
            401,
            "{place}"
        );
        assert_eq!(
            status(&method, &path, "Authorization: Basic viewer-0123456789\r\n"),
            401,
            "{place}"
        );
        if role == "operator" {
            changing += 1;
            assert_eq!(status(&method, &path, VIEWER), 403, "{place}");
        }
        if method != "GET" || path.starts_with("/api") {
            for foreign in [
                "Origin: http://evil.example\r\n",
                "Origin: null\r\n",
                "Sec-Fetch-Site: cross-site\r\n",
                "Sec-Fetch-Site: same-site\r\n",
            ] {
                assert_eq!(
                    status(&method, &path, &format!("{ADMIN}{foreign}")),
                    403,
                    "{place} {foreign}"
                );
            }
        }
    }
    assert!(changing >= 18, "only {changing} operations change anything");
    assert_eq!(scene.json("GET", "/status", VIEWER, "").1["revision"], before);
    let own = format!(
        "{OPERATOR}Origin: http://{}\r\nSec-Fetch-Site: same-origin\r\n",
        scene.proxy.admin
    );
    assert_eq!(status("POST", "/api/v1/rollouts/checkout/kill", &own), 200);
    let history = scene.json("GET", "/history?limit=1", VIEWER, "").1;
    assert_eq!(history["changes"][0]["actor"], "otto");
    let errors = scene.proxy.alarms();
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn without_tokens_only_a_loopback_host_is_answered() {
    let scene = Scene::start();
    let document = scene.json("GET", "/openapi.json", "", "").1;
    for (method, path, role) in listed(&document) {
        for host in ["evil.example", "127.0.0.1.nip.io", "10.0.0.1:9180", ""] {
            let fields = format!("Host: {host}\r\n{JSON}");
            let answer = ask(&scene.proxy.admin, &method, &path, &fields, "");
            assert_eq!(answer.status, 421, "{method} {path} of {host}");
        }
        if role.as_deref() == Some("operator") {
            let fields = format!("Host: localhost\r\n{JSON}Origin: http://localhost:1\r\n");
            assert_eq!(
                ask(&scene.proxy.admin, &method, &path, &fields, "").status,
                403,
                "{method} {path}"
            );
        }
    }
    assert_eq!(scene.revision(), 1);
}

#[test]
fn what_the_framework_refuses_is_a_problem_too() {
    let scene = Scene::start();
    let none = scene.ask("GET", "/nothing/here", "", "");
    let not_so = scene.ask("PATCH", "/api/v1/status", "", "");
    assert_eq!((none.status, not_so.status), (404, 405));
    assert_eq!(not_so.all("allow"), ["GET,HEAD"]);
    for answer in [none, not_so] {
        assert_eq!(
            answer.all("content-type"),
            ["application/problem+json"],
            "{}",
            answer.head
        );
        let problem: Value = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!(problem["status"], answer.status);
    }
}
