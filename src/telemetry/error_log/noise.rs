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
        Origin::Listener => tls_handshake(message),
        Origin::HttpServer => h2_handshake(message),
        Origin::H2Server => begins(message, "tearing down downstream h2 connection after ", "h2_malformed"),
        Origin::Compression => begins(message, "Failed to parse accept-encoding ", "accept_encoding"),
        Origin::TlsHello => begins(message, "Illegal SNI ", "tls_handshake"),
        Origin::Tls => tls_remark(message),
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
    Listener,
    HttpServer,
    H2Server,
    Compression,
    TlsHello,
    Tls,
    Other,
}

impl Origin {
    fn of(target: &str, level: Level) -> Self {
        match (level, target) {
            (Level::Error, "pingora_proxy") => Origin::Proxy,
            (Level::Error, "pingora_proxy::proxy_trait") => Origin::ProxyDefaults,
            (Level::Error, "pingora_proxy::proxy_h1" | "pingora_proxy::proxy_h2") => Origin::ProxyBody,
            (Level::Error, "pingora_core::services::listening") => Origin::Listener,
            (Level::Error, "pingora_core::apps") => Origin::HttpServer,
            (Level::Warn, "pingora_core::protocols::http::v2::server") => Origin::H2Server,
            (Level::Warn, "pingora_core::protocols::http::compression") => Origin::Compression,
            (Level::Warn, "rustls::msgs::handshake") => Origin::TlsHello,
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

/// A TLS handshake that failed or took too long. What rustls calls unexpected is about our own certificate or key, and
/// stays.
fn tls_handshake(message: &str) -> Option<Verdict> {
    if message == "Downstream handshake timeout" {
        return Some(Verdict::Count("tls_handshake"));
    }
    let (_address, error) = message
        .strip_prefix("Downstream handshake error")?
        .split_once(": ")?;
    let clients = error_type(error)? == "TLSHandshakeFailure" && !error.contains("unexpected error: ");
    clients.then_some(Verdict::Count("tls_handshake"))
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
