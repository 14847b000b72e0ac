//! The command line against the running program: every change once, and what becomes of it.

use serde_json::{Value, json};

use crate::cli::{Cli, same};

const SEARCH: &str = "name: search\nreleases: { stable: { pool: stable }, canary: { pool: canary } }\n";

#[test]
fn every_change_is_made_and_told() {
    let (_proxy, cli) = Cli::start();
    cli.file("search.yaml", SEARCH);
    cli.file("testers.txt", "a\nb\nc\n");
    let spec = |key: &str| cli.json(&["rollout", "get", "checkout"])["spec"][key].clone();
    same(
        "split",
        &cli.ok(&["rollout", "split", "checkout", "canary=20%", "-m", "looks well"]),
    );
    assert_eq!(spec("split"), json!({ "canary": "20%" }));
    same("kill", &cli.ok(&["rollout", "kill", "checkout"]));
    assert_eq!(spec("killed"), Value::Bool(true));
    same("resume", &cli.ok(&["rollout", "resume", "checkout"]));
    assert_eq!(spec("killed"), Value::Null);
    same("freeze", &cli.ok(&["rollout", "freeze", "checkout"]));
    let frozen = cli.run(&["rollout", "split", "checkout", "canary=30%"]);
    assert_eq!(frozen.code, 1);
    assert!(
        frozen.err.contains("`switchyard rollout unfreeze` ends the freeze"),
        "{}",
        frozen.err
    );
    same("unfreeze", &cli.ok(&["rollout", "unfreeze", "checkout"]));
    same("create", &cli.ok(&["rollout", "create", "search", "-f", "search.yaml"]));
    same(
        "user_set",
        &cli.ok(&[
            "user",
            "set",
            "checkout",
            "7",
            "canary",
            "--until",
            "2099-01-01T00:00:00Z",
        ]),
    );
    let pinned = cli.ok(&["user", "get", "checkout", "7"]);
    assert!(
        pinned.starts_with("7 is pinned to canary until 2099-01-01T00:00:00Z, in "),
        "{pinned}"
    );
    same("user_unset", &cli.ok(&["user", "unset", "checkout", "7"]));
    assert_eq!(cli.run(&["user", "get", "checkout", "7"]).code, 1);
    same(
        "segment_create",
        &cli.ok(&["segment", "create", "testers", "-f", "testers.txt"]),
    );
    same("segment_add", &cli.ok(&["segment", "add", "testers", "d", "e"]));
    same("segment_remove", &cli.ok(&["segment", "remove", "testers", "a"]));
    let got = cli.ok(&["segment", "get", "testers"]);
    let (when, rest): (Vec<&str>, Vec<&str>) = got.split_inclusive('\n').partition(|l| l.contains("  created "));
    assert_eq!(when.len(), 1, "{got}");
    same("segment_get", &rest.concat());
    assert_eq!(cli.ok(&["segment", "export", "testers", "--plain"]), "b\nc\nd\ne\n");
    same("delete", &cli.ok(&["rollout", "delete", "search"]));
    same("undo", &cli.ok(&["rollout", "undo"]));
    let undone = cli.ok(&["rollout", "undo", "--to", "1"]);
    assert!(
        undone.starts_with("undone to revision 1\n") && undone.ends_with("revision 15, live\n"),
        "{undone}"
    );
    assert_eq!(spec("split"), json!({ "canary": "12.5%" }));
    assert_eq!(cli.run(&["rollout", "get", "search"]).code, 1);
    let routed = cli.run(&["rollout", "delete", "checkout"]);
    assert_eq!(
        (routed.code, routed.err.contains("take it out of routes first")),
        (1, true),
        "{}",
        routed.err
    );
    cli.file("others.txt", "x\n");
    cli.ok(&["segment", "create", "others", "-f", "others.txt"]);
    same("segment_delete", &cli.ok(&["segment", "delete", "others"]));
}

