//! Sources of tokens.

use std::net::IpAddr;
use std::time::Duration;

use super::super::written as w;
use super::Building;
use crate::identity::jwt::{KeySet, Keys, Place, Settings};

/// More leeway makes `exp` meaningless.
const LEEWAY_MAX: Duration = Duration::from_secs(3600);

pub(super) fn source(work: &mut Building<'_>, key: &str, written: &w::Jwt) -> Option<Settings> {
    let place = place(work, key, written);
    let keys = keys(work, key, written);
    let claim = work.named(&format!("{key}.claim"), &written.claim);
    if written.algorithms.is_empty() {
        work.note(
            &format!("{key}.algorithms"),
            "is empty: write one of HS256, RS256, ES256 and EdDSA",
        );
    }
    let audience: Vec<String> = match &written.audience {
        None => Vec::new(),
        Some(w::Audience::One(one)) => vec![one.clone()],
        Some(w::Audience::Several(several)) => several.clone(),
    };
    if written.audience.is_some() && (audience.is_empty() || audience.iter().any(String::is_empty)) {
        work.note(
            &format!("{key}.audience"),
            "is empty: write what aud must hold, or leave it out to take any",
        );
    }
    if written.leeway.0 > LEEWAY_MAX {
        work.note(
            &format!("{key}.leeway"),
            format!("{} is more than 1h: set the clocks instead", written.leeway),
        );
    }
    let settings = Settings {
        place: place?,
        claim: claim?,
        keys: keys?,
        issuer: written.issuer.clone(),
        audience,
        algorithms: written.algorithms.iter().copied().map(Into::into).collect(),
        leeway: written.leeway.0,
        on_invalid: written.on_invalid.into(),
    };
    if let (Keys::Url { .. }, true) = (&settings.keys, settings.audience.is_empty()) {
        work.warn(
            key,
            "tokens that the issuer made for others are taken, too: write audience",
        );
    }
    check_file(work, key, &settings);
    Some(settings)
}

fn place(work: &mut Building<'_>, key: &str, written: &w::Jwt) -> Option<Place> {
    match (&written.header, &written.cookie) {
        (None, None) => Some(Place::default()),
        (Some(name), None) => {
            let name = work.field_name(&format!("{key}.header"), name, "Authorization");
            name.map(Place::Header)
        }
        (None, Some(name)) => work.named(&format!("{key}.cookie"), name).map(Place::Cookie),
        (Some(_), Some(_)) => {
            work.note(&format!("{key}.cookie"), "goes not beside header: write one of them");
            None
        }
    }
}

fn keys(work: &mut Building<'_>, key: &str, written: &w::Jwt) -> Option<Keys> {
    let url = match (&written.jwks_file, &written.jwks_url) {
        (Some(file), None) => return Some(Keys::File(file.clone())),
        (None, Some(url)) => url,
        _ => {
            work.note(key, "has not exactly one place of keys: write jwks_file or jwks_url");
            return None;
        }
    };
    work.positive(&format!("{key}.refresh"), written.refresh);
    work.positive(&format!("{key}.timeout"), written.timeout);
    let place = format!("{key}.jwks_url");
    let parsed = url.parse::<http::Uri>().ok();
    let named = |url: &http::Uri| {
        url.authority()
            .is_some_and(|authority| authority.as_str().contains('@'))
    };
    if parsed.as_ref().is_some_and(named) {
        work.note(
            &place,
            "has a name or a password in it, which would be shown in logs: leave it out",
        );
        return None;
    }
    match parsed.as_ref().and_then(|url| url.scheme_str().zip(url.host())) {
        Some(("https", _)) => {}
        Some(("http", host)) if is_loopback(host) => {}
        Some(("http", _)) => work.warn(
            &place,
            "is fetched in clear text: who is on the way can put keys of their own in; write https",
        ),
        _ => {
            work.note(
                &place,
                format!("{url:?} is no URL: write one such as https://id.example.com/jwks.json"),
            );
            return None;
        }
    }
    Some(Keys::Url {
        url: url.clone(),
        refresh: written.refresh.0,
        timeout: written.timeout.0,
    })
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn check_file(work: &mut Building<'_>, key: &str, settings: &Settings) {
    let Keys::File(file) = &settings.keys else {
        return;
    };
    let place = format!("{key}.jwks_file");
    let path = file.display();
    let text = std::fs::read(file).map_err(|e| format!("{path}: {e}: write the path of a JSON Web Key Set"));
    if let Some(text) = work.take(&place, text) {
        let keys = KeySet::read(&text, settings).map_err(|e| format!("{path}: {e}"));
        // The server reads it again, and goes on reading it.
        drop(work.take(&place, keys));
    }
}
