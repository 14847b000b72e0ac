//! The OpenAPI document is true: every operation in it is driven, and answers what it says.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::admin_client::{CSV, JSON, NDJSON, Scene, if_match};
use crate::harness::{Answer, connect, read_head};
use std::io::Write;

const SPEC: &str = r#"{"releases":{"stable":{"pool":"stable"},"canary":{"pool":"canary"}},"split":{"canary":"5%"}}"#;

struct Drive<'a> {
    scene: &'a Scene,
    document: Value,
    driven: BTreeSet<String>,
}

impl Drive<'_> {
    /// One request of an operation: its status and type are among those that the document says.
    fn drive(&mut self, id: &str, path: &str, fields: &str, body: &str) -> Answer {
        let (method, operation) = self.operation(id);
        let answer = self.scene.ask(&method.to_uppercase(), path, fields, body);
        self.check(
            id,
            &operation,
            answer.status,
            answer.all("content-type").first().copied(),
        );
        answer
    }

    fn check(&mut self, id: &str, operation: &Value, status: u16, kind: Option<&str>) {
        let said = &operation["responses"][status.to_string()]["content"];
        let said = said.as_object().unwrap_or_else(|| panic!("{id} does not say {status}"));
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
        assert!(
            said.contains_key(kind),
            "{id} says {:?} for {status}, not {kind}",
            said.keys()
        );
        self.driven.insert(id.to_owned());
    }

    fn good(&mut self, id: &str, path: &str, fields: &str, body: &str) -> Value {
        let answer = self.drive(id, path, fields, body);
        assert!(
            matches!(answer.status, 200..=202),
            "{id}: {} {}",
            answer.status,
            answer.body
        );
        serde_json::from_str(&answer.body).unwrap_or(Value::Null)
    }

    fn operation(&self, id: &str) -> (String, Value) {
        let all = operations(&self.document);
        let found = all.into_iter().find(|(_, _, operation)| operation["operationId"] == id);
        let (_, method, operation) = found.unwrap_or_else(|| panic!("no operation {id}"));
        (method, operation)
    }
}

/// Path, method, operation.
pub fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().expect("paths");
    let each = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().expect("methods").iter();
        methods.map(move |(method, operation)| (path.clone(), method.clone(), operation.clone()))
    });
    each.collect()
}

#[test]
fn every_operation_of_the_document_answers_as_it_says() {
    let scene = Scene::start();
    let document = scene.json("GET", "/openapi.json", "", "").1;
    let mut drive = Drive {
        scene: &scene,
        document: document.clone(),
        driven: BTreeSet::new(),
    };
    reads(&mut drive);
    rollouts(&mut drive);
    users(&mut drive);
    segments(&mut drive);
    late(&mut drive);
    events(&mut drive);
    let all: BTreeSet<String> = operations(&document)
        .iter()
        .map(|(_, _, operation)| operation["operationId"].as_str().expect("an id").to_owned())
        .collect();
    assert_eq!(drive.driven, all);
}

fn reads(drive: &mut Drive<'_>) {
    for (id, path) in [
        ("health", "/healthz"),
        ("readiness", "/readyz"),
        ("page", "/"),
        ("metrics", "/metrics"),
        ("document", "/api/v1/openapi.json"),
        ("status", "/api/v1/status"),
        ("history", "/api/v1/history?limit=1"),
        ("schedule", "/api/v1/schedule"),
        ("listRollouts", "/api/v1/rollouts"),
        ("listSegments", "/api/v1/segments"),
        ("getRollout", "/api/v1/rollouts/checkout"),
    ] {
        drive.good(id, path, "", "");
    }
    for (id, path, status) in [
        ("history", "/api/v1/history?limit=0", 400),
        ("history", "/api/v1/history?nonsense=1", 400),
        ("getRollout", "/api/v1/rollouts/none", 404),
        ("getRollout", "/api/v1/rollouts/-", 400),
        ("status", "/api/v1/status", 200),
    ] {
        assert_eq!(drive.drive(id, path, "", "").status, status, "{id} {path}");
    }
}

