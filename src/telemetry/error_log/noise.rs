//! Which lines of Pingora 0.9.1 and rustls say only that a client misbehaved or left. No hook of theirs can suppress
//! them, so they are known by target, level and wording; what is not exactly known is printed.
//!
//! Errors are shown as `SOURCE TYPE context: … cause: …`, SOURCE being `Upstream`, `Downstream`, `Internal` or nothing
//! (`pingora_error::Error::chain_display`).

use log::Level;

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is printed as it is.
    Print,
    /// It is printed at debug: the failure behind it, if there is one, has a line of its own.
    Quieten,
    /// It is printed at debug and counted with this cause.
    Count(&'static str),
}

/// Whether a line of this target and level must be looked at.
pub(super) fn may_be(target: &str, level: Level) -> bool {
    level <= Level::Warn && !matches!(Origin::of(target, level), Origin::Other)
}

/// Judges a line.
pub(super) fn verdict(target: &str, level: Level, message: &str) -> Verdict {
    match Origin::of(target, level) {
        Origin::Proxy => request_header(message).or_else(|| error_response(message)),
        Origin::ProxyDefaults => error_response(message),
        Origin::ProxyBody => response_end(message),
        Origin::HttpServer => h2_handshake(message),
        Origin::H2Server => begins(message, "tearing down downstream h2 connection after ", "h2_malformed"),
        Origin::Compression => begins(message, "Failed to parse accept-encoding ", "accept_encoding"),
        Origin::TlsHello => begins(message, "Illegal SNI ", "tls_handshake"),
        Origin::Tls => tls_remark(message),
        Origin::Connectors => reuse_race(message),
        Origin::H1Body => unread_body(message),
        Origin::H2Body => trailers_of_a_request(message),
        Origin::Other => None,
    }
    .unwrap_or(Verdict::Print)
}

/// Where a line comes from: a target and a level that hold lines of ours to judge.
#[derive(Debug, Clone, Copy)]
enum Origin {
    Proxy,
    ProxyDefaults,
    ProxyBody,
    HttpServer,
    H2Server,
    Compression,
    TlsHello,
    Tls,
    Connectors,
    H1Body,
    H2Body,
    Other,
}

impl Origin {
    fn of(target: &str, level: Level) -> Self {
        match (level, target) {
            (Level::Error, "pingora_proxy") => Origin::Proxy,
            (Level::Error, "pingora_proxy::proxy_trait") => Origin::ProxyDefaults,
            (Level::Error, "pingora_proxy::proxy_h1" | "pingora_proxy::proxy_h2") => Origin::ProxyBody,
            (Level::Error, "pingora_core::apps") => Origin::HttpServer,
            (Level::Warn, "pingora_core::protocols::http::v2::server") => Origin::H2Server,
            (Level::Warn, "pingora_core::protocols::http::compression") => Origin::Compression,
            (Level::Warn, "rustls::msgs::handshake") => Origin::TlsHello,
            (Level::Error, "pingora_core::connectors") => Origin::Connectors,
            (Level::Warn, "pingora_proxy::proxy_h1") => Origin::H1Body,
            (Level::Warn, "pingora_proxy::proxy_h2") => Origin::H2Body,
            (
                Level::Warn,
                "pingora_core::protocols::tls::rustls::server" | "rustls::check" | "rustls::common_state",
            ) => Origin::Tls,
            (_, _) => Origin::Other,
        }
    }
}

/// A client that leaves, breaks or stalls in a request header: `pingora_proxy` says so at ERROR, before there is a
/// request that a hook could see. The same words with `status:` after them are a failed request and stay.
fn request_header(message: &str) -> Option<Verdict> {
    let (error, session) = message
        .strip_prefix("Fail to proxy: Downstream ")?
        .rsplit_once(", downstream session type: ")?;
    let client_left = matches!(first_word(error), "ConnectionClosed" | "ReadError" | "ReadTimedout");
    (client_left && matches!(session, "h1" | "h2")).then_some(Verdict::Count("request_header"))
}

/// An answer of Pingora's own that the client did not wait for.
fn error_response(message: &str) -> Option<Verdict> {
    written_in_vain(message.strip_prefix("failed to send error response to downstream: ")?)
}

/// A response whose last bytes the client did not wait for. A body that the upstream cut short has the same line with
/// another error, and stays.
fn response_end(message: &str) -> Option<Verdict> {
    written_in_vain(message.strip_prefix("Error finish sending body to downstream: ")?)
}

fn written_in_vain(error: &str) -> Option<Verdict> {
    let unsent = matches!(error_type(error)?, "WriteError" | "WriteTimedout" | "ConnectionClosed");
    unsent.then_some(Verdict::Count("response_write"))
}

