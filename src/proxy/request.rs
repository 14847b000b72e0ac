//! A request as rules of a rollout look at it: header fields, cookies, query parameters, path and client address.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::{COOKIE, HOST};
use http::{HeaderName, HeaderValue};
use pingora::http::RequestHeader;

use crate::identity::jwt::{Claims, Token};
use crate::rollout::Attributes;

/// What rules may ask of a request.
pub struct Asked<'a> {
    /// The head.
    pub head: &'a RequestHeader,
    /// Who sent it, as far as that is believed.
    pub client: Option<IpAddr>,
    /// The token that says who asks.
    pub token: Option<&'a Token>,
}

impl Attributes for Asked<'_> {
    fn header(&self, name: &HeaderName) -> Option<&[u8]> {
        self.head.headers.get(name).map(http::HeaderValue::as_bytes)
    }

    fn cookie(&self, name: &str) -> Option<&[u8]> {
        let lines = self.head.headers.get_all(COOKIE).iter();
        let mut pairs = lines.flat_map(|line| line.as_bytes().split(|b| *b == b';'));
        pairs.find_map(|pair| value_of(pair.trim_ascii(), name))
    }

    fn query(&self, name: &str) -> Option<&[u8]> {
        let query = self.head.uri.query()?;
        query
            .as_bytes()
            .split(|b| *b == b'&')
            .find_map(|pair| value_of(pair, name))
    }

    fn path(&self) -> &str {
        self.head.uri.path()
    }

    fn client_ip(&self) -> Option<IpAddr> {
        self.client
    }

    fn claims(&self) -> Option<&Claims> {
        self.token.map(|token| &token.claims)
    }
}

fn value_of<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// The host a request is for, as it was written: HTTP/2 has it in `:authority`, which is not a field (RFC 9113, 8.3.1).
pub fn host(head: &RequestHeader) -> Option<HeaderValue> {
    let authority = || HeaderValue::from_str(head.uri.authority()?.as_str()).ok();
    head.headers.get(HOST).cloned().or_else(authority)
}

/// The name of a host: lower case, without port or trailing dot. Borrowed unless there are capitals in it.
pub fn host_name(written: &str) -> Cow<'_, str> {
    let bytes = written.as_bytes();
    let end = match memchr::memchr(b':', bytes) {
        // The colons of an address stand in brackets, and the port's behind them.
        Some(colon) => memchr::memrchr(b']', bytes).map_or(colon, |end| end + 1),
        None => bytes.len(),
    };
    let name = written.get(..end).unwrap_or_default();
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        name.to_ascii_lowercase().into()
    } else {
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(target: &str, fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut head = RequestHeader::build("GET", target.as_bytes(), None).expect("request");
        for (name, value) in fields {
            head.append_header(*name, *value).expect("field");
        }
        head
    }

    #[test]
    fn cookies_and_query_parameters_are_found_by_their_whole_name() {
        let head = head("/p?ab=1&a=2", &[("Cookie", "ab=x; a=y"), ("Cookie", "c=z")]);
        let asked = Asked {
            head: &head,
            client: None,
            token: None,
        };
        assert_eq!(asked.cookie("a"), Some(&b"y"[..]));
        assert_eq!(asked.cookie("c"), Some(&b"z"[..]));
        assert_eq!(asked.cookie("b"), None);
        assert_eq!(asked.query("a"), Some(&b"2"[..]));
        assert_eq!(asked.query("b"), None);
        assert_eq!(asked.path(), "/p");
    }

    #[test]
    fn hosts_are_compared_without_port_case_and_trailing_dot() {
        for (written, expected) in [
            ("Shop.Example.com:8080", "shop.example.com"),
            ("shop.example.com.", "shop.example.com"),
            ("[::1]:80", "[::1]"),
            ("", ""),
        ] {
            assert_eq!(host_name(written), expected);
        }
    }
}
