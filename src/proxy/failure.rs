//! One table turns an error into an answer, a cause for the log, and whether it is anyone's business: a client that
//! went away is not.

use pingora::{Error, ErrorSource, ErrorType};

use super::context::Context;
use super::wire::Fault;
use crate::upstream::CONNECT_TIMEOUT;

/// What an error comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The client went away: nothing is written, nothing is logged but the access line.
    DownstreamAbort,
    /// The client went away with all of its answer, and kept the rest of its request: nothing failed.
    Left,
    /// The request is refused for what it is.
    Refused(u16),
    /// Something failed that should not have: logged once.
    Failed {
        /// The answer, if none has begun.
        status: u16,
        /// In a word, for the log.
        cause: &'static str,
    },
}

impl Failure {
    /// The status for the access log, if none was sent.
    pub const fn status(self) -> u16 {
        match self {
            Self::DownstreamAbort | Self::Left => 499,
            Self::Refused(status) | Self::Failed { status, .. } => status,
        }
    }
}

/// Judges the final error of a request.
pub fn judge(error: &Error, ctx: &Context) -> Failure {
    match error.esource() {
        ErrorSource::Downstream => downstream(error, ctx),
        ErrorSource::Upstream => upstream(error, ctx),
        ErrorSource::Internal | ErrorSource::Unset => match error.etype() {
            ErrorType::HTTPStatus(status @ 400..=499) => Failure::Refused(*status),
            ErrorType::HTTPStatus(status) => Failure::Failed {
                status: *status,
                cause: "no endpoint",
            },
            _ => Failure::Failed {
                status: 500,
                cause: "internal error",
            },
        },
    }
}

/// What a client is told of why its request was refused; of what goes on behind this proxy it is told nothing.
pub fn reason(error: &Error) -> Option<&str> {
    match (error.esource(), error.etype()) {
        (ErrorSource::Downstream, ErrorType::HTTPStatus(400..=499)) => error.context.as_ref().map(|c| c.as_str()),
        _ => None,
    }
}

fn downstream(error: &Error, ctx: &Context) -> Failure {
    match ctx.wire.as_ref().and_then(|wire| wire.fault()) {
        Some(Fault::SlowHead | Fault::SlowBody) => return Failure::Refused(408),
        Some(Fault::LargeHead(why)) => return Failure::Refused(why.status),
        Some(Fault::Chunks | Fault::Trailers | Fault::Ahead | Fault::Resets | Fault::Flood) => {
            return Failure::Refused(400);
        }
        None => {}
    }
    match error.etype() {
        ErrorType::ConnectionClosed | ErrorType::ReadError if ctx.answered => Failure::Left,
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError | ErrorType::H2Error => {
            Failure::DownstreamAbort
        }
        // A client that stops reading is as gone as one that closes.
        ErrorType::WriteTimedout => Failure::DownstreamAbort,
        ErrorType::ReadTimedout => Failure::Refused(408),
        ErrorType::HTTPStatus(status) => Failure::Refused(*status),
        _ => Failure::Refused(400),
    }
}

fn upstream(error: &Error, ctx: &Context) -> Failure {
    let overdue = ctx.connection.as_ref().is_some_and(|c| c.expired());
    if overdue && !ctx.body_over {
        return Failure::Refused(408);
    }
    if overdue {
        return Failure::Failed {
            status: 504,
            cause: "no response head in time",
        };
    }
    let (status, cause) = match error.etype() {
        etype if *etype == CONNECT_TIMEOUT => (504, "connect timeout"),
        // Our own dialer says the other when there is no connection: this is Pingora's, of the handshake on it.
        ErrorType::ConnectTimedout => (504, "TLS handshake timeout"),
        ErrorType::ConnectRefused => (502, "connection refused"),
        ErrorType::ConnectNoRoute => (502, "no route"),
        ErrorType::ConnectProxyFailure => (502, "proxy refused the tunnel"),
        ErrorType::SocketError => (503, "no descriptor or port left"),
        ErrorType::ConnectError | ErrorType::BindError => (502, "connect error"),
        ErrorType::TLSHandshakeFailure | ErrorType::HandshakeError => (502, "TLS handshake failed"),
        ErrorType::TLSHandshakeTimedout => (504, "TLS handshake timeout"),
        ErrorType::InvalidCert => (502, "certificate not accepted"),
        ErrorType::ReadTimedout => (504, "read timeout"),
        ErrorType::WriteTimedout => (504, "write timeout"),
        ErrorType::ConnectionClosed => (502, "closed before the response was complete"),
        ErrorType::ReadError | ErrorType::WriteError => (502, "connection broken"),
        ErrorType::InvalidHTTPHeader => (502, "invalid response head"),
        ErrorType::H2Error | ErrorType::InvalidH2 | ErrorType::H2Downgrade => (502, "HTTP/2 error"),
        ErrorType::HTTPStatus(status) => (*status, "refused"),
        _ => (502, "upstream error"),
    };
    Failure::Failed { status, cause }
}
