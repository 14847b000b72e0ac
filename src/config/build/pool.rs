//! Pools.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};

use super::super::written as w;
use super::Building;
use crate::rollout::PoolName;
use crate::upstream::settings::{
    Balance, ClientCertificate, Connections, Ejection, EndpointSettings, HealthCheck, Host, Http2, PoolSettings, Probe,
    ProxySetting, Retries, RetryCause, UpstreamTls,
};

pub fn pools(work: &mut Building<'_>, written: BTreeMap<String, w::Pool>) -> Vec<PoolSettings> {
    if written.is_empty() {
        work.note(
            "pools",
            "there is none: write at least one, such as stable: { endpoints: [\"127.0.0.1:9001\"] }",
        );
    }
    let mut pools: Vec<PoolSettings> = Vec::with_capacity(written.len());
    for (name, pool) in written {
        let key = format!("pools.{name}");
        let Some(name) = work.take(&key, PoolName::parse(&name)) else {
            continue;
        };
        let pool = build(work, &key, name, pool);
        if let Some(other) = pools
            .iter()
            .find(|p| p.connections.max_idle != pool.connections.max_idle)
        {
            let message = format!(
                "is {}, but {} in pool {}: it is one limit of the whole process; write the same in every pool",
                pool.connections.max_idle, other.connections.max_idle, other.name
            );
            work.note(&format!("{key}.connections.max_idle"), message);
        }
        pools.push(pool);
    }
    pools
}

fn build(work: &mut Building<'_>, key: &str, name: PoolName, written: w::Pool) -> PoolSettings {
    if written.endpoints.is_empty() {
        work.note(
            &format!("{key}.endpoints"),
            "there is none: write at least one host:port",
        );
    }
    let each = written.endpoints.iter().enumerate();
    let endpoints: Vec<EndpointSettings> = each
        .filter_map(|(n, e)| endpoint(work, &format!("{key}.endpoints[{n}]"), e))
        .collect();
    let tls = tls(work, key, written.tls, &endpoints);
    PoolSettings {
        name,
        endpoints,
        balance: match written.balance {
            w::Balance::RoundRobin => Balance::RoundRobin,
            w::Balance::Random => Balance::Random,
            w::Balance::User => Balance::User,
            w::Balance::LeastRequests => Balance::LeastRequests,
        },
        health_check: written.health_check.map(|check| health_check(work, key, check)),
        ejection: ejection(work, key, &written.ejection),
        resolve_interval: written.resolve_interval.map_or(PoolSettings::RESOLVE_INTERVAL, |s| s.0),
        connections: connections(work, key, written.connections),
        tls,
        retries: retries(work, key, &written.retries),
    }
}

fn endpoint(work: &mut Building<'_>, key: &str, written: &w::Endpoint) -> Option<EndpointSettings> {
    let (text, weight) = match written {
        w::Endpoint::Address(text) => (text, 1),
        w::Endpoint::Weighted(weighted) => (&weighted.address, weighted.weight),
    };
    let weight = NonZeroU16::new(weight).ok_or("is 0: write 1 to 65535, or remove the endpoint");
    let weight = work.take(&format!("{key}.weight"), weight)?;
    let host = host(text).ok_or_else(|| {
        format!("{text:?} is no host and port: write one such as 10.0.0.2:9001 or origin.internal:9001")
    });
    Some(EndpointSettings {
        host: work.take(key, host)?,
        weight,
    })
}

fn host(text: &str) -> Option<Host> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.port() != 0).then_some(Host::Address(address));
    }
    let (name, port) = text.rsplit_once(':')?;
    let label = |label: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(allowed)
    };
    let numeric = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let sound = name.len() <= 253 && !numeric && name.trim_end_matches('.').split('.').all(label);
    let port = port.parse().ok()?;
    sound.then(|| Host::Name {
        name: name.to_owned(),
        port,
    })
}

fn health_check(work: &mut Building<'_>, key: &str, written: w::HealthCheck) -> HealthCheck {
    let key = format!("{key}.health_check");
    if let Some(path) = written.path.as_deref().filter(|p| !p.starts_with('/')) {
        work.note(
            &format!("{key}.path"),
            format!("{path:?} does not begin with '/': write /{path}"),
        );
    }
    let mut count = |name: &str, value: Option<u32>| match value.map(NonZeroU32::new) {
        None => HealthCheck::THRESHOLD,
        Some(Some(count)) => count,
        Some(None) => {
            work.note(&format!("{key}.{name}"), "is 0: write at least 1");
            HealthCheck::THRESHOLD
        }
    };
    HealthCheck {
        healthy_after: count("healthy_after", written.healthy_after),
        unhealthy_after: count("unhealthy_after", written.unhealthy_after),
        probe: match written.path {
            Some(path) => Probe::Http {
                path,
                host: written.host,
            },
            None => Probe::Tcp,
        },
        interval: written.interval.map_or(HealthCheck::INTERVAL, |s| s.0),
        timeout: written.timeout.map_or(HealthCheck::TIMEOUT, |s| s.0),
    }
}

