//! Who asks, and whom to believe.

use http::HeaderName;
use ipnet::IpNet;

use super::super::written as w;
use super::{Building, is_token, jwt};
use crate::identity::{self, Anonymous, Peers, Secret, Source};

/// Fields that frame a message, that others need, or that this proxy writes itself: taking one for the identity would
/// have it removed from what strangers send.
const NOT_IDENTITY: [&str; 23] = [
    "host",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "http2-settings",
    "keep-alive",
    "origin",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "traceparent",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
    "x-rollout",
];

impl Building<'_> {
    pub(super) fn identity(&mut self, written: w::Identity) -> identity::Settings {
        let by_default = !self.places.is_written("identity.trusted_peers");
        let mut sources: Vec<(usize, Source)> = Vec::with_capacity(written.sources.len());
        for (n, source) in written.sources.iter().enumerate() {
            let Some(source) = self.source(n, source) else {
                continue;
            };
            if let Some((first, _)) = sources.iter().find(|(_, other)| *other == source) {
                let message = format!("is the same as identity.sources[{first}]: remove one");
                self.note(&format!("identity.sources[{n}]"), message);
            }
            sources.push((n, source));
        }
        let sources: Vec<Source> = sources.into_iter().map(|(_, source)| source).collect();
        let trusted_peers = self.peers("identity.trusted_peers", &written.trusted_peers);
        let header = sources.iter().any(|s| matches!(s, Source::Header(_)));
        if header && by_default {
            self.warn(
                "identity.trusted_peers",
                "only loopback may send the identity header; from others it is removed: list your load balancers",
            );
        }
        if header && trusted_peers.networks().is_empty() && written.trusted_peers.is_empty() {
            self.warn(
                "identity.trusted_peers",
                "is empty: the identity header is removed from every request; list your load balancers",
            );
        }
        if trusted_peers.are_all() {
            self.warn(
                "identity.trusted_peers",
                "trusts everyone to say who they are: list your load balancers instead",
            );
        }
        identity::Settings {
            sources,
            trusted_peers,
            normalise: written.normalise.into_iter().map(Into::into).collect(),
            anonymous: self.anonymous(written.anonymous),
        }
    }

    fn source(&mut self, n: usize, written: &w::Source) -> Option<Source> {
        let key = format!("identity.sources[{n}]");
        let w::Source {
            header,
            cookie,
            query,
            client_certificate,
            jwt,
        } = written;
        match (header, cookie, query, client_certificate, jwt) {
            (Some(name), None, None, None, None) => self.identity_field(&format!("{key}.header"), name),
            (None, Some(name), None, None, None) => self.cookie(&format!("{key}.cookie"), name).map(Source::Cookie),
            (None, None, Some(name), None, None) => self.query(&format!("{key}.query"), name),
            (None, None, None, Some(which), None) => Some(Source::ClientCertificate((*which).into())),
            (None, None, None, None, Some(token)) => jwt::source(self, &format!("{key}.jwt"), token).map(Source::Jwt),
            _ => {
                self.note(
                    &key,
                    "names not exactly one place: write one of header, cookie, query, client_certificate and jwt",
                );
                None
            }
        }
    }

    fn identity_field(&mut self, key: &str, name: &str) -> Option<Source> {
        let field = self.field_name(key, name, "X-User-Id")?;
        if NOT_IDENTITY.contains(&field.as_str()) {
            self.note(
                key,
                format!("{name:?} says something else, and is not the proxy's to remove: write one such as X-User-Id"),
            );
            return None;
        }
        Some(Source::Header(field))
    }

    /// A cookie that is only read: such names as `user[id]` are in use, though they are no tokens.
    fn cookie(&mut self, key: &str, name: &str) -> Option<String> {
        let name = self.named(key, name)?;
        if name.contains(|c: char| !c.is_ascii_graphic() || "=;,\"".contains(c)) {
            self.note(key, format!("{name:?} is no name of a cookie: write one such as uid"));
            return None;
        }
        Some(name)
    }

    fn query(&mut self, key: &str, name: &str) -> Option<Source> {
        let name = self.named(key, name)?;
        if name.contains(|c: char| !c.is_ascii_graphic() || "=&#".contains(c)) {
            self.note(
                key,
                format!("{name:?} is no name of a query parameter: write it as requests have it, such as uid"),
            );
            return None;
        }
        Some(Source::Query(name))
    }

    pub(super) fn named(&mut self, key: &str, name: &str) -> Option<String> {
        if name.is_empty() {
            self.note(key, "is empty: write a name such as uid");
            return None;
        }
        Some(name.to_owned())
    }

    pub(super) fn field_name(&mut self, key: &str, name: &str, example: &str) -> Option<HeaderName> {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| format!("{name:?} is no header field name: write one such as {example}"));
        self.take(key, name)
    }

    pub(super) fn peers(&mut self, key: &str, written: &[String]) -> Peers {
        let each = written.iter().enumerate();
        let networks = each.filter_map(|(n, text)| self.network(&format!("{key}[{n}]"), text));
        Peers::new(networks.collect())
    }

    fn network(&mut self, key: &str, text: &str) -> Option<IpNet> {
        let net = text
            .parse::<IpNet>()
            .or_else(|_| text.parse().map(|ip: std::net::IpAddr| ip.into()));
        self.take(
            key,
            net.map_err(|_| format!("{text:?} is no network: write one such as 10.0.0.0/8")),
        )
    }

    fn anonymous(&mut self, written: w::Anonymous) -> Anonymous {
        let cookie = match written {
            w::Anonymous::Word(w::AnonymousWord::Stable) => return Anonymous::Stable,
            w::Anonymous::Word(w::AnonymousWord::Reject) => return Anonymous::Reject,
            w::Anonymous::Cookie(cookie) => cookie,
        };
        if !is_token(&cookie.cookie) {
            self.note(
                "identity.anonymous.cookie",
                format!("{:?} is no name of a cookie: write one such as sy_anon", cookie.cookie),
            );
        }
        let key = "identity.anonymous.secret_file";
        let path = cookie.secret_file.display();
        let bytes = std::fs::read(&cookie.secret_file)
            .map_err(|e| format!("{path}: {e}: write the path of a file of random bytes"));
        let secret = self
            .take(key, bytes)
            .map(|b| Secret::new(b.trim_ascii().to_vec()).map_err(|e| format!("the secret {e}")));
        match secret.and_then(|secret| self.take(key, secret)) {
            Some(secret) => Anonymous::Cookie {
                name: cookie.cookie,
                secret,
            },
            None => Anonymous::Stable,
        }
    }
}
