//! Changes through the admin side: visible to the very next request, conditional, repeatable, recorded, undoable.

use std::io::{BufRead, BufReader, Write};

use crate::admin_client::{JSON, NDJSON, PLAIN, Scene, if_match};
use crate::harness::connect;

const CANARY: &str = r#"{"release":"canary"}"#;

#[test]
fn the_request_after_an_answer_sees_the_change() {
    let scene = Scene::start();
    for round in 0..5 {
        scene.made("PUT", "/rollouts/checkout/users/42", CANARY);
        assert_eq!(scene.origin_of("42"), "canary", "{round}");
        scene.made("DELETE", "/rollouts/checkout/users/42", "");
        assert_eq!(scene.origin_of("42"), "stable", "{round}");
    }
    scene.made("PUT", "/rollouts/checkout/split", r#"{"canary":"100%"}"#);
    assert_eq!(scene.origin_of("42"), "canary");
    scene.made("POST", "/rollouts/checkout/kill", "");
    assert_eq!(scene.origin_of("42"), "stable");
    scene.made("POST", "/rollouts/checkout/resume", "");
    assert_eq!(scene.origin_of("42"), "canary");
    scene.made("PUT", "/rollouts/checkout/split", r#"{"canary":"0%"}"#);
    scene.made("POST", "/rollouts/checkout/freeze", "");
    let (status, problem) = scene.json("PUT", "/rollouts/checkout/users/7", "", CANARY);
    assert_eq!((status, &problem["type"]), (422, &"frozen".into()), "{problem}");
    scene.made("POST", "/rollouts/checkout/unfreeze", "");
    scene.made("PUT", "/rollouts/checkout/users/7", CANARY);
}

#[test]
fn a_change_needs_the_revision_that_it_replaces() {
    let scene = Scene::start();
    let read = scene.json("GET", "/rollouts/checkout", "", "").1;
    let revision = read["revision"].as_u64().expect("a revision");
    let mut spec = read["spec"].clone();
    spec["split"] = serde_json::json!({"canary": "10%"});
    let body = spec.to_string();
    let put = |fields: &str| scene.json("PUT", "/rollouts/checkout", fields, &body);
    let (status, problem) = put("");
    assert_eq!((status, &problem["revision"]), (428, &revision.into()));
    for bad in ["If-Match: *\r\n", "If-Match: W/\"1\"\r\n", "If-Match: 1\r\n"] {
        assert_eq!(put(bad).0, 400, "{bad}");
    }
    // The ranges that were read along do not stand in the way of other shares.
    let (status, changed) = put(&if_match(revision));
    assert_eq!(status, 200, "{changed}");
    let (status, problem) = put(&if_match(revision));
    assert_eq!((status, &problem["revision"]), (409, &changed["revision"]));
    scene.made("PUT", "/rollouts/checkout/users/1", CANARY);
    let now = scene.revision();
    scene.made_if(
        "PATCH",
        "/rollouts/checkout",
        &if_match(now),
        r#"{"split":{"canary":"11%"},"unhealthy":"stable"}"#,
    );
    let after = scene.json("GET", "/rollouts/checkout", "", "").1;
    assert_eq!(
        (&after["weights"]["canary"], &after["users"]),
        (&"11%".into(), &1.into())
    );
    let (status, problem) = scene.json("PATCH", "/rollouts/checkout", &if_match(now), "{}");
    assert_eq!((status, &problem["type"]), (409, &"conflict".into()));
}

#[test]
fn a_patch_is_made_once_under_its_key_and_leaves_what_it_does_not_name() {
    let scene = Scene::start();
    for user in ["3", "4", "5"] {
        scene.made("PUT", &format!("/rollouts/checkout/users/{user}"), CANARY);
    }
    let before = scene.revision();
    let fields = format!("{}Idempotency-Key: k-1\r\n", if_match(before));
    let body = r#"{"users":{"3":"stable","4":null,"6":"canary"},"unhealthy":"stable"}"#;
    let patch = |body: &str| scene.json("PATCH", "/rollouts/checkout", &fields, body);
    let (status, changed) = patch(body);
    assert_eq!((status, &changed["revision"]), (200, &(before + 1).into()), "{changed}");
    let (status, again) = patch(body);
    assert_eq!((status, &again["revision"]), (200, &(before + 1).into()), "{again}");
    let (status, other) = patch("{}");
    assert_eq!((status, &other["type"]), (422, &"key-reused".into()), "{other}");
    let users = scene.json("GET", "/rollouts/checkout/users", "", "").1;
    let users: Vec<_> = users["users"].as_array().expect("users").iter().collect();
    let users: Vec<_> = users
        .iter()
        .map(|u| (u["user"].as_str(), u["release"].as_str()))
        .collect();
    let (stable, canary) = (Some("stable"), Some("canary"));
    assert_eq!(users, [(Some("3"), stable), (Some("5"), canary), (Some("6"), canary)]);
    let spec = scene.json("GET", "/rollouts/checkout", "", "").1;
    assert_eq!(spec["spec"]["unhealthy"], "stable");
    // A user may come into a release that comes with it, and all may go out.
    let more = r#"{"releases":{"next":{"pool":"canary"}},"users":{"7":"next"}}"#;
    scene.made_if("PATCH", "/rollouts/checkout", &if_match(scene.revision()), more);
    let (status, problem) = scene.json(
        "PATCH",
        "/rollouts/checkout",
        &if_match(scene.revision()),
        r#"{"users":{"8":"none"}}"#,
    );
    assert_eq!(status, 422, "{problem}");
    scene.made_if(
        "PATCH",
        "/rollouts/checkout",
        &if_match(scene.revision()),
        r#"{"users":null}"#,
    );
    assert_eq!(scene.json("GET", "/rollouts/checkout", "", "").1["users"], 0);
}

#[test]
fn a_dry_run_says_all_and_changes_nothing() {
    let scene = Scene::start();
    let before = scene.revision();
    for (method, path, body) in [
        ("PUT", "/rollouts/checkout/split", r#"{"canary":"100%"}"#),
        ("PUT", "/rollouts/checkout/users/42", CANARY),
        ("POST", "/rollouts/checkout/freeze", ""),
        ("PUT", "/rollouts/new", r#"{"releases":{"stable":{"pool":"stable"}}}"#),
        (
            "PUT",
            "/rollouts/checkout",
            r#"{"releases":{"stable":{"pool":"stable"}}}"#,
        ),
    ] {
        let (status, answer) = scene.json(method, &format!("{path}?dry_run=true"), "", body);
        assert_eq!(status, 200, "{answer}");
        assert_eq!((&answer["dry_run"], &answer["changed"]), (&true.into(), &false.into()));
        assert!(
            answer["diff"].as_array().is_some_and(|diff| !diff.is_empty()),
            "{answer}"
        );
    }
    assert_eq!(scene.revision(), before);
    assert_eq!(scene.origin_of("42"), "stable");
}

#[test]
fn a_repeated_request_is_made_once_and_another_one_under_its_key_is_refused() {
    let scene = Scene::start();
    let key = "Idempotency-Key: k-1\r\n";
    let path = "/rollouts/checkout/users/42";
    let first = scene.made_if("PUT", path, key, CANARY);
    scene.made("DELETE", path, "");
    assert_eq!(scene.made_if("PUT", path, key, CANARY), first);
    assert_eq!(scene.origin_of("42"), "stable");
    let (status, problem) = scene.json("PUT", path, key, r#"{"release":"stable"}"#);
    assert_eq!((status, &problem["type"]), (422, &"key-reused".into()));
    let list = format!("{PLAIN}Idempotency-Key: k-2\r\n");
    let import = |body: &str| scene.ask("POST", "/api/v1/rollouts/checkout/users?release=canary", &list, body);
    let (one, two) = (import("a\nb\n"), import("a\nb\n"));
    assert_eq!((one.status, two.status), (200, 200), "{} {}", one.body, two.body);
    assert_eq!(import("a\nc\n").status, 422);
}

#[test]
fn a_repeated_request_that_had_nothing_to_change_changes_nothing_later_either() {
    let scene = Scene::start();
    let path = "/rollouts/checkout/users/42";
    scene.made("PUT", path, CANARY);
    let key = "Idempotency-Key: k-1\r\n";
    let (status, first) = scene.json("PUT", path, key, CANARY);
    assert_eq!((status, &first["changed"]), (200, &false.into()), "{first}");
    scene.made("DELETE", path, "");
    let (status, again) = scene.json("PUT", path, key, CANARY);
    assert_eq!((status, &again["changed"]), (200, &false.into()), "{again}");
    assert_eq!(again["revision"], first["revision"]);
    assert_eq!(scene.origin_of("42"), "stable");
}

#[test]
fn a_list_of_users_who_are_all_so_already_is_no_change() {
    let scene = Scene::start();
    let list = |until: u32, n: u32| -> String {
        let lines = (0..n).map(|n| {
            format!(
                "{{\"user\":\"{}\",\"until\":\"{until}-01-01T00:00:00Z\"}}\n",
                n * 7 % 1000
            )
        });
        lines.collect()
    };
    let import = |query: &str, body: &str| {
        let path = format!("/api/v1/rollouts/checkout/users?release=canary{query}");
        let revision = scene.revision();
        let fields = format!("{NDJSON}{}", if_match(revision));
        let answer = scene.ask("POST", &path, &fields, body);
        let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!(answer.status, 200, "{body}");
        assert_eq!(scene.revision() > revision, body["changed"] == true, "{body}");
        body["changed"] == true
    };
    assert!(import("", &list(2999, 1000)));
    for query in ["", "&mode=replace"] {
        assert!(!import(query, &list(2999, 1000)), "{query}");
        assert!(import(query, &list(2998, 1000)), "{query}: another time");
        assert!(import(query, &list(2999, 1000)), "{query}: and back");
    }
    assert!(!import("", &list(2999, 500)));
    assert!(import("&mode=replace", &list(2999, 500)), "half of them go");
}

#[test]
fn a_pin_ends_at_its_time_and_the_history_says_so() {
    let scene = Scene::start();
    let path = "/rollouts/checkout/users/42";
    scene.made("PUT", path, r#"{"release":"canary","until":"9999-12-31T23:59:59Z"}"#);
    assert_eq!(scene.json("GET", path, "", "").1["until"], "9999-12-30T22:00:00Z");
    let (status, _) = scene.json(
        "PUT",
        path,
        "",
        r#"{"release":"canary","until":"2020-01-01T00:00:00Z"}"#,
    );
    assert_eq!(status, 422);
    // Far enough for the first request to see it, near enough to be waited for.
    let listener = listen(&scene);
    let soon = soon(4_000);
    scene.made("PUT", path, &format!("{{\"release\":\"canary\",\"until\":\"{soon}\"}}"));
    wait_for(listener, |event, text| event == "revision" && text.contains("is over"));
    assert_eq!(scene.origin_of("42"), "stable");
    let last = scene.json("GET", "/history?limit=1", "", "").1["changes"][0].clone();
    assert_eq!(
        (&last["source"], &last["actor"]),
        (&"expiry".into(), &"switchyard".into())
    );
}

#[test]
fn a_scheduled_change_is_made_when_its_time_comes() {
    let scene = Scene::start();
    let listener = listen(&scene);
    let path = format!("/rollouts/checkout/split?at={}", soon(4_000));
    let (status, answer) = scene.json("PUT", &path, "X-Reason: morgen fr%C3%BCh\r\n", r#"{"canary":"100%"}"#);
    assert_eq!(status, 202, "{answer}");
    let waiting = scene.json("GET", "/schedule", "", "").1;
    assert_eq!(waiting["scheduled"][0]["id"], answer["scheduled"]);
    wait_for(listener, |event, text| {
        event == "revision" && text.contains("split.canary")
    });
    assert_eq!(scene.origin_of("42"), "canary");
    assert_eq!(
        scene.json("GET", "/schedule", "", "").1["scheduled"],
        serde_json::json!([])
    );
    let last = scene.json("GET", "/history?rollout=checkout&limit=1", "", "").1["changes"][0].clone();
    assert_eq!(
        (&last["source"], &last["reason"]),
        (&"schedule".into(), &"morgen früh".into())
    );
    let (status, _) = scene.json("POST", "/rollouts/checkout/kill?at=2020-01-01T00:00:00Z", "", "");
    assert_eq!(status, 422);
}

#[test]
fn undo_is_a_change_and_history_has_it_all() {
    let scene = Scene::start();
    scene.made("PUT", "/rollouts/checkout/users/1", CANARY);
    let good = scene.revision();
    for share in ["10%", "20%", "100%"] {
        scene.made(
            "PUT",
            "/rollouts/checkout/split",
            &format!("{{\"canary\":\"{share}\"}}"),
        );
    }
    scene.made("DELETE", "/rollouts/checkout/users/1", "");
    let (_, undone) = scene.json("POST", "/undo", "X-Reason: wrong\r\n", &format!("{{\"to\":{good}}}"));
    // Each path once, as it was and as it is.
    assert_eq!(
        undone["diff"],
        serde_json::json!([
            {"path": "checkout.split.canary", "before": "100%", "after": null},
            {"path": "checkout.users.1", "before": null, "after": "canary"},
        ])
    );
    assert_eq!(
        (scene.origin_of("1"), scene.origin_of("2")),
        ("canary".to_owned(), "stable".to_owned())
    );
    // A type of no body is no body.
    let none = scene.ask("POST", "/api/v1/undo", JSON, "");
    assert_eq!(none.status, 200, "{}", none.body);
    let kind = "Content-Type: text/plain\r\n";
    for (fields, body) in [(kind, ""), (kind, "{}"), ("", r#"{"to":1}"#)] {
        assert_eq!(
            scene.ask("POST", "/api/v1/undo", fields, body).status,
            415,
            "{fields}{body}"
        );
    }
    assert_eq!(scene.ask("POST", "/api/v1/undo", JSON, "{").status, 400);
    assert_eq!(
        scene.ask("POST", "/api/v1/rollouts/checkout/resume", JSON, "").status,
        200
    );
    assert_eq!(
        (scene.origin_of("1"), scene.origin_of("2")),
        ("canary".to_owned(), "canary".to_owned())
    );
    let pages = [
        scene.json("GET", "/history?rollout=checkout&limit=3", "", "").1,
        scene.json("GET", &format!("/history?before={good}"), "", "").1,
    ];
    assert_eq!(pages[0]["changes"].as_array().map(Vec::len), Some(3));
    assert_eq!(pages[0]["changes"][1]["reason"], "wrong");
    assert_eq!(pages[0]["next"], pages[0]["changes"][2]["revision"]);
    assert_eq!(pages[1]["changes"][0]["source"], "seed");
    let (status, _) = scene.json("POST", "/undo", "", r#"{"to":1000}"#);
    assert_eq!(status, 404);
}

#[test]
fn a_list_is_no_object_by_the_order_of_its_fields() {
    let scene = Scene::start();
    let released = r#"[{"stable":{"pool":"stable"},"beta":{"pool":"canary"}}]"#;
    for (method, path) in [
        ("PATCH", "/rollouts/checkout"),
        ("PUT", "/rollouts/other"),
        ("POST", "/undo"),
    ] {
        let (status, problem) = scene.json(method, path, &if_match(scene.revision()), released);
        assert_eq!(status, 422, "{problem}");
        assert!(problem.to_string().contains("send an object"), "{problem}");
    }
}

#[test]
fn undo_means_what_somebody_asked_for_last() {
    let scene = Scene::start();
    let listener = listen(&scene);
    let pin = format!("{{\"release\":\"canary\",\"until\":\"{}\"}}", soon(2_000));
    scene.made("PUT", "/rollouts/checkout/users/1", &pin);
    scene.made("PUT", "/rollouts/checkout/split", r#"{"canary":"100%"}"#);
    wait_for(listener, |event, text| event == "revision" && text.contains("is over"));
    scene.made("POST", "/undo", "");
    assert_eq!(scene.origin_of("2"), "stable", "the split is undone");
    assert_eq!(scene.origin_of("1"), "stable", "the time of the pin is over still");
}

#[test]
fn explain_says_what_the_proxy_does() {
    let scene = Scene::start();
    let list = scene.ask("PUT", "/api/v1/segments/testers", PLAIN, "7\n8\n");
    assert_eq!(list.status, 200, "{}", list.body);
    let patch = r#"{"split":{"canary":"50%"},"targets":[{"segment":"testers","release":"canary"},
        {"when":{"header":"X-App","semver":">=5.2.0"},"release":"canary"}]}"#;
    scene.made_if("PATCH", "/rollouts/checkout", &if_match(scene.revision()), patch);
    scene.made("PUT", "/rollouts/checkout/users/9", CANARY);
    let mut reasons = std::collections::BTreeSet::new();
    for n in 0..40 {
        for version in ["", "5.3.0"] {
            let field = if version.is_empty() {
                String::new()
            } else {
                format!("X-App: {version}\r\n")
            };
            let body = serde_json::json!({"user": n.to_string(), "headers": if version.is_empty() {
                serde_json::json!({}) } else { serde_json::json!({"X-App": version}) }});
            let (status, said) = scene.json("POST", "/rollouts/checkout/explain", "", &body.to_string());
            assert_eq!(status, 200, "{said}");
            let done = scene.proxy.get("/", &format!("X-User-Id: {n}\r\n{field}"));
            assert_eq!(said["explanation"]["release"], done.body, "{said}");
            let line = scene.proxy.access_line();
            assert_eq!(said["explanation"]["reason"], line["reason"]);
            assert_eq!(said["explanation"]["bucket"], line["bucket"]);
            reasons.insert(line["reason"].to_string());
        }
    }
    assert_eq!(reasons.len(), 4, "{reasons:?}");
}

#[test]
fn a_plan_counts_the_users_that_were_seen() {
    let scene = Scene::start();
    for n in 0..30 {
        scene.origin_of(&n.to_string());
    }
    scene.proxy.settle(30);
    let (status, planned) = scene.json("POST", "/rollouts/checkout/plan", "", r#"{"split":{"canary":"100%"}}"#);
    assert_eq!(status, 200, "{planned}");
    assert_eq!(planned["plan"]["seen"], 30);
    assert_eq!(
        planned["plan"]["moves"],
        serde_json::json!([{"from": "stable", "to": "canary", "users": 30}])
    );
    assert_eq!(scene.revision(), 1);
    // With another salt nobody knows their bucket.
    scene.made("PUT", "/rollouts/checkout/split", r#"{"canary":"50%"}"#);
    let revision = scene.revision();
    let salted = scene.json(
        "PATCH",
        "/rollouts/checkout",
        &if_match(revision),
        r#"{"salt":"other"}"#,
    );
    assert_eq!((salted.0, &salted.1["type"]), (422, &"flips".into()), "{}", salted.1);
    scene.made_if(
        "PATCH",
        "/rollouts/checkout?allow_flips=true",
        &if_match(revision),
        r#"{"salt":"other"}"#,
    );
    let planned = scene
        .json("POST", "/rollouts/checkout/plan", "", r#"{"split":{"canary":"60%"}}"#)
        .1;
    assert_eq!(planned["plan"]["seen"], 0, "buckets of another salt are no buckets");
}

#[test]
fn events_tell_revisions_health_and_figures_to_as_many_as_may_listen() {
    let scene = Scene::start();
    let listener = listen(&scene);
    scene.made("POST", "/rollouts/checkout/kill", "");
    let mut figures = String::new();
    for n in 0..3 {
        scene.origin_of(&n.to_string());
    }
    wait_for(listener, |event, text| {
        if event == "figures" {
            let body: serde_json::Value = serde_json::from_str(text).expect("JSON");
            let stable = body["rollouts"]["checkout"]["stable"]["requests"].as_u64();
            if stable.is_some_and(|requests| requests > 0) {
                figures = text.to_owned();
            }
        }
        !figures.is_empty()
    });
    let mut full = Vec::new();
    let refused = loop {
        assert!(full.len() <= 64, "more than 64 listen");
        let mut stream = BufReader::new(connect(&scene.proxy.admin));
        let asked = b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.get_mut().write_all(asked).expect("written");
        let mut line = String::new();
        stream.read_line(&mut line).expect("a line");
        if !line.contains(" 200 ") {
            break line;
        }
        full.push(stream);
    };
    assert!(refused.contains(" 429 "), "{refused}");
    assert!(full.len() >= 63, "only {}", full.len());
}

#[test]
fn a_wrong_spec_is_told_with_all_that_is_wrong() {
    let scene = Scene::start();
    let spec = r#"{"releases":{"stable":{"pool":"none"},"b":{"pool":"nope"}},"split":{"c":"10%"}}"#;
    let (status, problem) = scene.json("PUT", "/rollouts/new", "", spec);
    assert_eq!((status, &problem["type"]), (422, &"invalid".into()));
    let keys: Vec<&str> = problem["problems"]
        .as_array()
        .expect("problems")
        .iter()
        .filter_map(|p| p["key"].as_str())
        .collect();
    assert!(
        keys.contains(&"new.releases.stable.pool") && keys.contains(&"new.releases.b.pool"),
        "{keys:?}"
    );
    assert!(keys.iter().any(|key| key.starts_with("new.split")), "{keys:?}");
    let spec = r#"{"releases":{"stable":{"pool":7}},"split":{"c":"200%"},"salts":"x"}"#;
    let (status, problem) = scene.json("PUT", "/rollouts/new", "", spec);
    let places = problem["problems"].as_array().expect("problems").iter();
    let mut keys: Vec<&str> = places.filter_map(|p| p["key"].as_str()).collect();
    keys.sort_unstable();
    assert_eq!((status, keys), (422, vec!["releases.stable.pool", "salts", "split.c"]));
    let patch = r#"{"split":{"canary":"200%"},"unhealthy":"x","bogus":1}"#;
    let (status, problem) = scene.json("PATCH", "/rollouts/checkout", &if_match(scene.revision()), patch);
    let places = problem["problems"].as_array().expect("problems").iter();
    let mut keys: Vec<&str> = places.filter_map(|p| p["key"].as_str()).collect();
    keys.sort_unstable();
    assert_eq!(
        (status, keys),
        (422, vec!["bogus", "split.canary", "unhealthy"]),
        "{problem}"
    );
    let (status, problem) = scene.json("PUT", "/rollouts/new", "", "{\n\"releases\": nonsense}");
    assert_eq!(
        (status, &problem["problems"][0]["key"]),
        (400, &"line 2, column 14".into()),
        "{problem}"
    );
    let answer = scene.ask("PUT", "/api/v1/rollouts/new", JSON, &" ".repeat(17 << 20));
    assert_eq!(answer.status, 413);
}

fn soon(millis: u64) -> String {
    let now = switchyard::clock::unix_millis();
    switchyard::clock::rfc3339(now + millis)
}

fn listen(scene: &Scene) -> impl BufRead {
    let mut stream = connect(&scene.proxy.admin);
    stream
        .write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("written");
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    lines.read_line(&mut line).expect("a line");
    assert!(line.contains(" 200 "), "{line}");
    lines
}

/// Reads events until one is the wanted one.
fn wait_for(lines: impl BufRead, mut wanted: impl FnMut(&str, &str) -> bool) {
    let mut event = String::new();
    for line in lines.lines() {
        let line = line.expect("the stream goes on");
        if let Some(name) = line.strip_prefix("event: ") {
            event = name.to_owned();
        }
        if let Some(text) = line.strip_prefix("data: ") {
            if wanted(&event, text) {
                return;
            }
        }
    }
    panic!("the stream ended");
}

#[test]
fn a_store_is_connected_before_anything_is_changed() {
    let scene = Scene::start();
    let metrics = scene.ask("GET", "/metrics", "", "").body;
    assert!(metrics.contains("\nswitchyard_store_connected 1\n"), "{metrics}");
}