fn ejection(work: &mut Building<'_>, key: &str, written: &w::Ejection) -> Ejection {
    let default = Ejection::default();
    let percent = written.max_ejected_percent.unwrap_or(default.max_ejected_percent);
    if percent > 100 {
        work.note(
            &format!("{key}.ejection.max_ejected_percent"),
            format!("is {percent}: write 0 to 100"),
        );
    }
    Ejection {
        consecutive_failures: written.consecutive_failures.unwrap_or(default.consecutive_failures),
        duration: written.duration.map_or(default.duration, |s| s.0),
        max_ejected_percent: percent,
    }
}

fn connections(work: &mut Building<'_>, key: &str, written: w::Connections) -> Connections {
    let default = Connections::default();
    let most = written.max_per_endpoint.map(NonZeroUsize::new);
    if most == Some(None) {
        work.note(&format!("{key}.connections.max_per_endpoint"), "is 0: write at least 1");
    }
    let keepalive = written.tcp_keepalive.map(|s| Some(s.0).filter(|t| !t.is_zero()));
    Connections {
        connect_timeout: written.connect_timeout.map_or(default.connect_timeout, |s| s.0),
        tcp_keepalive: keepalive.unwrap_or(default.tcp_keepalive),
        http2: match written.http2 {
            None => default.http2,
            Some(w::Http2::Auto) => Http2::Auto,
            Some(w::Http2::Never) => Http2::Never,
            Some(w::Http2::Always) => Http2::Always,
        },
        max_idle: written.max_idle.unwrap_or(default.max_idle),
        max_idle_per_endpoint: written.max_idle_per_endpoint.unwrap_or(default.max_idle_per_endpoint),
        max_per_endpoint: most.flatten().unwrap_or(default.max_per_endpoint),
        queue_max: written.queue_max.unwrap_or(default.queue_max),
        queue_timeout: written.queue_timeout.map_or(default.queue_timeout, |s| s.0),
        idle_timeout: written.idle_timeout.map_or(default.idle_timeout, |s| s.0),
        tls_handshake_timeout: written
            .tls_handshake_timeout
            .map_or(default.tls_handshake_timeout, |s| s.0),
        expect_continue_timeout: written
            .expect_continue_timeout
            .map_or(default.expect_continue_timeout, |s| s.0),
        response_header_timeout: written
            .response_header_timeout
            .map_or(default.response_header_timeout, |s| s.0),
        reuse: written.reuse.unwrap_or(default.reuse),
        proxy: match written.proxy.as_deref() {
            None | Some("environment") => ProxySetting::Environment,
            Some("none") => ProxySetting::None,
            Some(url) => ProxySetting::Url(url.to_owned()),
        },
    }
}

fn tls(work: &mut Building<'_>, key: &str, written: w::Tls, endpoints: &[EndpointSettings]) -> Option<UpstreamTls> {
    let key = format!("{key}.tls");
    if !written.enabled {
        return None;
    }
    let addresses = endpoints.iter().any(|e| matches!(e.host, Host::Address(_)));
    if addresses && written.server_name.is_none() {
        work.note(
            &key,
            "has no server_name, but an endpoint is an address: write the name that its certificate is for",
        );
    }
    if let Some(ca) = &written.ca {
        work.file(&format!("{key}.ca"), ca);
    }
    let client = match (written.client_certificate, written.client_key) {
        (Some(certificate), Some(key_file)) => {
            work.file(&format!("{key}.client_certificate"), &certificate);
            work.file(&format!("{key}.client_key"), &key_file);
            Some(ClientCertificate {
                certificate,
                key: key_file,
            })
        }
        (None, None) => None,
        _ => {
            work.note(
                &key,
                "has only one of client_certificate and client_key: write both or none",
            );
            None
        }
    };
    Some(UpstreamTls {
        server_name: written.server_name,
        ca: written.ca,
        client,
    })
}

fn retries(work: &mut Building<'_>, key: &str, written: &w::Retries) -> Retries {
    let default = Retries::default();
    let attempts = match written.attempts.map(NonZeroU32::new) {
        None => default.attempts,
        Some(Some(attempts)) if attempts.get() <= 10 => attempts,
        Some(_) => {
            work.note(
                &format!("{key}.retries.attempts"),
                "is not from 1 to 10: 1 turns retries off",
            );
            default.attempts
        }
    };
    let cause = |on: &w::RetryOn| match on {
        w::RetryOn::Connect => RetryCause::Connect,
        w::RetryOn::ReusedConnectionClosed => RetryCause::ReusedConnectionClosed,
    };
    Retries {
        attempts,
        on: written
            .on
            .as_ref()
            .map_or(default.on, |list| list.iter().map(cause).collect()),
    }
}
