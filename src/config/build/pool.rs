//! Pools.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::super::written as w;
use super::Building;
use crate::rollout::PoolName;
use crate::upstream::settings::{
    ClientCertificate, Connections, Ejection, EndpointSettings, HealthCheck, Host, PoolSettings, Probe, ProxySetting,
    Retries, UpstreamTls,
};
use crate::upstream::{self, ConnectProxy};

/// The most that Linux takes for `TCP_KEEPIDLE`.
const KEEPALIVE_MAX: Duration = Duration::from_secs(32_767);

pub fn pools(work: &mut Building<'_>, written: BTreeMap<PoolName, w::Pool>) -> Vec<PoolSettings> {
    if written.is_empty() {
        work.note(
            "pools",
            "there is none: write at least one, such as stable: { endpoints: [\"127.0.0.1:9001\"] }",
        );
    }
    let mut pools: Vec<PoolSettings> = Vec::with_capacity(written.len());
    for (name, pool) in written {
        let key = format!("pools.{name}");
        let pool = build(work, &key, name, pool);
        let max_idle = format!("{key}.connections.max_idle");
        let other = pools
            .iter()
            .find(|p| p.connections.max_idle != pool.connections.max_idle);
        if let Some(other) = other {
            let message = format!(
                "is {}, but {} in pool {}: it is one limit of the whole process; write the same in every pool",
                pool.connections.max_idle, other.connections.max_idle, other.name
            );
            work.note(&max_idle, message);
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
    let mut endpoints: Vec<EndpointSettings> = Vec::with_capacity(written.endpoints.len());
    for (n, written) in each {
        let key = format!("{key}.endpoints[{n}]");
        let Some(endpoint) = endpoint(work, &key, written) else {
            continue;
        };
        if endpoints.iter().any(|other| other.host == endpoint.host) {
            work.note(&key, "is listed twice: remove one, and give the other a weight");
        }
        endpoints.push(endpoint);
    }
    let tls = tls(work, key, written.tls, &endpoints);
    work.positive(&format!("{key}.resolve_interval"), written.resolve_interval);
    PoolSettings {
        name,
        endpoints,
        balance: written.balance.into(),
        health_check: written.health_check.map(|check| health_check(work, key, check)),
        ejection: ejection(&written.ejection),
        resolve_interval: written.resolve_interval.0,
        connections: connections(work, key, &written.connections),
        tls,
        retries: retries(written.retries),
    }
}

fn endpoint(work: &mut Building<'_>, key: &str, written: &w::Endpoint) -> Option<EndpointSettings> {
    let (key, text, weight) = match written {
        w::Endpoint::Address(text) => (key.to_owned(), text, EndpointSettings::WEIGHT),
        w::Endpoint::Weighted(weighted) => (format!("{key}.address"), &weighted.address, weighted.weight),
    };
    let host = host(text).ok_or_else(|| no_endpoint(text));
    Some(EndpointSettings {
        host: work.take(&key, host)?,
        weight,
    })
}

fn no_endpoint(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return format!("{text:?} is no host and port: write one such as 10.0.0.2:9001 or origin.internal:9001");
    };
    let place = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let (port, tls) = match scheme {
        "https" => (":443", ", and tls: { enabled: true } for the pool"),
        _ => (":80", ""),
    };
    let port = if host(place).is_some() { "" } else { port };
    format!("{text:?} is a URL, not a host and port: write {place}{port}{tls}")
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
    let graphic = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
    match written.path.as_deref() {
        Some(path) if !path.starts_with('/') => work.note(
            &format!("{key}.path"),
            format!("{path:?} does not begin with '/': write /{path}"),
        ),
        Some(path) if !graphic(path) || path.contains('#') => work.note(
            &format!("{key}.path"),
            format!("{path:?} is no target of a request: write one such as /healthz"),
        ),
        Some(_) | None => {}
    }
    match written.host.as_deref() {
        Some(host) if host.is_empty() || !graphic(host) => work.note(
            &format!("{key}.host"),
            format!("{host:?} is no host: write one such as origin.internal"),
        ),
        Some(_) if written.path.is_none() => work.note(
            &format!("{key}.host"),
            "goes with path only: a TCP check sends nothing; write path, or remove host",
        ),
        Some(_) | None => {}
    }
    work.positive(&format!("{key}.interval"), written.interval);
    work.positive(&format!("{key}.timeout"), written.timeout);
    HealthCheck {
        healthy_after: written.healthy_after,
        unhealthy_after: written.unhealthy_after,
        probe: match written.path {
            Some(path) => Probe::Http {
                path,
                host: written.host,
            },
            None => Probe::Tcp,
        },
        interval: written.interval.0,
        timeout: written.timeout.0,
    }
}

fn ejection(written: &w::Ejection) -> Ejection {
    Ejection {
        consecutive_failures: written.consecutive_failures,
        duration: written.duration.0,
        max_ejected_percent: written.max_ejected_percent,
    }
}

fn connections(work: &mut Building<'_>, key: &str, written: &w::Connections) -> Connections {
    let key = format!("{key}.connections");
    for (name, span) in [
        ("connect_timeout", written.connect_timeout),
        ("tls_handshake_timeout", written.tls_handshake_timeout),
        ("response_header_timeout", written.response_header_timeout),
        ("idle_timeout", written.idle_timeout),
    ] {
        work.positive(&format!("{key}.{name}"), span);
    }
    let keepalive = written.tcp_keepalive.0;
    if keepalive.subsec_nanos() != 0 || keepalive > KEEPALIVE_MAX {
        let message = format!(
            "is {}, which the system does not take: write whole seconds up to {}s, or 0s for none",
            written.tcp_keepalive,
            KEEPALIVE_MAX.as_secs()
        );
        work.note(&format!("{key}.tcp_keepalive"), message);
    }
    if written.max_idle == 0 {
        work.note(
            &format!("{key}.max_idle"),
            "is 0: write at least 1, or reuse: false to keep none",
        );
    }
    let proxy = match written.proxy.as_str() {
        "environment" => ProxySetting::Environment,
        "none" => ProxySetting::None,
        url => {
            // The URL may hold a password, so it is not repeated.
            if ConnectProxy::parse(url).is_err() {
                let message = "is no proxy: write http://[user:password@]host:port, or environment, or none";
                work.note(&format!("{key}.proxy"), message);
            }
            ProxySetting::Url(url.to_owned())
        }
    };
    Connections {
        connect_timeout: written.connect_timeout.0,
        tcp_keepalive: Some(written.tcp_keepalive.0).filter(|t| !t.is_zero()),
        http2: written.http2.into(),
        max_idle: written.max_idle,
        max_idle_per_endpoint: written.max_idle_per_endpoint,
        max_per_endpoint: written.max_per_endpoint,
        queue_max: written.queue_max,
        queue_timeout: written.queue_timeout.0,
        idle_timeout: written.idle_timeout.0,
        tls_handshake_timeout: written.tls_handshake_timeout.0,
        expect_continue_timeout: written.expect_continue_timeout.0,
        response_header_timeout: written.response_header_timeout.0,
        reuse: written.reuse,
        proxy,
    }
}

fn tls(work: &mut Building<'_>, key: &str, written: w::Tls, endpoints: &[EndpointSettings]) -> Option<UpstreamTls> {
    let key = format!("{key}.tls");
    if !written.enabled {
        for name in ["server_name", "ca", "client_certificate", "client_key"] {
            let key = format!("{key}.{name}");
            if work.places.is_written(&key) {
                work.warn(
                    &key,
                    "has no effect while TLS is off: write enabled: true, or remove it",
                );
            }
        }
        return None;
    }
    let addresses = endpoints.iter().any(|e| matches!(e.host, Host::Address(_)));
    if addresses && written.server_name.is_none() {
        work.note(
            &key,
            "has no server_name, but an endpoint is an address: write the name that its certificate is for",
        );
    }
    let mut there = true;
    if let Some(ca) = &written.ca {
        there &= work.file(&format!("{key}.ca"), ca);
    }
    let client = match (written.client_certificate, written.client_key) {
        (Some(certificate), Some(key_file)) => {
            there &= work.file(&format!("{key}.client_certificate"), &certificate);
            there &= work.file(&format!("{key}.client_key"), &key_file);
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
    let settings = UpstreamTls {
        server_name: written.server_name,
        ca: written.ca,
        client,
    };
    if there {
        if let Err((name, e)) = upstream::check_tls(&settings) {
            work.note(&format!("{key}.{name}"), e.to_string());
        }
    }
    Some(settings)
}

fn retries(written: w::Retries) -> Retries {
    Retries {
        attempts: written.attempts,
        on: written.on.into_iter().map(Into::into).collect(),
    }
}