fn rollouts(drive: &mut Drive<'_>) {
    let one = "/api/v1/rollouts/extra";
    let created = drive.drive("putRollout", one, JSON, SPEC);
    assert_eq!((created.status, created.all("location")), (201, vec![one]));
    let tag = |answer: &Answer| format!("If-Match: {}\r\n", answer.all("etag")[0]);
    assert_eq!(drive.drive("putRollout", one, JSON, SPEC).status, 428);
    let json = |fields: &str| format!("{JSON}{fields}");
    let patched = drive.drive(
        "patchRollout",
        one,
        &json(&tag(&created)),
        r#"{"split":{"canary":"6%"}}"#,
    );
    assert_eq!(patched.status, 200, "{}", patched.body);
    assert_eq!(drive.drive("putRollout", one, &json(&tag(&created)), SPEC).status, 409);
    drive.good("splitRollout", &format!("{one}/split"), JSON, r#"{"canary":"7%"}"#);
    drive.good(
        "planRollout",
        &format!("{one}/plan"),
        JSON,
        r#"{"split":{"canary":"50%"}}"#,
    );
    let late = json(&if_match(1_000_000));
    let body = r#"{"split":{"canary":"50%"}}"#;
    assert_eq!(
        drive.drive("planRollout", &format!("{one}/plan"), &late, body).status,
        409
    );
    drive.good("explain", &format!("{one}/explain"), JSON, r#"{"user":"42"}"#);
    for act in ["kill", "resume", "freeze", "unfreeze"] {
        drive.good(&format!("{act}Rollout"), &format!("{one}/{act}"), "", "");
    }
    let revision = drive.scene.revision();
    let body = format!("{{\"rollouts\":{{\"extra\":{SPEC}}}}}");
    drive.good("applyRollouts", "/api/v1/apply", &json(&if_match(revision)), &body);
    let wrong = drive.drive("splitRollout", &format!("{one}/split"), JSON, r#"{"none":"7%"}"#);
    assert_eq!(wrong.status, 422);
    assert_eq!(
        drive
            .drive(
                "splitRollout",
                &format!("{one}/split"),
                "Content-Type: text/plain\r\n",
                "{}"
            )
            .status,
        415
    );
    assert_eq!(
        drive.drive("splitRollout", &format!("{one}/split"), JSON, "{").status,
        400
    );
    let deleted = drive.drive("deleteRollout", one, &if_match(drive.scene.revision()), "");
    assert_eq!(deleted.status, 200, "{}", deleted.body);
}

fn users(drive: &mut Drive<'_>) {
    let many = "/api/v1/rollouts/checkout/users";
    drive.good("importUsers", many, NDJSON, "{\"user\":\"1\",\"release\":\"canary\"}\n");
    drive.good("setUser", &format!("{many}/a%2Fb"), JSON, r#"{"release":"canary"}"#);
    assert_eq!(drive.good("getUser", &format!("{many}/a%2Fb"), "", "")["user"], "a/b");
    drive.good("listUsers", &format!("{many}?limit=1&after=1"), "", "");
    drive.good("exportUsers", "/api/v1/rollouts/checkout/export", "", "");
    drive.good("unsetUser", &format!("{many}/1"), "", "");
    assert_eq!(drive.drive("getUser", &format!("{many}/1"), "", "").status, 404);
}

fn segments(drive: &mut Drive<'_>) {
    let one = "/api/v1/segments/testers";
    drive.good("putSegment", one, CSV, "a\nb\n");
    drive.good("getSegment", one, "", "");
    drive.good("listMembers", &format!("{one}/users?limit=1"), "", "");
    drive.good("exportMembers", &format!("{one}/export"), "", "");
    drive.good("exportMembers", &format!("{one}/export?format=plain"), "", "");
    drive.good("addMembers", &format!("{one}/add"), JSON, r#"{"users":["c"]}"#);
    drive.good("removeMembers", &format!("{one}/remove"), JSON, r#"{"users":["a"]}"#);
    assert_eq!(drive.drive("putSegment", one, CSV, "a\n").status, 428);
    let revision = drive.scene.revision();
    drive.good("deleteSegment", one, &if_match(revision), "");
}

fn late(drive: &mut Drive<'_>) {
    let kill = "/api/v1/rollouts/checkout/kill?at=2100-01-01T00:00:00Z";
    let scheduled = drive.drive("killRollout", kill, "", "");
    assert_eq!(scheduled.status, 202, "{}", scheduled.body);
    let body: Value = serde_json::from_str(&scheduled.body).expect("JSON");
    let id = body["scheduled"].as_u64().expect("its number");
    drive.good("unschedule", &format!("/api/v1/schedule/{id}"), "", "");
    assert_eq!(
        drive
            .drive("unschedule", &format!("/api/v1/schedule/{id}"), "", "")
            .status,
        404
    );
    drive.good("undo", "/api/v1/undo", "", "");
}

fn events(drive: &mut Drive<'_>) {
    let mut stream = connect(&drive.scene.proxy.admin);
    stream
        .write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("written");
    let head = read_head(&mut stream).expect("a head");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let (_, operation) = drive.operation("events");
    let kind = crate::harness::fields(&head, "content-type")[0].to_owned();
    drive.check("events", &operation, 200, Some(&kind));
}
