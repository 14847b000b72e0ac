//! Lists of users: imported in one change or not at all, exported, and segments with a target.

use crate::admin_client::{CSV, NDJSON, PLAIN, Scene, if_match};

const USERS: &str = "/api/v1/rollouts/checkout/users";
const EXPORT: &str = "/api/v1/rollouts/checkout/export";

fn problem(body: &str) -> serde_json::Value {
    serde_json::from_str(body).expect("JSON")
}

#[test]
fn an_import_merges_or_replaces_and_an_export_gives_it_back() {
    let scene = Scene::start();
    let first = scene.ask("POST", USERS, CSV, "user,release\n1,canary\n2,canary\n\"a,b\",stable\n");
    assert_eq!(first.status, 200, "{}", first.body);
    assert_eq!(
        (scene.origin_of("1"), scene.origin_of("3")),
        ("canary".to_owned(), "stable".to_owned())
    );
    let merged = scene.ask("POST", &format!("{USERS}?release=canary"), PLAIN, "3\n");
    assert_eq!(merged.status, 200, "{}", merged.body);
    let all = scene.ask("GET", EXPORT, "", "").body;
    assert_eq!(
        all,
        "{\"user\":\"1\",\"release\":\"canary\"}\n{\"user\":\"2\",\"release\":\"canary\"}\n\
         {\"user\":\"3\",\"release\":\"canary\"}\n{\"user\":\"a,b\",\"release\":\"stable\"}\n"
    );
    let replaced = scene.ask(
        "POST",
        &format!("{USERS}?mode=replace"),
        NDJSON,
        "{\"user\":\"9\",\"release\":\"canary\"}",
    );
    assert_eq!(replaced.status, 200, "{}", replaced.body);
    assert_eq!(
        (scene.origin_of("1"), scene.origin_of("9")),
        ("stable".to_owned(), "canary".to_owned())
    );
    let back = scene.ask("POST", &format!("{USERS}?mode=replace"), NDJSON, &all);
    assert_eq!(back.status, 200, "{}", back.body);
    assert_eq!(scene.ask("GET", EXPORT, "", "").body, all);
    assert_eq!(scene.revision(), 5);
}

#[test]
fn one_bad_line_fails_all_with_its_number() {
    let scene = Scene::start();
    let bad = scene.ask("POST", USERS, CSV, "1,canary\n2,beta\n3\n1,stable\n");
    assert_eq!(bad.status, 422);
    let problems = problem(&bad.body)["problems"].clone();
    let keys: Vec<&str> = problems
        .as_array()
        .expect("problems")
        .iter()
        .filter_map(|p| p["key"].as_str())
        .collect();
    assert_eq!(keys, ["line 2", "line 3", "line 4"]);
    assert!(
        problems[2]["message"].as_str().is_some_and(|m| m.contains("line 1 ")),
        "{problems}"
    );
    assert_eq!(scene.revision(), 1);
    assert_eq!(
        scene
            .ask("POST", USERS, "Content-Type: application/json\r\n", "[]")
            .status,
        415
    );
    assert_eq!(
        scene
            .ask("POST", &format!("{USERS}?mode=other"), CSV, "1,canary\n")
            .status,
        400
    );
    assert_eq!(
        scene
            .ask("POST", "/api/v1/rollouts/none/users", CSV, "1,canary\n")
            .status,
        404
    );
}

