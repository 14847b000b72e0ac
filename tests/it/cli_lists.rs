//! The command line against the running program: lists of users in and out.

use crate::cli::Cli;

#[test]
fn lists_are_known_by_their_name_or_their_first_line() {
    let (_proxy, cli) = Cli::start();
    cli.file("plain.txt", "a,b\nc\n");
    cli.file("some.csv", "user,release\nd,stable\ne\n");
    cli.file("some.ndjson", "{\"user\":\"f\",\"release\":\"stable\"}\n");
    let import = |file: &str, input: &str| {
        let run = cli.run_with(&["user", "import", "checkout", "canary", file], input);
        assert_eq!((run.code, run.err.as_str()), (0, ""), "{run:?}");
    };
    import("plain.txt", "");
    import("some.csv", "");
    import("some.ndjson", "");
    import("-", "g\nh\n");
    import("-", "i,stable\n");
    import("-", "{\"user\":\"j\"}\n");
    let expected = [
        ("a,b", "canary"),
        ("c", "canary"),
        ("d", "stable"),
        ("e", "canary"),
        ("f", "stable"),
        ("g", "canary"),
        ("h", "canary"),
        ("i", "stable"),
        ("j", "canary"),
    ];
    let lines = expected.map(|(user, release)| format!("{{\"user\":\"{user}\",\"release\":\"{release}\"}}\n"));
    assert_eq!(cli.ok(&["user", "export", "checkout"]), lines.concat());
}

#[test]
fn a_packed_list_is_known_by_its_name_or_by_what_is_said_of_it() {
    let (_proxy, cli) = Cli::start();
    let lines = "{\"user\":\"f\"}\n";
    let packed = zstd::bulk::compress(lines.as_bytes(), 1).expect("memory");
    for name in ["users.zst", "users.ndjson.zst"] {
        cli.file(name, &packed);
    }
    let create = |more: &[&str]| cli.run(&[&["segment", "create", "some", "-y", "--replace", "-f"], more].concat());
    let refused = create(&["users.zst"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(
        refused.err.starts_with("users.zst: it is packed") && refused.err.contains("--format"),
        "{}",
        refused.err
    );
    for more in [&["users.zst", "--format", "ndjson"][..], &["users.ndjson.zst"]] {
        let run = create(more);
        assert_eq!((run.code, run.err.as_str()), (0, ""), "{run:?}");
        assert_eq!(cli.ok(&["segment", "export", "some"]), lines);
    }
    cli.file("marked", format!("\u{feff}{lines}"));
    assert_eq!(create(&["marked"]).code, 0);
    assert_eq!(cli.ok(&["segment", "export", "some"]), lines);
}

#[test]
fn an_export_is_imported_again_and_replaces() {
    let (_proxy, cli) = Cli::start();
    let many: String = (0..5000).map(|n| format!("user {n}\n")).collect();
    cli.file("many.txt", &many);
    cli.ok(&["user", "import", "checkout", "canary", "many.txt"]);
    let exported = cli.ok(&["user", "export", "checkout"]);
    assert_eq!(exported.lines().count(), 5000);
    cli.file("few.txt", "x\n");
    let told = cli.ok(&["user", "import", "checkout", "canary", "few.txt", "--replace"]);
    assert!(told.contains("- checkout.users: 5000 pinned"), "{told}");
    cli.file("back.ndjson", &exported);
    cli.ok(&["user", "import", "checkout", "stable", "back.ndjson", "--replace"]);
    assert_eq!(cli.ok(&["user", "export", "checkout"]), exported);
}

#[test]
fn every_bad_line_is_told_with_its_number_and_nothing_is_imported() {
    let (_proxy, cli) = Cli::start();
    cli.file("bad.csv", "good\n,\nalso good,nope\n");
    let bad = cli.run(&["user", "import", "checkout", "canary", "bad.csv"]);
    assert_eq!(bad.code, 2);
    let lines: Vec<&str> = bad.err.lines().collect();
    assert!(
        lines[0].starts_with("line 2: ") && lines[1].starts_with("line 3: "),
        "{}",
        bad.err
    );
    assert_eq!(cli.revision(), 1);
    let missing = cli.run(&["user", "import", "checkout", "canary", "nowhere.csv"]);
    assert_eq!(
        (missing.code, missing.err.starts_with("nowhere.csv: ")),
        (2, true),
        "{}",
        missing.err
    );
}

#[test]
fn why_a_long_list_is_refused_is_heard_however_early_that_is() {
    let (_proxy, cli) = Cli::start();
    let many: String = (0..600_000).map(|n| format!("user-{n},nope\n")).collect();
    cli.file("many.csv", &many);
    let early = cli.run(&["user", "import", "search", "canary", "many.csv"]);
    assert_eq!((early.code, early.err.as_str()), (1, "there is no rollout search\n"));
    let amid = cli.run(&["user", "import", "checkout", "canary", "many.csv"]);
    assert_eq!((amid.code, amid.err.lines().count()), (2, 21), "{}", amid.err);
    assert!(amid.err.starts_with("line 1: "), "{}", amid.err);
    assert!(
        amid.err.ends_with("\nline 21 and later: not looked at\n"),
        "{}",
        amid.err
    );
}
