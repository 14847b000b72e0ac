//! Who is let in at all: loopback only without tokens, nobody's page of another origin, and a known token otherwise.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State as Shared};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::refusal::{Kind, Refusal};
use super::state::State;
use super::tokens::{Role, Who};

/// What is known of the connection of a request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub Option<SocketAddr>);

/// Reached without a token: probes know none, and the page holds nothing.
const OPEN: [&str; 3] = ["/", "/healthz", "/readyz"];

/// Lets a request in, and notes who it is from.
pub async fn let_in(Shared(state): Shared<State>, mut request: Request, next: Next) -> Response {
    match who(&state, &request) {
        Ok(who) => {
            if let Some(who) = who {
                request.extensions_mut().insert(who);
            }
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// Refuses whoever has less than the role that an operation needs.
pub async fn at_least(Shared(role): Shared<Role>, request: Request, next: Next) -> Response {
    match request.extensions().get::<Who>() {
        Some(who) if who.role >= role => next.run(request).await,
        Some(who) => {
            let text = format!(
                "{} has the role {}, and this needs {}",
                who.name,
                who.role.as_str(),
                role.as_str()
            );
            Refusal::new(Kind::Forbidden, text).into_response()
        }
        None => unauthorised().into_response(),
    }
}

fn who(state: &State, request: &Request) -> Result<Option<Who>, Refusal> {
    let headers = request.headers();
    if state.tokens.is_none() {
        only_loopback(request)?;
    }
    let path = request.uri().path();
    let only_looks = matches!(*request.method(), Method::GET | Method::HEAD);
    if !only_looks || path.starts_with("/api") {
        same_origin(headers)?;
    }
    let Some(tokens) = &state.tokens else {
        return Ok(Some(Who {
            name: Arc::from("local"),
            role: Role::Admin,
        }));
    };
    let known = bearer(headers).and_then(|token| tokens.find(token));
    if known.is_none() && !OPEN.contains(&path) {
        return Err(unauthorised());
    }
    Ok(known)
}

fn unauthorised() -> Refusal {
    Refusal::new(
        Kind::Unauthorised,
        "send Authorization: Bearer TOKEN, with a token of admin.tokens_file",
    )
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// A page of another site that has its name point at loopback (DNS rebinding) gets nothing.
fn only_loopback(request: &Request) -> Result<(), Refusal> {
    let peer = request.extensions().get::<Peer>().and_then(|peer| peer.0);
    if !peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback()) {
        return Err(Refusal::new(
            Kind::Forbidden,
            "without admin.tokens_file only this machine is served",
        ));
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().unwrap_or_default(),
        _ => "",
    };
    let authority = request.uri().authority().map(|a| a.as_str());
    if is_loopback(host) && authority.is_none_or(is_loopback) {
        return Ok(());
    }
    Err(Refusal::new(
        Kind::Misdirected,
        "without admin.tokens_file the Host must be loopback: use 127.0.0.1 or localhost",
    ))
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let address = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<IpAddr>(),
        None => name.parse::<IpAddr>(),
    };
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|ip| ip.is_loopback())
}

/// Refuses what a browser sends for a page that is not ours.
fn same_origin(headers: &HeaderMap) -> Result<(), Refusal> {
    let ours = |origin: &str| {
        let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        authority.zip(host).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
    };
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let foreign = origins.any(|origin| !origin.to_str().is_ok_and(ours));
    let mut sites = headers.get_all("sec-fetch-site").iter();
    let across = sites.any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"));
    if foreign || across {
        return Err(Refusal::new(
            Kind::CrossOrigin,
            "a browser's page of another origin is not served",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hosts_are_told_from_others() {
        for host in [
            "localhost",
            "LOCALHOST:9180",
            "127.0.0.1:1",
            "127.8.8.8",
            "[::1]",
            "[::1]:9180",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.nip.io:80",
            "10.0.0.1",
            "[::2]:1",
            "localhost:",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
