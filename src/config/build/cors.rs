//! Cross-origin handling of routes.

use super::super::written as w;
use super::{Building, is_token};
use crate::proxy::settings::{AllowOrigins, Cors, OwnCors};

/// The keys that say what this proxy answers itself.
const OWN_KEYS: [&str; 6] = [
    "allow_origins",
    "allow_credentials",
    "allow_methods",
    "allow_headers",
    "expose_headers",
    "max_age",
];

pub fn build(work: &mut Building<'_>, key: &str, written: w::Cors) -> Option<Cors> {
    let own = match written.mode {
        w::CorsMode::Passthrough => {
            for name in OWN_KEYS {
                let key = format!("{key}.{name}");
                if work.places.is_written(&key) {
                    work.note(
                        &key,
                        "has no effect with mode: passthrough: remove it, or write mode: own",
                    );
                }
            }
            return Some(Cors::Passthrough);
        }
        w::CorsMode::Own => written,
    };
    names(
        work,
        &format!("{key}.allow_methods"),
        &own.allow_methods,
        "method",
        "PUT",
    );
    names(
        work,
        &format!("{key}.allow_headers"),
        &own.allow_headers,
        "header field name",
        "X-User-Id",
    );
    names(
        work,
        &format!("{key}.expose_headers"),
        &own.expose_headers,
        "header field name",
        "X-Request-Id",
    );
    Some(Cors::Own(OwnCors {
        allow_origins: origins(
            work,
            &format!("{key}.allow_origins"),
            own.allow_origins,
            own.allow_credentials,
        ),
        allow_credentials: own.allow_credentials,
        allow_methods: own.allow_methods,
        allow_headers: own.allow_headers,
        expose_headers: own.expose_headers,
        max_age: own.max_age.0,
    }))
}

fn origins(work: &mut Building<'_>, key: &str, written: Vec<String>, credentials: bool) -> AllowOrigins {
    let any = written.iter().any(|origin| origin == "*");
    if any && credentials {
        work.note(
            key,
            "allows everyone, with credentials: browsers refuse that; list the origins",
        );
    }
    if written.is_empty() {
        work.note(key, "there is none: list origins such as https://shop.example.com");
    }
    let each = written.iter().enumerate();
    for (n, origin) in each.filter(|(_, origin)| *origin != "*") {
        match sent(origin) {
            None => work.note(
                &format!("{key}[{n}]"),
                format!("{origin:?} is no origin: write scheme and host, such as https://shop.example.com"),
            ),
            Some(sent) if sent != *origin => work.note(
                &format!("{key}[{n}]"),
                format!("{origin:?} is not how browsers send it: write {sent}"),
            ),
            Some(_) => {}
        }
    }
    if any {
        AllowOrigins::Any
    } else {
        AllowOrigins::These(written)
    }
}

/// An origin as browsers send it: in lower case, and without the port that its scheme has anyway (RFC 6454, 6.1).
fn sent(origin: &str) -> Option<String> {
    let (scheme, place) = origin.split_once("://")?;
    let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    let host = |b: u8| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b);
    if scheme.is_empty() || place.is_empty() || !scheme.bytes().all(name) || !place.bytes().all(host) {
        return None;
    }
    let lower = origin.to_ascii_lowercase();
    let port = match scheme.to_ascii_lowercase().as_str() {
        "https" => ":443",
        "http" => ":80",
        _ => "",
    };
    let short = lower.strip_suffix(port).unwrap_or(&lower);
    Some(short.to_owned())
}

fn names(work: &mut Building<'_>, key: &str, written: &[String], what: &str, example: &str) {
    for (n, name) in written.iter().enumerate().filter(|(_, name)| !is_token(name)) {
        work.note(
            &format!("{key}[{n}]"),
            format!("{name:?} is no {what}: write one such as {example}"),
        );
    }
}