/// A connection that speaks HTTP/2 wrongly from its first byte, or not at all.
fn h2_handshake(message: &str) -> Option<Verdict> {
    let error = message.strip_prefix("H2 handshake error ")?;
    (error_type(error)? == "HandshakeError").then_some(Verdict::Count("h2_handshake"))
}

/// Remarks on a TLS connection, of which the other side can be a client or an upstream. When they matter, the handshake
/// or the request fails, and says so.
fn tls_remark(message: &str) -> Option<Verdict> {
    let remarks = [
        "TLS shutdown failed, ",
        "TLS alert warning received: ",
        "Sending warning alert ",
        "Received a ",
    ];
    remarks
        .iter()
        .any(|remark| message.starts_with(remark))
        .then_some(Verdict::Quieten)
}

/// A kept connection that its idle watch had not let go of yet: a new one is opened in its place, and no request is the
/// worse for it.
fn reuse_race(message: &str) -> Option<Verdict> {
    (message == "failed to acquire reusable stream").then_some(Verdict::Quieten)
}

/// An upstream that did not wait for the end of a request's body. If it answered, that is its right, and what becomes of
/// the request is the answer's to tell; if it did not, the request fails and has its own line.
fn unread_body(message: &str) -> Option<Verdict> {
    let error = message.strip_prefix("send error, draining read buf: ")?;
    let typed = error.strip_prefix("Upstream").unwrap_or(error).strip_prefix(' ')?;
    let unread = matches!(first_word(typed), "WriteError" | "ConnectionClosed");
    unread.then_some(Verdict::Quieten)
}

/// A request over HTTP/2 with trailers, which are not passed on: Pingora ends its stream twice. The request is whole; by
/// the second time the answer may have been, too, and the stream be closed. One that was not has its own line.
fn trailers_of_a_request(message: &str) -> Option<Verdict> {
    let twice = message.starts_with("Upstream h2 body send error: ")
        && [
            " cause: user error: unexpected frame type",
            " cause: user error: inactive stream",
        ]
        .iter()
        .any(|cause| message.ends_with(cause));
    twice.then_some(Verdict::Quieten)
}

fn begins(message: &str, with: &str, cause: &'static str) -> Option<Verdict> {
    message.starts_with(with).then_some(Verdict::Count(cause))
}

/// The type of a shown error whose source is the downstream or not named.
fn error_type(error: &str) -> Option<&str> {
    let typed = error.strip_prefix("Downstream").unwrap_or(error).strip_prefix(' ')?;
    Some(first_word(typed))
}

