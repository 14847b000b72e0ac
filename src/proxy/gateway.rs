//! Pingora's `ProxyHttp`: the phases of a request, each calling a named function.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderName;
use http::header::CONNECTION;
use log::{error, warn};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use super::context::Context;
use super::failure::{self, Failure};
use super::places::Places;
use super::routes::{Routes, Target};
use super::settings::{Cors, Limits, OwnCors};
use super::{admit, choose, cors, headers, record, respond};
use crate::control::Live;
use crate::identity;
use crate::rollout::RouteId;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::targets;
use crate::upstream::{Connection, PeerUse, Pools, RetryCause};

/// What the gateway is made of.
pub struct GatewayParts {
    /// What requests see.
    pub live: Arc<Live>,
    /// Where requests go.
    pub pools: Arc<Pools>,
    /// Which request goes by which rollout or pool.
    pub routes: Routes,
    /// Who asks.
    pub identity: identity::Reader,
    /// Bounds on downstream.
    pub limits: Limits,
    /// One line a request.
    pub access_log: Arc<AccessLog>,
    /// Set while the process is going away.
    pub draining: Arc<AtomicBool>,
}

/// The data plane.
pub struct Gateway {
    parts: GatewayParts,
    in_flight: Arc<Places>,
    pub(super) removal_told: AtomicBool,
}

impl Gateway {
    /// Puts the parts together.
    pub fn new(parts: GatewayParts) -> Self {
        Self {
            in_flight: Places::new(parts.limits.requests_in_flight_max),
            parts,
            removal_told: AtomicBool::new(false),
        }
    }

    pub(super) fn routes(&self) -> &Routes {
        &self.parts.routes
    }

    pub(super) fn pools(&self) -> &Pools {
        &self.parts.pools
    }

    pub(super) fn access_log(&self) -> &AccessLog {
        &self.parts.access_log
    }

    pub(super) fn identity(&self) -> &identity::Reader {
        &self.parts.identity
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.parts.limits
    }

    pub(super) fn in_flight(&self) -> &Arc<Places> {
        &self.in_flight
    }

    fn identity_names(&self) -> &[HeaderName] {
        self.parts.identity.header_names()
    }

    fn cors(&self, ctx: &Context) -> Option<&Cors> {
        self.parts.routes.get(ctx.route?).cors.as_ref()
    }

    fn own_cors(&self, ctx: &Context) -> Option<&OwnCors> {
        match self.cors(ctx) {
            Some(Cors::Own(policy)) => Some(policy),
            Some(Cors::Passthrough) | None => None,
        }
    }

    fn may_retry(&self, ctx: &Context, cause: RetryCause) -> bool {
        let pool = ctx.pool.map(|pool| self.parts.pools.get(pool));
        pool.is_some_and(|pool| pool.may_retry(cause, ctx.attempts))
    }

    /// Writes down a failure, once, with all that is needed to find it.
    fn tell(&self, ctx: &Context, failure: Failure, error: &Error) {
        let Failure::Failed { status, cause } = failure else {
            return;
        };
        let route = ctx.route.map(|place| self.parts.routes.get(place).id.clone());
        error!(
            target: targets::PROXY,
            "request failed: {cause}; status={status} request_id={} route={} pool={} endpoint={} attempts={} error={error}",
            ctx.request_id.to_str().unwrap_or("-"),
            route.as_ref().map_or("-", RouteId::as_str),
            ctx.pool.map_or("-", |pool| self.parts.pools.get(pool).name().as_str()),
            ctx.endpoint().map_or("-", |e| e.label()),
            ctx.attempts,
        );
    }

