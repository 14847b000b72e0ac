//! Responses that came whole from upstream are passed on at once, head and body, past Pingora's queue: the upstream's
//! reader leaves them aside, and Pingora takes them for responses without a body.

use std::mem;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderName, Method, StatusCode, Version};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::context::Context;
use super::gateway::Gateway;
use crate::upstream::{PeerUse, Splice, Wanted};

/// A gRPC response has this field in its head if that is all there is of it ("Trailers-Only" of gRPC over HTTP/2).
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Says before a request is sent whether its response may be left aside. The length of one to HEAD is not its body's. What is
/// to be changed on the way to the client, or goes by frames, needs its fields.
pub fn want(gateway: &Gateway, head: &RequestHeader, ctx: &Context) {
    let Some(connection) = &ctx.connection else { return };
    let wanted = if ctx.kind != PeerUse::Request || head.method == Method::HEAD {
        Wanted::Nothing
    } else if ctx.wire.is_some() && head.version == Version::HTTP_11 && gateway.own_cors(ctx).is_none() {
        Wanted::All
    } else {
        Wanted::Body
    };
    connection.shortcut().want(wanted);
}

/// The head of a response is there: its status. If the response was left aside, it is at hand.
pub fn came(response: &mut ResponseHeader, ctx: &mut Context) -> StatusCode {
    let connection = ctx.connection.as_ref();
    ctx.whole = connection.and_then(|connection| connection.shortcut().take());
    let Some(whole) = &ctx.whole else {
        return response.status;
    };
    if whole.head.is_none() {
        let _valid = response.set_status(whole.status);
    }
    whole.status
}

/// Whether all of a response is there with its head.
pub fn is_all(asked: &RequestHeader, status: StatusCode, response: &ResponseHeader, ctx: &Context) -> bool {
    let bodiless =
        || asked.method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let empty = || response.headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0");
    let failed_call = || ctx.kind == PeerUse::Stream && response.headers.contains_key(GRPC_STATUS);
    !status.is_informational() && (ctx.whole.is_some() || bodiless() || empty() || failed_call())
}

/// What Pingora writes next, the head of a response without a body, becomes this response.
pub fn splice(status: StatusCode, splice: Splice, ctx: &mut Context) {
    if let Some(wire) = &ctx.wire {
        ctx.spliced = Some((status, splice.body.len()));
        wire.next_head().set(Some(splice));
    }
}

/// Passes on what Pingora takes for the head alone. It then has another of a kind to pass on that it does not.
///
/// # Errors
/// When the client does not take it.
pub async fn pass(session: &mut Session, response: &mut ResponseHeader, body: Bytes) -> Result<()> {
    let nothing = ResponseHeader::build(StatusCode::PROCESSING, Some(0))?;
    let head = Box::new(mem::replace(response, nothing));
    session
        .write_response_header(head, false)
        .await
        .map_err(|e| e.into_down())?;
    session
        .write_response_body(Some(body), true)
        .await
        .map_err(|e| e.into_down())?;
    session.as_mut().set_ignore_info_resp(true);
    Ok(())
}
