//! Path prefixes as routes and rules write them: no request has a path with what is refused here, so that what it
//! stands in would never match.

/// Tells what is wrong with a path prefix, and what to write.
///
/// # Errors
/// When it does not begin with `/`, or holds what stands in no path of a request that is let in.
pub fn check_prefix(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("{path:?} does not begin with '/': write /{path}"));
    }
    if let Some((before, _)) = path.split_once(['?', '#']) {
        return Err(format!("{path:?} has more than a path: write {before}"));
    }
    if path.contains('\\') {
        return Err(format!(
            "{path:?} has a '\\', and requests with one are refused: write /"
        ));
    }
    if !path.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!(
            "{path:?} has a character that no request has in its path: write it as requests do, such as {}",
            encoded(path)
        ));
    }
    if path.split('/').any(|step| matches!(step, "." | "..")) {
        return Err(format!(
            "{path:?} has a step . or .., and requests with one are refused: write the path that it leads to"
        ));
    }
    Ok(())
}

/// Bytes that stand in no path, percent-encoded.
fn encoded(path: &str) -> String {
    let each = path.bytes().map(|b| match b {
        _ if b.is_ascii_graphic() => char::from(b).to_string(),
        _ => format!("%{b:02X}"),
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_request_can_have_is_refused_with_what_to_write() {
        for sound in [
            "/",
            "/a",
            "/a/",
            "/a//b",
            "/caf%C3%A9",
            "/.well-known",
            "/a;b=c",
            "/...",
            "/a.b",
        ] {
            assert_eq!(check_prefix(sound), Ok(()), "{sound}");
        }
        for (wrong, advice) in [
            ("", "write /"),
            ("a", "write /a"),
            ("/a?b", "write /a"),
            ("/a#b", "write /a"),
            ("/a b", "such as /a%20b"),
            ("/é", "such as /%C3%A9"),
            ("/a\\b", "write /"),
            ("/a/../b", "write the path"),
            ("/a/.", "write the path"),
        ] {
            let told = check_prefix(wrong).expect_err(wrong);
            assert!(
                told.contains(advice) && told.starts_with(&format!("{wrong:?} ")),
                "{told}"
            );
        }
    }
}