    pub(super) fn tell_removal(&self, ctx: &Context) {
        if !self.removal_told.swap(true, Ordering::Relaxed) {
            warn!(
                target: targets::PROXY,
                "removed identity or X-Forwarded-* fields from a request of {}, which is not in identity.trusted_peers; \
                 further removals are only counted (switchyard_identity_removed_total)",
                ctx.peer.map_or_else(|| "-".to_owned(), |p| p.ip().to_string()),
            );
        }
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new(self.parts.live.pin())
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {
        // Pingora's default is a compression module that is switched off, at a price on every request.
    }

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        admit::bound(session, &self.parts.limits);
        admit::introduce(self, session, ctx);
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        admit::route(self, session, ctx);
        admit::enter(self, ctx)?;
        admit::check(self, session, ctx)?;
        admit::identify(self, session, ctx)?;
        match self.own_cors(ctx) {
            Some(policy) if cors::is_preflight(session.req_header()) => {
                respond::preflight(session, policy).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
        choose::peer(self, session, ctx).await
    }

    async fn connected_to_upstream(
        &self,
        _session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        _fd: std::os::unix::io::RawFd,
        digest: Option<&Digest>,
        ctx: &mut Context,
    ) -> Result<()> {
        choose::connected(reused, digest, ctx);
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        let tls = session.digest().is_some_and(|d| d.ssl_digest.is_some());
        headers::stamp(upstream, ctx, tls, self.identity_names())?;
        if self.cors(ctx) != Some(&Cors::Passthrough) {
            headers::drop_origin(upstream);
        }
        if let (Some(place), Some(decision)) = (ctx.route, &ctx.decision) {
            if let Target::Rollout(slot) = self.parts.routes.get(place).target {
                let live = ctx.snapshot.rollout(slot);
                let stamp = live.map(|live| live.stamp(decision).clone());
                stamp
                    .map(|stamp| upstream.insert_header(headers::X_ROLLOUT, stamp))
                    .transpose()?;
            }
        }
        let reuse = ctx
            .pool
            .is_none_or(|pool| self.parts.pools.get(pool).settings().connections.reuse);
        ctx.upstream_h2 = upstream.version == http::Version::HTTP_2;
        if !reuse && !ctx.upstream_h2 && ctx.kind != PeerUse::Upgrade {
            upstream.insert_header(CONNECTION, "close")?;
        }
        choose::sent(session, ctx, self.parts.limits.read_timeout);
        Ok(())
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Context,
    ) -> Result<()> {
        admit::count_body(self, body, end_of_stream, ctx)
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        headers::check_response(response, ctx.kind == PeerUse::Upgrade)?;
        choose::answered(response, ctx, self.parts.limits.read_timeout);
        headers::strip_response(response);
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        if choose::is_interim(response.status) {
            ctx.interim = true;
            return Ok(());
        }
        if let Some(wire) = ctx
            .wire
            .as_ref()
            .filter(|_| response.status == http::StatusCode::SWITCHING_PROTOCOLS)
        {
            wire.tunnel_begins();
        }
        if ctx.interim {
            // Pingora took the interim response for one before the end of the request, which ends the connection.
            admit::keep(session, &self.parts.limits);
        }
        if let Some(policy) = self.own_cors(ctx) {
            cors::answer(policy, &session.req_header().headers, response)?;
        }
        if let Some(cookie) = ctx.set_cookie.take() {
            response.append_header(http::header::SET_COOKIE, cookie)?;
        }
        if session.req_header().version == http::Version::HTTP_10 {
            headers::unchunk(response);
            session.set_keepalive(None);
        }
        if self.parts.draining.load(Ordering::Relaxed) || session.is_process_shutting_down() {
            session.set_keepalive(None);
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        _body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Context,
    ) -> Result<Option<Duration>> {
        if end_of_stream {
            choose::response_over(ctx, self.parts.limits.read_timeout);
        }
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Context,
        mut e: Box<Error>,
    ) -> Box<Error> {
        choose::connect_failed(self, &e, ctx);
        e.set_retry(self.may_retry(ctx, RetryCause::Connect));
        e
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut e: Box<Error>,
        ctx: &mut Context,
        reused: bool,
    ) -> Box<Error> {
        let again = choose::again(self, session, &mut e, reused, ctx);
        e.set_retry(again);
        e
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, ctx: &mut Context) -> FailToProxy {
        let failure = failure::judge(e, ctx);
        ctx.failed = Some(failure.status());
        ctx.aborted = failure == Failure::DownstreamAbort;
        self.tell(ctx, failure, e);
        let answered = session.response_written().is_some();
        if !ctx.aborted && !answered {
            let cors = self.own_cors(ctx);
            let gone = respond::refuse(session, ctx, failure.status(), cors).await.is_err();
            ctx.aborted |= gone;
        }
        FailToProxy {
            error_code: failure.status(),
            can_reuse_downstream: false,
        }
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &Context, _error: &Error) -> bool {
        // `fail_to_proxy` wrote the line, or had none to write.
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Context,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        // Retries are counted in `switchyard_retries_total`; the failure that ends a request is logged.
        true
    }

    async fn logging(&self, session: &mut Session, _e: Option<&Error>, ctx: &mut Context) {
        ctx.head_arrived();
        ctx.leave();
        record::record(self, session, ctx);
    }
}

/// A request that is refused for what it is.
pub(super) fn refused(status: u16, context: &'static str) -> Box<Error> {
    Error::explain(ErrorType::HTTPStatus(status), context).into_down()
}

/// The connection that Pingora carries with its digest; see `upstream::dial`.
pub(super) fn connection_of(digest: Option<&Digest>) -> Option<Arc<Connection>> {
    let data = digest?.proxy_digest.as_ref()?.user_data.as_ref()?;
    data.downcast_ref::<Arc<Connection>>().cloned()
}
