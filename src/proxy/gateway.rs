//! Pingora's `ProxyHttp`: the phases of a request, each calling a named function.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use log::{error, warn};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, ImmutStr, Result};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use super::context::Context;
use super::failure::{self, Failure};
use super::fields::Fields;
use super::phase::{self, Phase, at_once};
use super::places::Places;
use super::routes::Routes;
use super::settings::{Cors, Limits, OwnCors};
use super::unread::Ledger;
use super::verify::Verifier;
use super::{admit, choose, cors, headers, record, respond, rest, stamp, whole};
use crate::control::Live;
use crate::identity;
use crate::rollout::RouteId;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::targets;
use crate::upstream::{PeerUse, Pools, RetryCause, Splice, Whole};

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
    verifier: Verifier,
    pub(super) removal_told: AtomicBool,
}

impl Gateway {
    /// Puts the parts together.
    pub fn new(parts: GatewayParts) -> Self {
        Self {
            in_flight: Places::new(parts.limits.requests_in_flight_max),
            parts,
            verifier: Verifier::new(),
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

    /// Where requests are written down that do not get here.
    pub(super) fn ledger(&self) -> Ledger {
        Ledger::new(Arc::clone(&self.parts.access_log), Arc::clone(&self.parts.live))
    }

    pub(super) fn identity(&self) -> &identity::Reader {
        &self.parts.identity
    }

    pub(super) fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.parts.limits
    }

    pub(super) fn in_flight(&self) -> &Arc<Places> {
        &self.in_flight
    }

    pub(super) fn cors(&self, ctx: &Context) -> Option<&Cors> {
        self.parts.routes.get(ctx.route?).cors.as_ref()
    }

    pub(super) fn own_cors(&self, ctx: &Context) -> Option<&OwnCors> {
        match self.cors(ctx) {
            Some(Cors::Own(policy)) => Some(policy),
            Some(Cors::Passthrough) | None => None,
        }
    }

    /// The policy by which this request is answered here, if it is a preflight of a route that wants that.
    pub(super) fn preflight_policy(&self, session: &Session, ctx: &Context) -> Option<&OwnCors> {
        self.own_cors(ctx).filter(|_| cors::is_preflight(session.req_header()))
    }

    /// Answers a preflight, where that is this proxy's, of a request that is admitted.
    fn preflight<'a>(
        &'a self,
        session: &'a mut Session,
        ctx: &Context,
        admitted: Result<()>,
    ) -> Phase<'a, Result<bool>> {
        match self.preflight_policy(session, ctx) {
            Some(policy) if admitted.is_ok() => Box::pin(respond::preflight(session, policy)),
            _ => phase::unanswered(admitted),
        }
    }

    /// Makes of the upstream's head what the client gets.
    fn answer(&self, session: &mut Session, response: &mut ResponseHeader, ctx: &mut Context) -> Result<()> {
        if choose::is_interim(response.status) {
            ctx.interim = true;
            return Ok(());
        }
        if response.status == http::StatusCode::SWITCHING_PROTOCOLS {
            ctx.wire.iter().for_each(|wire| wire.tunnel_begins());
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
            ctx.ids.request_id.to_str().unwrap_or("-"),
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
    /// Boxed: Pingora keeps it in three places of a request's future.
    type CTX = Box<Context>;

    fn new_ctx(&self) -> Box<Context> {
        Box::new(Context::new(self.parts.live.pin()))
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {
        // Pingora's default is a compression module that is switched off, at a price on every request.
    }

    at_once!(early_request_filter(gateway, session, ctx) -> Result<()>: {
        admit::bound(session, &gateway.parts.limits);
        phase::go_on(admit::introduce(gateway, session, ctx))
    });

    at_once!(request_filter(gateway, session, ctx) -> Result<bool>: {
        match admit::admit(gateway, session, ctx) {
            Ok(Some(check)) => Box::pin(async move {
                let admitted = admit::settle(gateway, session, ctx, check).await;
                gateway.preflight(session, ctx, admitted).await
            }),
            Ok(None) => gateway.preflight(session, ctx, Ok(())),
            Err(refused) => gateway.preflight(session, ctx, Err(refused)),
        }
    });

    at_once!(proxy_upstream_filter(_gateway, _session, _ctx) -> Result<bool>: phase::wanted());

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Box<Context>) -> Result<Box<HttpPeer>> {
        choose::peer(self, session, ctx).await
    }

    fn connected_to_upstream<'life0, 'life1, 'life2, 'life3, 'life4, 'async_trait>(
        &'life0 self,
        session: &'life1 mut Session,
        reused: bool,
        _peer: &'life2 HttpPeer,
        _fd: std::os::unix::io::RawFd,
        digest: Option<&'life3 Digest>,
        ctx: &'life4 mut Box<Context>,
    ) -> Phase<'async_trait, Result<()>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        'life2: 'async_trait,
        'life3: 'async_trait,
        'life4: 'async_trait,
        Self: 'async_trait,
    {
        phase::go_on(choose::connected(session, reused, digest, ctx))
    }

    at_once!(upstream_request_filter(gateway, session, ctx; upstream: &mut RequestHeader) -> Result<()>: {
        phase::go_on(choose::address(gateway, session, upstream, ctx))
    });

    at_once!(request_body_filter(
        gateway, _session, ctx; body: &mut Option<Bytes>, end_of_stream: bool
    ) -> Result<()>: {
        phase::go_on(admit::count_body(gateway, body, end_of_stream, ctx))
    });

    at_once!(upstream_response_filter(gateway, session, ctx; response: &mut ResponseHeader) -> Result<()>: {
        let status = whole::came(response, ctx);
        let fields = Fields::of(&response.headers, &[]);
        let sound = headers::check_response(response, fields, ctx.kind == PeerUse::Upgrade)
            .and_then(|()| headers::mend_framing(response, fields));
        if sound.is_ok() {
            ctx.answered = whole::is_all(session.req_header(), status, response, ctx);
            if !choose::is_interim(status) {
                choose::answered(status, ctx);
                rest::bound_if_over(session, response, ctx, gateway.limits());
            }
            headers::strip_response(response, fields, session.as_ref().as_http1().is_some());
        }
        phase::go_on(sound)
    });

    at_once!(response_filter(gateway, session, ctx; response: &mut ResponseHeader) -> Result<()>: {
        ctx.took();
        match (gateway.answer(session, response, ctx), ctx.whole.take()) {
            (Ok(()), Some(Whole { body, head: None, .. })) => {
                Box::pin(whole::pass(session, response, body))
            }
            (Ok(()), Some(Whole { status, body, head: Some(head) })) => {
                whole::splice(status, Splice { head, body }, ctx);
                phase::go_on(Ok(()))
            }
            (answered, _) => phase::go_on(answered),
        }
    });

    fn response_body_filter(
        &self,
        session: &mut Session,
        _body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Box<Context>,
    ) -> Result<Option<Duration>> {
        ctx.took();
        if end_of_stream {
            ctx.answered = true;
            rest::bound(session, ctx, self.limits());
        }
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        session: &mut Session,
        _trailers: &mut HeaderMap,
        ctx: &mut Box<Context>,
    ) -> Result<Option<Bytes>> {
        ctx.answered = true;
        rest::bound(session, ctx, self.limits());
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Box<Context>,
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
        ctx: &mut Box<Context>,
        _reused: bool,
    ) -> Box<Error> {
        let again = choose::again(self, session, &mut e, ctx);
        e.set_retry(again);
        e
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, ctx: &mut Box<Context>) -> FailToProxy {
        let failure = failure::judge(e, ctx);
        ctx.failed = Some(failure.status());
        ctx.aborted = failure == Failure::DownstreamAbort;
        self.tell(ctx, failure, e);
        let cors = self.own_cors(ctx);
        respond::to_failure(session, ctx, failure.status(), failure::reason(e), cors).await;
        FailToProxy {
            error_code: failure.status(),
            can_reuse_downstream: false,
        }
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &Box<Context>, _error: &Error) -> bool {
        // `fail_to_proxy` wrote the line, or had none to write.
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Box<Context>,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        // Retries are counted in `switchyard_retries_total`; the failure that ends a request is logged.
        true
    }

    fn logging<'life0, 'life1, 'life2, 'life3, 'async_trait>(
        &'life0 self,
        session: &'life1 mut Session,
        _error: Option<&'life2 Error>,
        ctx: &'life3 mut Box<Context>,
    ) -> Phase<'async_trait, ()>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        'life2: 'async_trait,
        'life3: 'async_trait,
        Self: 'async_trait,
    {
        ctx.head_arrived();
        ctx.leave();
        stamp::put_back(session, ctx);
        record::record(self, session, ctx);
        phase::over()
    }
}

/// A request that is refused for what it is.
pub(super) fn refused(status: u16, context: impl Into<ImmutStr>) -> Box<Error> {
    Error::explain(ErrorType::HTTPStatus(status), context).into_down()
}