#[test]
fn a_dry_run_tells_and_changes_nothing() {
    let (_proxy, cli) = Cli::start();
    cli.file("search.yaml", SEARCH);
    cli.file("others.yaml", SEARCH.replace("search", "others"));
    cli.file("users.txt", "1\n2\n");
    cli.ok(&["rollout", "create", "others", "-f", "others.yaml"]);
    cli.ok(&["user", "set", "checkout", "9", "canary"]);
    let before = cli.revision();
    for args in [
        &["rollout", "split", "checkout", "canary=50%"][..],
        &["rollout", "kill", "checkout"],
        &["rollout", "freeze", "checkout"],
        &["rollout", "create", "search", "-f", "search.yaml"],
        &["rollout", "apply", "-f", "search.yaml"],
        &["rollout", "delete", "others"],
        &["rollout", "undo"],
        &["user", "set", "checkout", "7", "canary"],
        &["user", "unset", "checkout", "9"],
        &["user", "import", "checkout", "canary", "users.txt", "--replace"],
        &["segment", "create", "others", "-f", "users.txt"],
        &["segment", "add", "testers", "1"],
    ] {
        let told = cli.ok(&[args, &["--dry-run"]].concat());
        assert!(
            told.ends_with("dry run, nothing was changed\n") && told.lines().count() > 1,
            "{args:?}: {told}"
        );
        assert_eq!(cli.revision(), before, "{args:?}");
    }
}

#[test]
fn apply_is_one_change_with_its_diff() {
    let (_proxy, cli) = Cli::start();
    let both = "rollouts:\n  checkout:\n    releases: { stable: { pool: stable }, canary: { pool: canary } }\n    \
         split: { canary: 25% }\n  search:\n    releases: { stable: { pool: stable } }\n";
    cli.file("both.yaml", both);
    same(
        "apply",
        &cli.ok(&["rollout", "apply", "-f", "both.yaml", "-m", "release 5"]),
    );
    assert_eq!(cli.revision(), 2);
    assert_eq!(
        cli.ok(&["rollout", "apply", "-f", "both.yaml"]),
        "nothing to change, revision 2\n"
    );
    // One of them alone, where it is named.
    cli.file("both.yaml", both.replace("25%", "30%"));
    let none = cli.run(&["rollout", "apply", "other", "-f", "both.yaml"]);
    let text = "both.yaml: holds no rollout other, but checkout, search: say one of them, or write `name: other`\n";
    assert_eq!((none.code, none.err.as_str()), (2, text));
    let nothing = cli.ok(&["rollout", "apply", "search", "-f", "both.yaml"]);
    assert_eq!(nothing, "nothing to change, revision 2\n");
    assert!(
        cli.ok(&["rollout", "apply", "checkout", "-f", "both.yaml"])
            .contains("30%")
    );
    let wrong = "name: search\nreleases: { stable: { pool: nope } }\nsplit: { canary: 5% }\n";
    let refused = cli.run_with(&["rollout", "apply", "-f", "-"], wrong);
    assert_eq!(refused.code, 2);
    same("apply_wrong", &refused.err);
    let unknown = cli.run_with(
        &["rollout", "apply", "-f", "-"],
        "name: search\nspilt: {}\nreleases: {}\n",
    );
    assert_eq!(unknown.code, 2);
    assert!(
        unknown.err.starts_with("standard input:2:1: spilt: "),
        "{}",
        unknown.err
    );
}

#[test]
fn what_was_read_can_be_edited_and_applied_unless_it_moved_on() {
    let (_proxy, cli) = Cli::start();
    let read = cli.ok(&["rollout", "get", "checkout", "-o", "json"]);
    let apply = |text: &str| cli.run_with(&["rollout", "apply", "checkout", "-f", "-"], text);
    assert_eq!(apply(&read).out, "nothing to change, revision 1\n");
    let edited = read.replace("\"split\":{\"canary\":\"12.5%\"}", "\"split\":{\"canary\":\"30%\"}");
    assert_ne!(edited, read);
    assert!(apply(&edited).out.contains("+ checkout.split.canary: 30%"));
    assert_eq!(apply(&edited).out, "nothing to change, revision 2\n");
    let late = apply(&edited.replace("30%", "40%"));
    assert_eq!(late.code, 3);
    assert!(
        late.err
            .starts_with("rollout checkout is at revision 2, and the file was read at 1"),
        "{}",
        late.err
    );
    let nameless = cli.run_with(&["rollout", "apply", "-f", "-"], &read);
    assert_eq!(nameless.code, 2);
    let list = cli.ok(&["rollout", "list", "-o", "json"]);
    assert_eq!(
        cli.run_with(&["rollout", "apply", "-f", "-"], &list).out,
        "nothing to change, revision 2\n"
    );
}