#[test]
fn a_long_list_is_one_change_and_is_read_in_pages() {
    let scene = Scene::start();
    let list: String = (0..30_000)
        .map(|n| format!("{{\"user\":\"u{n:05}\",\"release\":\"canary\"}}\n"))
        .collect();
    let made = scene.ask("POST", USERS, NDJSON, &list);
    assert_eq!(made.status, 200, "{}", made.body);
    assert_eq!(scene.revision(), 2);
    let (mut after, mut count) = (String::new(), 0);
    loop {
        let page = scene
            .json("GET", &format!("/rollouts/checkout/users?limit=1000{after}"), "", "")
            .1;
        count += page["users"].as_array().expect("users").len();
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(count, 30_000);
    assert_eq!(scene.ask("GET", EXPORT, "", "").body, list);
    assert_eq!(scene.origin_of("u29999"), "canary");
}

#[test]
fn the_users_of_a_segment_go_where_its_target_says() {
    let scene = Scene::start();
    assert_eq!(
        scene.ask("PUT", "/api/v1/segments/testers", PLAIN, "1\n2\n").status,
        200
    );
    let target = r#"{"targets":[{"segment":"testers","release":"canary"}]}"#;
    scene.made_if("PATCH", "/rollouts/checkout", &if_match(scene.revision()), target);
    let origins = || ["1", "2", "3"].map(|user| scene.origin_of(user));
    assert_eq!(origins(), ["canary", "canary", "stable"]);
    scene.made("POST", "/segments/testers/add", r#"{"users":["3"]}"#);
    scene.made("POST", "/segments/testers/remove", r#"{"users":["1"]}"#);
    assert_eq!(origins(), ["stable", "canary", "canary"]);
    let segment = scene.json("GET", "/segments/testers", "", "").1;
    assert_eq!(segment["users"], 2);
    let now = if_match(scene.revision());
    let (status, problem) = scene.json("DELETE", "/segments/testers", &now, "");
    assert_eq!(
        (status, &problem["type"]),
        (422, &"refused".into()),
        "a target names it"
    );
    let replaced = scene.ask("PUT", "/api/v1/segments/testers", &format!("{PLAIN}{now}"), "1\n");
    assert_eq!(replaced.status, 200, "{}", replaced.body);
    assert_eq!(origins(), ["canary", "stable", "stable"]);
    assert_eq!(scene.ask("PUT", "/api/v1/segments/x", CSV, "1,canary\n").status, 422);
}

#[test]
fn whatever_a_user_is_called_it_is_one_user() {
    let scene = Scene::start();
    for user in ["export", ".", "..", "a%2Fb", "%25", "-x", "%C3%BC"] {
        let path = format!("/rollouts/checkout/users/{user}");
        let (status, answer) = scene.json("PUT", &path, "", r#"{"release":"canary"}"#);
        assert_eq!(status, 200, "{user}: {answer}");
        let (status, answer) = scene.json("GET", &path, "", "");
        assert_eq!(
            (status, &answer["release"]),
            (200, &"canary".into()),
            "{user}: {answer}"
        );
    }
}

#[test]
fn a_user_whom_no_request_can_be_is_not_kept_and_explain_says_who_asks() {
    let scene = Scene::start_with("identity: { normalise: [trim, unquote, lowercase] }\n");
    scene.made("PUT", "/rollouts/checkout/users/alice", r#"{"release":"canary"}"#);
    assert_eq!(scene.origin_of("ALICE"), "canary");
    let (_, told) = scene.json("POST", "/rollouts/checkout/explain", "", r#"{"user":"ALICE"}"#);
    assert_eq!(told["explanation"]["release"], "canary", "{told}");
    let first = &told["explanation"]["steps"][0];
    let why = "identity.normalise makes \"ALICE\" of a request \"alice\"";
    assert_eq!(
        (&first["step"], &first["why"]),
        (&"identity".into(), &why.into()),
        "{told}"
    );
    let revision = if_match(scene.revision());
    let pins = r#"{"BOB":"canary","bob":"canary"}"#;
    let spec = format!("{{\"releases\":{{\"stable\":{{\"pool\":\"stable\"}}}},\"users\":{pins}}}");
    for (method, path, body, key) in [
        (
            "PUT",
            "rollouts/checkout/users/BOB",
            r#"{"release":"canary"}"#.to_owned(),
            "user BOB",
        ),
        ("PUT", "rollouts/new", spec.clone(), "users.BOB"),
        (
            "POST",
            "apply",
            format!("{{\"rollouts\":{{\"new\":{spec}}}}}"),
            "rollouts.new.users.BOB",
        ),
        (
            "PATCH",
            "rollouts/checkout",
            format!("{{\"users\":{pins}}}"),
            "users.BOB",
        ),
        (
            "POST",
            "segments/testers/add",
            r#"{"users":["bob","BOB"]}"#.to_owned(),
            "users[1]",
        ),
    ] {
        let (status, told) = scene.json(method, &format!("/{path}"), &revision, &body);
        let message = "the user id is that of no request: identity.normalise makes it \"bob\", write that";
        let wanted = serde_json::json!([{ "key": key, "message": message }]);
        assert_eq!((status, &told["problems"]), (422, &wanted), "{told}");
    }
    for (method, path) in [
        ("POST", "/api/v1/rollouts/checkout/users?release=canary"),
        ("PUT", "/api/v1/segments/testers"),
    ] {
        let answer = scene.ask(method, path, PLAIN, "bob\nBOB\ncarol\n");
        let told = problem(&answer.body);
        assert_eq!(
            (answer.status, &told["problems"][0]["key"]),
            (422, &"line 2".into()),
            "{told}"
        );
        assert!(
            told["detail"].as_str().is_some_and(|text| text.contains("\"bob\"")),
            "{told}"
        );
    }
    // Whoever was kept before can be taken out.
    scene.made("DELETE", "/rollouts/checkout/users/BOB", "");
}
