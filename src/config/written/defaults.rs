//! The defaults of what people write, taken from those of what code uses, so that no default stands in two places.

use std::num::{NonZeroU16, NonZeroUsize};

use super::super::value::{Size, Span};
use super::{
    AccessLog, Admin, AdminSettings, Anonymous, AnonymousWord, Balance, ClientAuthMode, Connections, Ejection,
    EmbeddedStore, HealthCheck, Identity, Jwt, Limits, Retries, Server, Source, Store,
};
use crate::telemetry::settings::{AccessLogSettings, LogTarget};
use crate::upstream::settings::ProxySetting;
use crate::{admin, identity, proxy, server, store, upstream};

pub fn resolve_interval() -> Span {
    Span(upstream::PoolSettings::RESOLVE_INTERVAL)
}

pub fn balance() -> Balance {
    upstream::settings::Balance::default().into()
}

pub fn weight() -> NonZeroU16 {
    upstream::settings::EndpointSettings::WEIGHT
}

pub fn handshake_timeout() -> Span {
    Span(server::settings::TlsSettings::HANDSHAKE_TIMEOUT)
}

pub fn client_auth_mode() -> ClientAuthMode {
    ClientAuthMode::Required
}

pub fn max_age() -> Span {
    Span(proxy::settings::OwnCors::MAX_AGE)
}

impl Default for Server {
    fn default() -> Self {
        let used = server::settings::ServerSettings::default();
        Self {
            threads: None,
            pid_file: used.pid_file,
            upgrade_sock: used.upgrade_sock,
            drain: Span(used.drain),
            drain_delay: Span(used.drain_delay),
            error_log: used.error_log,
            user: used.user,
            group: used.group,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self::Settings(AdminSettings::default())
    }
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self {
            address: admin::settings::AdminSettings::default().address.to_string(),
            tokens_file: None,
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            embedded: None,
            memory: None,
            keep_history: Span(store::settings::StoreSettings::KEEP_HISTORY),
        }
    }
}

impl Default for EmbeddedStore {
    fn default() -> Self {
        Self {
            path: store::settings::StoreSettings::PATH.into(),
        }
    }
}

impl Default for Identity {
    fn default() -> Self {
        let used = identity::Settings::default();
        Self {
            sources: used.sources.iter().filter_map(source).collect(),
            trusted_peers: used.trusted_peers.networks().iter().map(ToString::to_string).collect(),
            normalise: used.normalise.into_iter().map(Into::into).collect(),
            anonymous: Anonymous::Word(AnonymousWord::Stable),
        }
    }
}

/// A token is none: where its keys are has no default.
fn source(used: &identity::Source) -> Option<Source> {
    let mut written = Source::default();
    match used {
        identity::Source::Header(name) => written.header = Some(title_case(name.as_str())),
        identity::Source::Cookie(name) => written.cookie = Some(name.clone()),
        identity::Source::Query(name) => written.query = Some(name.clone()),
        identity::Source::ClientCertificate(which) => written.client_certificate = Some((*which).into()),
        identity::Source::Jwt(_) => return None,
    }
    Some(written)
}

impl Default for Jwt {
    fn default() -> Self {
        use identity::jwt::{Algorithm, Settings as Used};
        Self {
            header: None,
            cookie: None,
            claim: Used::CLAIM.to_owned(),
            jwks_file: None,
            jwks_url: None,
            refresh: Span(Used::REFRESH),
            timeout: Span(Used::TIMEOUT),
            issuer: None,
            audience: None,
            algorithms: Algorithm::ALL.map(Into::into).to_vec(),
            leeway: Span(Used::LEEWAY),
            on_invalid: identity::jwt::OnInvalid::Reject.into(),
        }
    }
}

/// `X-User-Id` of `x-user-id`.
fn title_case(name: &str) -> String {
    let mut begins = true;
    let each = name.chars().map(|c| {
        let shown = if begins { c.to_ascii_uppercase() } else { c };
        begins = c == '-';
        shown
    });
    each.collect()
}

impl Default for Limits {
    fn default() -> Self {
        let used = proxy::settings::Limits::default();
        Self {
            header_bytes_max: Size(u64::try_from(used.header_bytes_max).unwrap_or(u64::MAX)),
            headers_max: used.headers_max,
            target_bytes_max: Size(u64::try_from(used.target_bytes_max).unwrap_or(u64::MAX)),
            body_bytes_max: used.body_bytes_max.map(Size),
            header_timeout: Span(used.header_timeout),
            body_rate_min: Size(used.body_rate_min),
            keepalive_timeout: Span(used.keepalive_timeout),
            keepalive_requests_max: used.keepalive_requests_max,
            read_timeout: Span(used.read_timeout),
            write_timeout: Span(used.write_timeout),
            connections_max: used.connections_max,
            connections_per_client: used.connections_per_client.map_or(0, NonZeroUsize::get),
            requests_in_flight_max: used.requests_in_flight_max,
            http2_streams_max: used.http2_streams_max,
            http2_resets_max: used.http2_resets_max,
        }
    }
}

impl Default for AccessLog {
    fn default() -> Self {
        let used = AccessLogSettings::default();
        Self {
            path: match used.path {
                LogTarget::Stdout => "-".to_owned(),
                LogTarget::Off => "off".to_owned(),
                LogTarget::File(path) => path.display().to_string(),
            },
            format: used.format.into(),
            user_id: used.user_id.into(),
        }
    }
}

impl Default for HealthCheck {
    fn default() -> Self {
        use upstream::settings::HealthCheck as Used;
        Self {
            path: None,
            host: None,
            interval: Span(Used::INTERVAL),
            timeout: Span(Used::TIMEOUT),
            healthy_after: Used::THRESHOLD,
            unhealthy_after: Used::THRESHOLD,
        }
    }
}

impl Default for Ejection {
    fn default() -> Self {
        let used = upstream::settings::Ejection::default();
        Self {
            consecutive_failures: used.consecutive_failures,
            duration: Span(used.duration),
            max_ejected_percent: used.max_ejected_percent,
        }
    }
}

impl Default for Connections {
    fn default() -> Self {
        let used = upstream::settings::Connections::default();
        Self {
            connect_timeout: Span(used.connect_timeout),
            tcp_keepalive: Span(used.tcp_keepalive.unwrap_or_default()),
            http2: used.http2.into(),
            max_idle: used.max_idle,
            max_idle_per_endpoint: used.max_idle_per_endpoint,
            max_per_endpoint: used.max_per_endpoint,
            queue_max: used.queue_max,
            queue_timeout: Span(used.queue_timeout),
            idle_timeout: Span(used.idle_timeout),
            tls_handshake_timeout: Span(used.tls_handshake_timeout),
            expect_continue_timeout: Span(used.expect_continue_timeout),
            response_header_timeout: Span(used.response_header_timeout),
            reuse: used.reuse,
            proxy: match used.proxy {
                ProxySetting::Environment => "environment".to_owned(),
                ProxySetting::None => "none".to_owned(),
                ProxySetting::Url(url) => url,
            },
        }
    }
}

impl Default for Retries {
    fn default() -> Self {
        let used = upstream::settings::Retries::default();
        Self {
            attempts: used.attempts,
            on: used.on.into_iter().map(Into::into).collect(),
        }
    }
}
