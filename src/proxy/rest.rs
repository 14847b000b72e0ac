//! What is still to come of an HTTP/2 request that is answered. Over HTTP/1 the end of the response ends the request, too;
//! over HTTP/2 Pingora waits for the rest, for ever, and holds a connection to the client and one to the upstream for it.
//! From its answer on, Pingora has the session from here, and is told when that has taken too long.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session as CustomSession;
use pingora::protocols::http::{HttpTask, ServerSession};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::{Error, Result};
use pingora_proxy::Session;
use tokio::time::timeout;

use super::context::Context;
use super::gateway::refused;
use super::settings::Limits;
use super::whole::GRPC_STATUS;
use crate::clock;
use crate::upstream::{Connection, PeerUse};

/// The status of the error that ends such a request. The client has another: its answer.
const TOO_LATE: u16 = 408;

type Messages = Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync>;

/// The head of a response is there, and may be all of it.
///
/// Of a call that streams both ways, which is answered with 200, it is not, and the session stays Pingora's until [`bound`]: only
/// of its own it sees a client's reset while the upstream takes nothing.
pub fn bound_if_over(session: &mut Session, response: &ResponseHeader, ctx: &mut Context, limits: &Limits) {
    let is_call = ctx.upstream_h2 && ctx.kind == PeerUse::Stream && response.status == StatusCode::OK;
    let streams = is_call && !response.headers.contains_key(GRPC_STATUS);
    if !streams {
        bound(session, ctx, limits);
    }
}

/// From the end of the response on, which is now or later, what is left of the request is bounded.
pub fn bound(session: &mut Session, ctx: &mut Context, limits: &Limits) {
    if ctx.body_over || !session.downstream_session.is_http2() {
        return;
    }
    let upstream = ctx.connection.clone().filter(|_| !ctx.upstream_h2);
    ctx.waiting |= upstream.is_some();
    let nothing = ServerSession::new_custom(Box::new(()));
    let whole = mem::replace(&mut *session.downstream_session, nothing);
    *session.downstream_session = ServerSession::new_custom(Box::new(Rest {
        session: Box::new(whole),
        limits: *limits,
        upstream,
        over: false,
        bytes: 0,
        waited: Duration::ZERO,
        waiting: None,
    }));
}

/// A session whose request is read for so long once its response is over. For the rest it is what it was.
struct Rest {
    session: Box<ServerSession>,
    limits: Limits,
    /// Where what comes after the response goes: over HTTP/1 the connection can be used again then. Over HTTP/2 there is
    /// none: it would only be waited for until it takes that, without a bound.
    upstream: Option<Arc<Connection>>,
    /// Whether the response is over.
    over: bool,
    /// What came since then, for how long it was waited for, and since when it is again.
    bytes: u64,
    waited: Duration,
    waiting: Option<Instant>,
}

impl Rest {
    /// How long the next piece may take: the bounds are those of a body over HTTP/1.
    fn left(&self) -> Duration {
        let earned = self.bytes.saturating_mul(1_000).checked_div(self.limits.body_rate_min);
        let by_rate = earned.map(|millis| {
            let all = self.limits.header_timeout.saturating_add(Duration::from_millis(millis));
            all.saturating_sub(self.waited)
        });
        by_rate.map_or(self.limits.read_timeout, |left| left.min(self.limits.read_timeout))
    }

    async fn read(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if !self.over {
            return self.session.read_body_or_idle(no_body_expected).await;
        }
        // What is dropped while it waits goes on waiting with the next call.
        let since = *self.waiting.get_or_insert_with(clock::now);
        let left = self.left().saturating_sub(since.elapsed());
        let read = timeout(left, self.session.read_body_or_idle(no_body_expected)).await;
        let read = read.map_err(|_| too_late("the request is answered, and its rest does not come"))??;
        self.waiting = None;
        self.waited += since.elapsed();
        let bytes = read.as_ref().map_or(0, Bytes::len);
        self.bytes += bytes as u64;
        if bytes > 0 && self.upstream.is_none() {
            return Err(too_late("the request is answered, and nobody reads its rest"));
        }
        self.goes_on();
        Ok(read)
    }

    /// A part of the response was written, the last one if `end`.
    fn wrote(&mut self, end: bool) {
        if end && !self.over {
            self.over = true;
            self.goes_on();
        }
    }

    /// What is there goes to the upstream, and until that takes it Pingora reads no more. Once all is there, the connection may
    /// be another's soon.
    fn goes_on(&mut self) {
        let upstream = self.upstream.as_ref().filter(|_| !self.session.is_body_done());
        if let Some(upstream) = upstream {
            upstream.expect_head_by(clock::tick().after(self.limits.read_timeout));
        }
    }
}

fn too_late(why: &'static str) -> Box<Error> {
    refused(TOO_LATE, why)
}

#[async_trait]
impl CustomSession for Rest {
    fn req_header(&self) -> &RequestHeader {
        self.session.req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.session.req_header_mut()
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.read(false).await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        self.session.drain_request_body().await
    }

    async fn write_response_header(&mut self, response: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.session.write_response_header(response).await?;
        if end { self.finish().await } else { Ok(()) }
    }

    async fn write_response_header_ref(&mut self, response: &ResponseHeader, end: bool) -> Result<()> {
        self.write_response_header(Box::new(response.clone()), end).await
    }

    async fn write_body(&mut self, piece: Bytes, end: bool) -> Result<()> {
        self.session.write_response_body(piece, end).await?;
        self.wrote(end);
        Ok(())
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.session.write_response_trailers(trailers).await?;
        self.wrote(true);
        Ok(())
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let end = self.session.response_duplex_vec(tasks).await?;
        self.wrote(end);
        Ok(end)
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.session.set_read_timeout(timeout);
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.session.get_read_timeout()
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.session.set_write_timeout(timeout);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.session.get_write_timeout()
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.session.set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.session.get_total_drain_timeout()
    }

    fn request_summary(&self) -> String {
        self.session.request_summary()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.session.response_written()
    }

    async fn shutdown(&mut self, _code: u32, _why: &str) {
        self.session.shutdown().await;
    }

    fn is_body_done(&mut self) -> bool {
        self.session.is_body_done()
    }

    async fn finish(&mut self) -> Result<()> {
        self.session.finish_body().await?;
        self.wrote(true);
        Ok(())
    }

    fn is_body_empty(&mut self) -> bool {
        self.session.is_body_empty()
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        self.read(no_body_expected).await
    }

    fn body_bytes_sent(&self) -> usize {
        self.session.body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.session.body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        self.session.digest()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.session.digest_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.session.client_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.session.server_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.session.to_h1_raw()
    }

    fn enable_retry_buffering(&mut self) {
        self.session.enable_retry_buffering();
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.session.retry_buffer_truncated()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.session.get_retry_buffer()
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(&mut self) -> Option<Messages> {
        None
    }

    fn restore_custom_message_reader(&mut self, _reader: Messages) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _writer: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}
