//! Single values out of a request: header fields, cookies, query parameters and names in certificates. What is there
//! twice is ambiguous.

use http::header::COOKIE;
use http::{HeaderMap, HeaderName};

/// More values than one.
pub(super) struct Several;

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, Several> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    match values.next() {
        Some(_) => Err(Several),
        None => Ok(first.map(|v| v.as_bytes())),
    }
}

pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a [u8]>, Several> {
    let lines = headers.get_all(COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|b| *b == b';'));
    let mut values = pairs.filter_map(|pair| value_of(pair.trim_ascii(), name));
    let first = values.next();
    if values.any(|other| Some(other) != first) {
        return Err(Several);
    }
    Ok(first)
}

pub(super) fn parameter<'a>(query: Option<&'a str>, name: &str) -> Result<Option<&'a [u8]>, Several> {
    let pairs = query.unwrap_or_default().as_bytes().split(|b| *b == b'&');
    let mut values = pairs.filter_map(|pair| value_of(pair, name));
    let first = values.next();
    match values.next() {
        Some(_) => Err(Several),
        None => Ok(first),
    }
}

pub(super) fn only(names: &[String]) -> Result<Option<&[u8]>, Several> {
    match names {
        [] => Ok(None),
        [name] => Ok(Some(name.as_bytes())),
        _ => Err(Several),
    }
}

fn value_of<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}
