//! Answers that this proxy gives itself: short, with the request id, and with the route's cross-origin permission, so
//! that a page can read them.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;

use super::context::Context;
use super::settings::OwnCors;
use super::trace::REQUEST_ID;
use super::{choose, cors};

/// What is asked of a client that comes when there is no room: health checks and queues have changed by then.
const RETRY_AFTER_SECONDS: &str = "1";

/// Answers a request that failed, if the client is there and has no answer. One that has a part of another gets no more.
pub async fn to_failure(
    session: &mut Session,
    ctx: &mut Context,
    status: u16,
    why: Option<&str>,
    cors: Option<&OwnCors>,
) {
    let mut whole = ctx.answered;
    if !ctx.aborted && answered(session).is_none() {
        whole = refuse(session, ctx, status, why, cors).await.is_ok();
        ctx.aborted = !whole;
    }
    if !whole {
        ctx.wire.iter().for_each(|wire| wire.breaks_off());
    }
}

/// Writes a short answer, with the reason where it is the client's to know, and has the connection closed after it: what
/// is left of the request may be unread or not understood.
async fn refuse(
    session: &mut Session,
    ctx: &Context,
    status: u16,
    why: Option<&str>,
    cors: Option<&OwnCors>,
) -> Result<()> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let reason = status.canonical_reason().unwrap_or("Error");
    let id = ctx.ids.request_id.to_str().unwrap_or("-");
    let why = why.map_or_else(String::new, |why| format!(": {}", why.replace('_', " ")));
    let body = Bytes::from(format!("{} {reason}{why}\nrequest id: {id}\n", status.as_u16()));
    let mut head = ResponseHeader::build(status, Some(8))?;
    head.insert_header(CONTENT_TYPE, "text/plain; charset=utf-8")?;
    head.insert_header(CONTENT_LENGTH, body.len())?;
    head.insert_header(CACHE_CONTROL, "no-store")?;
    head.insert_header(REQUEST_ID, ctx.ids.request_id.clone())?;
    if status == StatusCode::SERVICE_UNAVAILABLE {
        head.insert_header(RETRY_AFTER, RETRY_AFTER_SECONDS)?;
    }
    if let Some(challenge) = ctx.challenge {
        head.insert_header(WWW_AUTHENTICATE, challenge)?;
    }
    if let Some(policy) = cors {
        cors::answer(policy, &session.req_header().headers, &mut head)?;
    }
    session.set_keepalive(None);
    let bodiless = session.req_header().method == Method::HEAD;
    session.write_response_header(Box::new(head), bodiless).await?;
    if bodiless {
        return Ok(());
    }
    session.write_response_body(Some(body), true).await
}

/// The head of the response, if one was written. An interim one (RFC 9110, 15.2) is no answer: that is still owed.
pub fn answered(session: &Session) -> Option<&ResponseHeader> {
    session
        .response_written()
        .filter(|head| !choose::is_interim(head.status))
}

/// Answers a preflight; the request is answered then.
pub async fn preflight(session: &mut Session, policy: &OwnCors) -> Result<bool> {
    let head = cors::preflight(policy, session.req_header())?;
    session.write_response_header(Box::new(head), true).await?;
    Ok(true)
}
