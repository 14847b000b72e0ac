//! From what people write to what code uses: checks everything, fills in every default, collects every problem.

mod pool;
mod route;

use std::net::SocketAddr;
use std::path::Path;

use http::HeaderName;
use ipnet::IpNet;

use super::Config;
use super::problem::{Places, Problem};
use super::written as w;
use crate::admin::settings::AdminSettings;
use crate::identity::{self, Anonymous, Normalise, Secret, Source};
use crate::proxy::settings::Limits;
use crate::rollout::{PoolIdx, PoolName, RolloutName, RolloutSpec, Table};
use crate::server::settings::{ListenerSettings, ServerSettings, TlsFiles};
use crate::telemetry::settings::{AccessLogSettings, LogFormat, LogTarget, UserIdShown};
use crate::upstream::PoolSettings;

/// Collects problems while the parts are built.
pub(super) struct Building<'a> {
    places: &'a Places<'a>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// Builds the configuration.
pub fn config(file: w::File, places: &Places<'_>) -> Result<Config, Vec<Problem>> {
    let mut work = Building {
        places,
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    let server = work.server(file.server);
    let listeners = work.listeners(file.listeners);
    let admin = work.admin(file.admin);
    let identity = work.identity(file.identity);
    let pools = pool::pools(&mut work, file.pools);
    let rollouts = work.rollouts(file.rollouts, &pools);
    let routes = route::routes(&mut work, file.routes, &pools, &rollouts);
    let limits = limits(&file.limits);
    let access_log = access_log(&file.access_log);
    work.problems.sort_by_key(|p| (p.line, p.column));
    if !work.problems.is_empty() {
        return Err(work.problems);
    }
    Ok(Config {
        server,
        listeners,
        admin,
        identity,
        pools,
        routes,
        limits,
        access_log,
        rollouts,
        warnings: work.warnings,
    })
}

impl Building<'_> {
    pub(super) fn note(&mut self, key: &str, message: impl Into<String>) {
        let problem = self.places.problem(key, message);
        self.problems.push(problem);
    }

    fn warn(&mut self, key: &str, message: impl Into<String>) {
        let warning = self.places.problem(key, message);
        self.warnings.push(warning);
    }

    /// Notes an error under a key, or yields the value.
    pub(super) fn take<T, E: std::fmt::Display>(&mut self, key: &str, value: Result<T, E>) -> Option<T> {
        value.map_err(|e| self.note(key, e.to_string())).ok()
    }

    pub(super) fn file(&mut self, key: &str, path: &Path) {
        if !path.is_file() {
            self.note(
                key,
                format!(
                    "{} is no file: write the path of one, relative to the working directory",
                    path.display()
                ),
            );
        }
    }

    fn address(&mut self, key: &str, text: &str) -> Option<SocketAddr> {
        let address = text.parse::<SocketAddr>();
        self.take(
            key,
            address.map_err(|_| format!("{text:?} is no address and port: write one such as 127.0.0.1:8080")),
        )
    }

    fn server(&mut self, written: w::Server) -> ServerSettings {
        let default = ServerSettings::default();
        if written.threads == Some(0) {
            self.note("server.threads", "is 0: write at least 1");
        }
        ServerSettings {
            threads: written.threads.map_or(default.threads, usize::from),
            pid_file: written.pid_file.unwrap_or(default.pid_file),
            upgrade_sock: written.upgrade_sock.unwrap_or(default.upgrade_sock),
            drain: written.drain.map_or(default.drain, |s| s.0),
            drain_delay: written.drain_delay.map_or(default.drain_delay, |s| s.0),
            error_log: written.error_log,
            user: written.user,
            group: written.group,
        }
    }

    fn listeners(&mut self, written: Vec<w::Listener>) -> Vec<ListenerSettings> {
        if written.is_empty() {
            self.note(
                "listeners",
                "there is none: write at least one, such as - address: 127.0.0.1:8080",
            );
        }
        let mut listeners: Vec<ListenerSettings> = Vec::with_capacity(written.len());
        for (n, listener) in written.into_iter().enumerate() {
            let key = format!("listeners[{n}]");
            if listener.tls.is_some() && listener.h2c {
                self.note(
                    &format!("{key}.h2c"),
                    "goes with clear text only: a TLS listener speaks HTTP/2 by ALPN; remove h2c",
                );
            }
            if let Some(tls) = &listener.tls {
                self.file(&format!("{key}.tls.certificate"), &tls.certificate);
                self.file(&format!("{key}.tls.key"), &tls.key);
            }
            let Some(address) = self.address(&format!("{key}.address"), &listener.address) else {
                continue;
            };
            if address.port() != 0 && listeners.iter().any(|l| l.address == address) {
                self.note(
                    &format!("{key}.address"),
                    format!("{address} is listened on twice: remove one"),
                );
            }
            listeners.push(ListenerSettings {
                address,
                tls: listener.tls.map(|tls| TlsFiles {
                    certificate: tls.certificate,
                    key: tls.key,
                }),
                h2c: listener.h2c,
            });
        }
        listeners
    }

    fn admin(&mut self, written: Option<w::Admin>) -> Option<AdminSettings> {
        let settings = match written {
            None => return Some(AdminSettings::default()),
            Some(w::Admin::Word(word)) => {
                if word != "off" {
                    self.note(
                        "admin",
                        format!("{word:?} is not known: write off, or address: 127.0.0.1:9180"),
                    );
                }
                return None;
            }
            Some(w::Admin::Settings(settings)) => settings,
        };
        let address = self.address("admin.address", &settings.address)?;
        if !address.ip().is_loopback() {
            self.note(
                "admin.address",
                format!(
                    "{address} is not loopback: in this version the admin side has no tokens; write 127.0.0.1:{}",
                    address.port()
                ),
            );
        }
        Some(AdminSettings {
            address,
            tokens_file: None,
        })
    }

    fn identity(&mut self, written: w::Identity) -> identity::Settings {
        let default = identity::Settings::default();
        let by_default = written.trusted_peers.is_none();
        let sources = match written.sources {
            Some(list) => list.iter().enumerate().filter_map(|(n, s)| self.source(n, s)).collect(),
            None => default.sources,
        };
        let trusted_peers = match written.trusted_peers {
            Some(list) => list
                .iter()
                .enumerate()
                .filter_map(|(n, t)| self.network(n, t))
                .collect(),
            None => default.trusted_peers,
        };
        let header = sources.iter().any(|s| matches!(s, Source::Header(_)));
        if header && by_default {
            self.warn(
                "identity.trusted_peers",
                "only loopback may send the identity header; from others it is removed: list your load balancers",
            );
        }
        if trusted_peers.iter().any(|net: &IpNet| net.prefix_len() == 0) {
            self.warn(
                "identity.trusted_peers",
                "trusts everyone to say who they are: list your load balancers instead",
            );
        }
        identity::Settings {
            sources,
            trusted_peers,
            normalise: written
                .normalise
                .map_or(default.normalise, |list| list.into_iter().map(normalise).collect()),
            anonymous: self.anonymous(written.anonymous),
        }
    }

    fn source(&mut self, n: usize, written: &w::Source) -> Option<Source> {
        let key = format!("identity.sources[{n}]");
        match (&written.header, &written.cookie, &written.query) {
            (Some(name), None, None) => {
                let name =
                    HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is no header field name"));
                self.take(&format!("{key}.header"), name).map(Source::Header)
            }
            (None, Some(name), None) => Some(Source::Cookie(name.clone())),
            (None, None, Some(name)) => Some(Source::Query(name.clone())),
            _ => {
                self.note(
                    &key,
                    "names not exactly one place: write one of header, cookie and query",
                );
                None
            }
        }
    }

    fn network(&mut self, n: usize, text: &str) -> Option<IpNet> {
        let net = text
            .parse::<IpNet>()
            .or_else(|_| text.parse().map(|ip: std::net::IpAddr| ip.into()));
        let net = net.map_err(|_| format!("{text:?} is no network: write one such as 10.0.0.0/8"));
        self.take(&format!("identity.trusted_peers[{n}]"), net)
    }

    fn anonymous(&mut self, written: Option<w::Anonymous>) -> Anonymous {
        let cookie = match written {
            None => return Anonymous::Stable,
            Some(w::Anonymous::Word(word)) => {
                match word.as_str() {
                    "stable" => {}
                    "reject" => return Anonymous::Reject,
                    _ => self.note(
                        "identity.anonymous",
                        format!("{word:?} is not known: write stable, reject, or cookie and secret_file"),
                    ),
                }
                return Anonymous::Stable;
            }
            Some(w::Anonymous::Cookie(cookie)) => cookie,
        };
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

    fn rollouts(
        &mut self,
        written: std::collections::BTreeMap<String, RolloutSpec>,
        pools: &[PoolSettings],
    ) -> Vec<(RolloutName, RolloutSpec)> {
        let place = |name: &PoolName| {
            let place = pools.iter().position(|pool| pool.name == *name)?;
            u16::try_from(place).ok().map(PoolIdx)
        };
        let mut rollouts = Vec::with_capacity(written.len());
        for (name, spec) in written {
            let Some(name) = self.take(&format!("rollouts.{name}"), RolloutName::parse(&name)) else {
                continue;
            };
            if let Err(problems) = Table::compile(&name, &spec, &place) {
                for problem in problems {
                    self.note(&format!("rollouts.{name}.{}", problem.path), problem.message);
                }
            }
            rollouts.push((name, spec));
        }
        rollouts
    }
}

fn normalise(written: w::Normalise) -> Normalise {
    match written {
        w::Normalise::Trim => Normalise::Trim,
        w::Normalise::Unquote => Normalise::Unquote,
        w::Normalise::Lowercase => Normalise::Lowercase,
        w::Normalise::PercentDecode => Normalise::PercentDecode,
    }
}

fn limits(written: &w::Limits) -> Limits {
    let default = Limits::default();
    let bytes = |size: &super::value::Size| usize::try_from(size.0).unwrap_or(usize::MAX);
    Limits {
        header_bytes_max: written
            .header_bytes_max
            .as_ref()
            .map_or(default.header_bytes_max, bytes),
        headers_max: written.headers_max.unwrap_or(default.headers_max),
        body_bytes_max: written.body_bytes_max.map(|s| s.0).or(default.body_bytes_max),
        header_timeout: written.header_timeout.map_or(default.header_timeout, |s| s.0),
        body_rate_min: written.body_rate_min.as_ref().map_or(default.body_rate_min, |s| s.0),
        keepalive_timeout: written.keepalive_timeout.map_or(default.keepalive_timeout, |s| s.0),
        read_timeout: written.read_timeout.map_or(default.read_timeout, |s| s.0),
        write_timeout: written.write_timeout.map_or(default.write_timeout, |s| s.0),
    }
}

fn access_log(written: &w::AccessLog) -> AccessLogSettings {
    let default = AccessLogSettings::default();
    AccessLogSettings {
        path: match written.path.as_deref() {
            None => default.path,
            Some("-") => LogTarget::Stdout,
            Some("off") => LogTarget::Off,
            Some(path) => LogTarget::File(path.into()),
        },
        format: match written.format {
            None => default.format,
            Some(w::Format::Json) => LogFormat::Json,
            Some(w::Format::Combined) => LogFormat::Combined,
        },
        user_id: match written.user_id {
            None => default.user_id,
            Some(w::Shown::Hashed) => UserIdShown::Hashed,
            Some(w::Shown::Plain) => UserIdShown::Plain,
            Some(w::Shown::None) => UserIdShown::None,
        },
    }
}
