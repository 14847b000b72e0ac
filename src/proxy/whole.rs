//! Responses that came whole from upstream are passed on at once, head and body, past Pingora's queue: the upstream's
//! reader leaves them aside, and Pingora takes them for responses without a body.

use std::mem;

use bytes::Bytes;
use http::{Method, StatusCode};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::choose;
use super::context::Context;
use super::gateway::Gateway;
use crate::upstream::PeerUse;

/// Says before a request is sent whether its response may be left aside. The length of one to HEAD is not its body's.
pub fn want(head: &RequestHeader, ctx: &Context) {
    if let Some(connection) = &ctx.connection {
        let wanted = ctx.kind == PeerUse::Request && head.method != Method::HEAD;
        connection.shortcut().want(wanted);
    }
}

/// The head of a response is there: if it was left aside, it has its own status again, and its body is at hand.
pub fn came(response: &mut ResponseHeader, ctx: &mut Context) {
    let whole = ctx
        .connection
        .as_ref()
        .and_then(|connection| connection.shortcut().take());
    ctx.whole = whole.map(|whole| {
        let _valid = response.set_status(whole.status);
        whole.body
    });
}

/// Passes on what Pingora takes for the head alone. It then has another of a kind to pass on that it does not.
///
/// # Errors
/// When the client does not take it.
pub async fn pass(
    gateway: &Gateway,
    session: &mut Session,
    response: &mut ResponseHeader,
    body: Bytes,
    ctx: &mut Context,
) -> Result<()> {
    let nothing = ResponseHeader::build(StatusCode::PROCESSING, Some(0))?;
    let head = Box::new(mem::replace(response, nothing));
    choose::response_over(ctx, gateway.limits().read_timeout);
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