fn first_word(text: &str) -> &str {
    text.split(' ').next().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "pingora_proxy";
    const LISTENING: &str = "pingora_core::services::listening";

    fn judged(lines: &[(&str, Level, &str)]) -> Vec<Verdict> {
        let judge = |&(target, level, message): &(&str, Level, &str)| {
            if may_be(target, level) {
                verdict(target, level, message)
            } else {
                Verdict::Print
            }
        };
        lines.iter().map(judge).collect()
    }

    /// Lines of a Pingora 0.9.1 proxy whose clients left at every point; doubled spaces are Pingora's.
    #[test]
    fn what_only_clients_do_is_counted() {
        use Level::{Error, Warn};
        for (target, level, message, cause) in [
            (PROXY, Error, "Fail to proxy: Downstream ConnectionClosed context: while reading request headers, bytes already read: 25, downstream session type: h1".to_owned(), "request_header"),
            (PROXY, Error, "Fail to proxy: Downstream ReadError context: while reading request headers cause: Connection reset by peer (os error 104), downstream session type: h1".to_owned(), "request_header"),
            (PROXY, Error, "Fail to proxy: Downstream ReadTimedout context: timeout: 60s, downstream session type: h1".to_owned(), "request_header"),
            (PROXY, Error, "failed to send error response to downstream:  WriteError context: flushing response header cause: Connection reset by peer (os error 104)".to_owned(), "response_write"),
            ("pingora_proxy::proxy_trait", Error, "failed to send error response to downstream: Downstream WriteError context: while writing h2 response to downstream cause: user error: inactive stream".to_owned(), "response_write"),
            ("pingora_proxy::proxy_h1", Error, "Error finish sending body to downstream:  WriteError context: flushing body cause: Broken pipe (os error 32)".to_owned(), "response_write"),
            ("pingora_proxy::proxy_h2", Error, "Error finish sending body to downstream: Downstream WriteError context: while writing h2 response body to downstream cause: user error: inactive stream".to_owned(), "response_write"),
            ("pingora_core::apps", Error, "H2 handshake error  HandshakeError context: while h2 handshaking with client cause: connection error detected: unspecific protocol error detected".to_owned(), "h2_handshake"),
            ("pingora_core::protocols::http::v2::server", Warn, "tearing down downstream h2 connection after 32 malformed requests".to_owned(), "h2_malformed"),
            ("pingora_core::protocols::http::compression", Warn, "Failed to parse accept-encoding \"=\", unexpected".to_owned(), "accept_encoding"),
            ("rustls::msgs::handshake", Warn, "Illegal SNI hostname received \"a_b..c\"".to_owned(), "tls_handshake"),
        ] {
            assert_eq!(judged(&[(target, level, &message)]), [Verdict::Count(cause)], "{message}");
        }
    }

    #[test]
    fn remarks_on_either_side_of_tls_are_quiet_and_not_counted() {
        let remarks = [
            ("rustls::common_state", Level::Warn, "Sending warning alert CloseNotify"),
            (
                "rustls::common_state",
                Level::Warn,
                "TLS alert warning received: AlertMessagePayload",
            ),
            (
                "rustls::check",
                Level::Warn,
                "Received a ServerHello handshake message while expecting [ClientHello]",
            ),
            (
                "pingora_core::protocols::tls::rustls::server",
                Level::Warn,
                "TLS shutdown failed, Broken pipe (os error 32)",
            ),
            (
                "pingora_core::connectors",
                Level::Error,
                "failed to acquire reusable stream",
            ),
            (
                "pingora_proxy::proxy_h2",
                Level::Warn,
                "Upstream h2 body send error: Upstream WriteError context: while writing h2 request body cause: user error: unexpected frame type",
            ),
            (
                "pingora_proxy::proxy_h2",
                Level::Warn,
                "Upstream h2 body send error: Upstream WriteError context: while writing h2 request body cause: user error: inactive stream",
            ),
            (
                "pingora_proxy::proxy_h1",
                Level::Warn,
                "send error, draining read buf: Upstream WriteError context: while writing body cause: Broken pipe (os error 32)",
            ),
        ];
        assert_eq!(judged(&remarks), [Verdict::Quieten; 8]);
    }

    #[test]
    fn what_upstreams_the_system_or_we_do_is_printed() {
        use Level::{Debug, Error, Warn};
        let lines = [
            // Failures of an upstream, with a client that knows the wording of line 1 above.
            (
                PROXY,
                Error,
                "Fail to proxy: Upstream ConnectRefused context: Fail to connect to addr: 127.0.0.1:1, scheme: HTTP cause:  context: Fail to connect to 127.0.0.1:1 cause: Connection refused (os error 111), status: 502, tries: 1, retry: false, GET /dead, Host: x",
            ),
            (
                PROXY,
                Error,
                "Fail to proxy: Upstream ConnectionClosed context: Peer: addr: 127.0.0.1:19001, scheme: HTTP cause:  context: Peer prematurely closed connection with 97 bytes of body remaining to read, status: 502, tries: 1, retry: false, GET /x, downstream session type: h1",
            ),
            (
                PROXY,
                Error,
                "Fail to proxy: Upstream ReadTimedout context: timeout: 60s cause: Downstream ReadError, downstream session type: h1",
            ),
            (
                PROXY,
                Error,
                "Fail to proxy: Internal InternalError, downstream session type: h1",
            ),
            (
                PROXY,
                Error,
                "Fail to proxy: Downstream InternalError context: x, downstream session type: h1",
            ),
            (
                PROXY,
                Error,
                "Fail to proxy: Downstream ReadError context: reset, status: 0, tries: 1, retry: false, GET /loud, Host: x",
            ),
            (
                PROXY,
                Warn,
                "Fail to proxy: Upstream ConnectionClosed, tries: 1, retry: true, GET /, Host: x",
            ),
            (
                PROXY,
                Error,
                "failed to send error response to downstream: Upstream WriteError",
            ),
            (
                PROXY,
                Error,
                "failed to send error response to downstream:  InvalidHTTPHeader context: x",
            ),
            (
                "pingora_proxy::proxy_h1",
                Warn,
                "send error, draining read buf: Upstream InternalError context: x",
            ),
            (
                "pingora_proxy::proxy_h2",
                Warn,
                "Upstream h2 body send error: Upstream WriteError",
            ),
            (
                "pingora_proxy::proxy_h1",
                Error,
                "Error finish sending body to downstream:  PrematureBodyEnd context: Content-length: 100 bytes written: 3",
            ),
            // Our own certificate, sockets and files.
            (
                LISTENING,
                Error,
                "Accept() failed  AcceptError context: Fail to accept() cause: Too many open files (os error 24)",
            ),
            (
                "pingora_core::apps",
                Error,
                "H2 handshake error  InternalError context: x",
            ),
            (
                "rustls::common_state",
                Error,
                "traffic keys exhausted, closing connection to prevent security failure",
            ),
            ("rustls::check", Debug, "Received a message"),
            (
                "switchyard::proxy",
                Error,
                "Fail to proxy: Downstream ReadError, downstream session type: h1",
            ),
        ];
        for (line, verdict) in lines.iter().zip(judged(&lines)) {
            assert_eq!(verdict, Verdict::Print, "{line:?}");
        }
    }
}
