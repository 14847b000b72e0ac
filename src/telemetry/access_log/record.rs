//! What one request has to say to the access log.

use std::net::SocketAddr;
use std::time::Duration;

/// One request, as the access log writes it. What came from outside is bytes: nothing is taken to be valid text. Of
/// what is text only `endpoint` is escaped: the rest are names (letters, digits, `.`, `_`, `-`) or words of our own.
/// Absent values are `null` in JSON and `-` in the combined format.
#[derive(Debug, Clone, Copy, Default)]
pub struct AccessRecord<'a> {
    /// When the request ended, Unix time in microseconds.
    pub unix_micros: u64,
    /// `X-Request-Id`.
    pub request_id: Option<&'a [u8]>,
    /// The trace id of a valid `traceparent`: hexadecimal digits, which are not escaped.
    pub trace_id: Option<&'a [u8]>,
    /// Who connected to us, or whom a trusted peer speaks for.
    pub client: Option<SocketAddr>,
    /// The method as sent.
    pub method: &'a [u8],
    /// The host as sent, port included.
    pub host: Option<&'a [u8]>,
    /// Path and query as sent.
    pub path: &'a [u8],
    /// Which HTTP the client spoke. Shown by the combined format only.
    pub http_version: HttpVersion,
    /// The status sent, or 499 when the client went away.
    pub status: u16,
    /// Request body, bytes.
    pub bytes_in: u64,
    /// Response body, bytes.
    pub bytes_out: u64,
    /// From the first byte of the header to the end of the response.
    pub duration: Duration,
    /// The route that matched.
    pub route: Option<&'a str>,
    /// The rollout of the route.
    pub rollout: Option<&'a str>,
    /// The release decided.
    pub release: Option<&'a str>,
    /// Why that release.
    pub reason: Option<&'a str>,
    /// The user's bucket.
    pub bucket: Option<u32>,
    /// The revision that the request saw.
    pub revision: u64,
    /// Where the identity came from.
    pub source: Option<&'a str>,
    /// The user id that was bucketed. Shown as the settings say.
    pub user: Option<&'a [u8]>,
    /// The pool of the release or route.
    pub pool: Option<&'a str>,
    /// The endpoint that answered, or was tried last.
    pub endpoint: Option<&'a str>,
    /// The status that the upstream sent.
    pub upstream_status: Option<u16>,
    /// From connecting to the upstream's response header.
    pub upstream_duration: Option<Duration>,
    /// Whether the upstream connection had been used before.
    pub reused: Option<bool>,
    /// Tries after the first.
    pub retries: u32,
    /// Who broke the request off: `downstream`, or none.
    pub abort: Option<&'static str>,
    /// `Referer`. Shown by the combined format only: see [`AccessLog::shows_agents`](super::AccessLog::shows_agents).
    pub referer: Option<&'a [u8]>,
    /// `User-Agent`. Shown by the combined format only.
    pub user_agent: Option<&'a [u8]>,
}

/// Which HTTP a client spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HttpVersion {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
    /// HTTP/2
    Http2,
}

impl HttpVersion {
    /// The version as a request line has it.
    pub fn as_str(self) -> &'static str {
        match self {
            HttpVersion::Http10 => "HTTP/1.0",
            HttpVersion::Http11 => "HTTP/1.1",
            HttpVersion::Http2 => "HTTP/2.0",
        }
    }
}
