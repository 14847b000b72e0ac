use super::*;

fn names(all: &[&str]) -> Vec<ReleaseName> {
    all.iter().map(|n| ReleaseName::parse(n).expect("a name")).collect()
}

fn users(format: Format, default: Option<&str>) -> Reading {
    let default = default.map(|n| ReleaseName::parse(n).expect("a name"));
    Reading::of_users(format, names(&["canary", "stable"]), default, 1_000).expect("known")
}

/// Fed in pieces of every size: lines are where line feeds are, not where pieces end.
fn read_all(make: impl Fn() -> Reading, text: &[u8]) -> Result<Vec<UserGroup>, Vec<(String, String)>> {
    let mut results = Vec::new();
    for size in [1, 2, 7, text.len().max(1)] {
        let mut reading = make();
        let fed = text.chunks(size).try_for_each(|chunk| reading.feed(chunk));
        let result = fed.and_then(|()| reading.end());
        results.push(result.map(Users::into_groups).map_err(|refusal| {
            let problems = refusal.problem().problems;
            problems.into_iter().map(|p| (p.key, p.message)).collect()
        }));
    }
    let first = results.remove(0);
    assert!(results.iter().all(|other| *other == first), "{results:?} and {first:?}");
    first
}

fn flat(groups: Vec<UserGroup>) -> Vec<(String, String, Option<u64>)> {
    let each = groups.into_iter().flat_map(|group| {
        let (release, until) = (group.release.to_string(), group.until.map(|m| m.0));
        group
            .users
            .into_iter()
            .map(move |user| (user.to_string(), release.clone(), until))
    });
    each.collect()
}

fn row(user: &str, release: &str, until: Option<u64>) -> (String, String, Option<u64>) {
    (user.to_owned(), release.to_owned(), until)
}

#[test]
fn each_format_says_the_same() {
    let expected = vec![
        row("a b", "canary", None),
        row("ü\"", "canary", None),
        row("3", "stable", Some(2_000)),
    ];
    let ndjson = "{\"user\":\"a b\"}\n\n{\"user\":\"\\u00fc\\\"\",\"release\":\"canary\"}\r\n\
                  {\"user\":\"3\",\"release\":\"stable\",\"until\":\"1970-01-01T00:00:02Z\"}";
    let csv = "\u{feff}user,release,until\na b\n\"ü\"\"\",canary\n3,stable,1970-01-01T00:00:02Z\n";
    for (format, text) in [(Format::Ndjson, ndjson), (Format::Csv, csv)] {
        let read = read_all(|| users(format, Some("canary")), text.as_bytes());
        assert_eq!(read.map(flat), Ok(expected.clone()), "{format:?}");
    }
    let plain = read_all(|| users(Format::Plain, Some("canary")), b" a b \nuser\n");
    assert_eq!(
        plain.map(flat),
        Ok(vec![row("a b", "canary", None), row("user", "canary", None)])
    );
}

#[test]
fn every_wrong_line_is_told_with_its_number() {
    let text = "{\"user\":\"1\",\"release\":\"canary\"}\n{\"user\":\"\"}\n{\"user\":\"2\"}\nnonsense\n\
                {\"user\":\"3\",\"release\":\"beta\"}\n{\"user\":\"4\",\"release\":\"canary\",\"until\":\"1970-01-01T00:00:00Z\"}\n\
                {\"user\":\"1\",\"release\":\"canary\"}\n{\"user\":\"1\",\"release\":\"stable\"}\n";
    let problems = read_all(|| users(Format::Ndjson, None), text.as_bytes()).expect_err("wrong");
    let lines: Vec<&str> = problems.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(lines, ["line 2", "line 3", "line 4", "line 5", "line 6", "line 8"]);
    assert!(problems[5].1.contains("line 1 "), "{problems:?}");
    let many = "x\n".repeat(100);
    let problems = read_all(|| users(Format::Ndjson, None), many.as_bytes()).expect_err("wrong");
    assert_eq!(problems.len(), PROBLEMS_MAX);
}

#[test]
fn bounds_hold() {
    let long = vec![b'x'; LINE_BYTES_MAX + 1];
    let problems = read_all(|| users(Format::Plain, Some("canary")), &long).expect_err("too long");
    assert_eq!(problems[0].0, "line 1");
    let problems = read_all(|| users(Format::Plain, Some("canary")), b"ok\n\xff\n").expect_err("no UTF-8");
    assert_eq!(problems, [("line 2".to_owned(), "is not UTF-8".to_owned())]);
    assert!(Reading::of_users(Format::Csv, names(&["stable"]), Some(names(&["x"]).remove(0)), 0).is_err());
}

#[test]
fn a_segment_has_users_only() {
    let reading = || Reading::of_members(Format::Csv);
    let mut good = reading();
    good.feed(b"a\nb\na\n").expect("good");
    let ids: Vec<String> = good
        .end()
        .expect("good")
        .into_ids()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(ids, ["a", "b"]);
    assert!(read_all(reading, b"a,canary\n").is_err());
}
