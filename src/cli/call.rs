//! A call of the admin API: what is asked, and what is answered.

use std::fmt::Write as _;

use http::Method;

use super::failure::Failure;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Call {
    pub(super) method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Option<Vec<u8>>,
}

/// What was answered: a success.
#[derive(Debug)]
pub struct Answer {
    /// 200, 201 or 202.
    pub status: u16,
    /// As it came.
    pub body: Vec<u8>,
}

impl Call {
    /// A call of `/api/v1` and these path segments.
    pub fn new(method: Method, segments: &[&str]) -> Self {
        let path = segments.iter().map(|segment| format!("/{}", escaped(segment)));
        Self {
            method,
            path: format!("/api/v1{}", path.collect::<String>()),
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
        }
    }

    /// A read.
    pub fn get(segments: &[&str]) -> Self {
        Self::new(Method::GET, segments)
    }

    pub fn query(mut self, name: &'static str, value: impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    pub fn header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    pub fn json(mut self, body: &impl serde::Serialize) -> Result<Self, Failure> {
        let bytes = serde_json::to_vec(body).map_err(|e| Failure::Invalid(e.to_string()))?;
        self.body = Some(bytes);
        Ok(self.header("content-type", "application/json"))
    }

    pub(super) fn url(&self, admin: &str) -> String {
        let pairs = self.query.iter();
        let pairs: Vec<String> = pairs
            .map(|(name, value)| format!("{name}={}", escaped(value)))
            .collect();
        let mark = if pairs.is_empty() { "" } else { "?" };
        format!("{admin}{}{mark}{}", self.path, pairs.join("&"))
    }
}

/// Percent-encodes all but what RFC 3986 calls unreserved.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _infallible = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Percent-encodes what a header field cannot hold as it is, and the percent sign.
pub fn escaped_where_needed(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            out.push(char::from(byte));
        } else {
            let _infallible = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_user_id_holds_stays_one_segment_of_the_path() {
        let call = Call::get(&["rollouts", "r", "users", "a/b?c#d%é .."]).query("after", "x&y=z");
        let expected = "http://a/api/v1/rollouts/r/users/a%2Fb%3Fc%23d%25%C3%A9%20..?after=x%26y%3Dz";
        assert_eq!(call.url("http://a"), expected);
    }

    #[test]
    fn reasons_are_encoded_where_a_header_cannot_hold_them() {
        assert_eq!(escaped_where_needed("50% off, café"), "50%25 off, caf%C3%A9");
    }
}