#[test]
fn a_change_can_wait_for_its_time_and_be_taken_back() {
    let (_proxy, cli) = Cli::start();
    let told = cli.ok(&[
        "rollout",
        "split",
        "checkout",
        "canary=50%",
        "--at",
        "2099-01-01T00:00:00Z",
    ]);
    assert!(told.ends_with("scheduled as 2 for 2099-01-01T00:00:00Z\n"), "{told}");
    let waits = cli.ok(&["rollout", "schedule", "list"]);
    assert!(
        waits.contains("2099-01-01T00:00:00Z") && waits.contains("checkout: split canary 50%"),
        "{waits}"
    );
    assert_eq!(
        cli.json(&["rollout", "get", "checkout"])["spec"]["split"]["canary"],
        "12.5%"
    );
    cli.ok(&["rollout", "schedule", "cancel", "2"]);
    assert_eq!(cli.ok(&["rollout", "schedule", "list"]), "nothing is scheduled\n");
    let over = cli.run(&["rollout", "kill", "checkout", "--at", "2001-01-01T00:00:00Z"]);
    assert_eq!(over.code, 1);
    assert!(over.err.contains("is over: write a time to come"), "{}", over.err);
    let soon = cli.ok(&["rollout", "kill", "checkout", "--at", "7d"]);
    assert!(soon.contains("scheduled as "), "{soon}");
}

#[test]
fn the_history_knows_who_why_and_by_what() {
    let (_proxy, cli) = Cli::start();
    cli.ok(&["rollout", "kill", "checkout", "-m", "100% café"]);
    let latest = cli.json(&["rollout", "history", "-n", "1"])["changes"][0].clone();
    assert_eq!(
        (&latest["reason"], &latest["source"]),
        (&json!("100% café"), &json!("cli"))
    );
}

#[test]
fn another_revision_or_what_exists_is_a_conflict() {
    let (_proxy, cli) = Cli::start();
    cli.file("checkout.yaml", SEARCH.replace("search", "checkout"));
    cli.file("users.txt", "1\n");
    cli.ok(&["rollout", "kill", "checkout"]);
    let moved = cli.run(&["rollout", "resume", "checkout", "--if-match", "1"]);
    assert_eq!(moved.code, 3);
    assert!(moved.err.contains("--if-match 2"), "{}", moved.err);
    assert!(cli.run(&["rollout", "resume", "checkout", "--if-match", "2"]).code == 0);
    let exists = cli.run(&["rollout", "create", "checkout", "-f", "checkout.yaml"]);
    assert_eq!(exists.code, 3);
    let looked = cli.run(&["rollout", "create", "checkout", "-f", "checkout.yaml", "--dry-run"]);
    assert_eq!((looked.code, &looked.err), (3, &exists.err));
    assert_eq!(
        exists.err,
        "rollout checkout exists at revision 3: `switchyard rollout apply checkout -f checkout.yaml` changes it\n"
    );
    cli.ok(&["segment", "create", "others", "-f", "users.txt"]);
    let there = cli.run(&["segment", "create", "others", "-f", "users.txt"]);
    assert_eq!(
        (there.code, there.err.contains("--replace replaces its users")),
        (3, true),
        "{}",
        there.err
    );
    let looked = cli.run(&["segment", "create", "others", "-f", "users.txt", "--dry-run"]);
    assert_eq!((looked.code, &looked.err), (3, &there.err));
    cli.ok(&["segment", "create", "others", "-f", "users.txt", "--replace"]);
}
