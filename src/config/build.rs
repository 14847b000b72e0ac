//! From what people write to what code uses: checks everything, fills in every default, collects every problem.

mod cors;
mod identity;
mod jwt;
mod listener;
mod pool;
mod route;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;

use super::Config;
use super::places::Places;
use super::problem::Problem;
use super::value::Span;
use super::written as w;
use crate::admin::{self, settings::AdminSettings};
use crate::proxy::settings::Limits;
use crate::rollout::{Known, Members, PoolIdx, PoolName, RolloutName, RolloutSpec, Table};
use crate::server::settings::{ListenerSettings, ServerSettings};
use crate::store::settings::{StorePlace, StoreSettings};
use crate::telemetry::settings::{AccessLogSettings, LogTarget};
use crate::upstream::PoolSettings;

/// Collects problems while the parts are built.
pub(super) struct Building<'a> {
    places: Places<'a>,
    warnings: Vec<Problem>,
}

/// Builds the configuration, with everything that is wrong: what `places` has noted already, and what is found here.
pub fn config(file: w::File, places: Places<'_>) -> Result<Config, Vec<Problem>> {
    let mut work = Building {
        places,
        warnings: Vec::new(),
    };
    let server = server(&mut work, file.server);
    let listeners = work.listeners(file.listeners);
    let admin = work.admin(file.admin, &listeners);
    let identity = work.identity(file.identity);
    listener::certificates_are_asked_for(&mut work, &identity, &listeners);
    let pools = pool::pools(&mut work, file.pools);
    let rollouts = work.rollouts(file.rollouts, &pools);
    let routes = route::routes(&mut work, file.routes, &pools, &rollouts);
    let limits = limits(&mut work, &file.limits);
    let access_log = access_log(&mut work, &file.access_log);
    let store = work.store(file.store);
    let problems = work.places.into_problems();
    if !problems.is_empty() {
        return Err(problems);
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
        store,
        rollouts,
        warnings: work.warnings,
    })
}

impl Building<'_> {
    pub(super) fn note(&mut self, key: &str, message: impl Into<String>) {
        self.places.note(key, message);
    }

    pub(super) fn warn(&mut self, key: &str, message: impl Into<String>) {
        self.warnings.extend(self.places.problem(key, message));
    }

    /// Notes an error under a key, or yields the value.
    pub(super) fn take<T, E: std::fmt::Display>(&mut self, key: &str, value: Result<T, E>) -> Option<T> {
        value.map_err(|e| self.note(key, e.to_string())).ok()
    }

    /// Whether there is such a file.
    pub(super) fn file(&mut self, key: &str, path: &Path) -> bool {
        let there = path.is_file();
        if !there {
            self.note(
                key,
                format!(
                    "{} is no file: write the path of one, relative to the working directory",
                    path.display()
                ),
            );
        }
        there
    }

    /// A wait of no time would fail always, or never rest.
    pub(super) fn positive(&mut self, key: &str, span: Span) {
        if span.0.is_zero() {
            self.note(key, "is 0s: write at least 1ms");
        }
    }

    /// A path of nothing names no file.
    fn not_empty(&mut self, key: &str, path: &Path, example: &str) {
        if path.as_os_str().is_empty() {
            self.note(key, format!("is empty: write a path, such as {example}"));
        }
    }

    fn address(&mut self, key: &str, text: &str) -> Option<SocketAddr> {
        let address = text.parse::<SocketAddr>();
        self.take(
            key,
            address.map_err(|_| format!("{text:?} is no address and port: write one such as 127.0.0.1:8080")),
        )
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
            let relays = listener
                .proxy_protocol
                .map(|peers| listener::relays(self, &key, &peers));
            let tls = listener.tls.map(|tls| listener::tls(self, &format!("{key}.tls"), tls));
            let Some(address) = self.address(&format!("{key}.address"), &listener.address) else {
                continue;
            };
            listener::is_free(self, &format!("{key}.address"), address, &listeners);
            listeners.push(ListenerSettings {
                address,
                tls,
                h2c: listener.h2c,
                relays,
            });
        }
        listeners
    }

    fn admin(&mut self, written: w::Admin, listeners: &[ListenerSettings]) -> Option<AdminSettings> {
        let settings = match written {
            w::Admin::Word(w::AdminWord::Off) => return None,
            w::Admin::Settings(settings) => settings,
        };
        let address = self.address("admin.address", &settings.address)?;
        listener::is_free(self, "admin.address", address, listeners);
        match &settings.tokens_file {
            Some(file) => self.tokens(file),
            None if address.ip().is_loopback() => {}
            None => self.note(
                "admin.address",
                format!(
                    "{address} is not loopback, and there is no tokens_file: write one, or 127.0.0.1:{}",
                    address.port()
                ),
            ),
        }
        Some(AdminSettings {
            address,
            tokens_file: settings.tokens_file,
        })
    }

    fn tokens(&mut self, file: &Path) {
        const KEY: &str = "admin.tokens_file";
        if self.file(KEY, file) {
            // The server reads it again, and goes on reading it.
            drop(self.take(KEY, admin::Tokens::open(file)));
        }
    }

    fn store(&mut self, written: w::Store) -> StoreSettings {
        let place = match (written.embedded, written.memory) {
            (None, None) => StorePlace::Embedded(StoreSettings::PATH.into()),
            (Some(file), None) => StorePlace::Embedded(file.path),
            (None, Some(w::MemoryStore {})) => StorePlace::Memory,
            (Some(file), Some(w::MemoryStore {})) => {
                self.note("store", "names two places: write one of embedded and memory");
                StorePlace::Embedded(file.path)
            }
        };
        if let StorePlace::Embedded(path) = &place {
            self.not_empty("store.embedded.path", path, StoreSettings::PATH);
        }
        StoreSettings {
            place,
            keep_history: written.keep_history.0,
        }
    }

    fn rollouts(
        &mut self,
        written: BTreeMap<RolloutName, RolloutSpec>,
        pools: &[PoolSettings],
    ) -> Vec<(RolloutName, RolloutSpec)> {
        // Without the section, no pool is known; that is one problem, not one for each release.
        let blind = self.places.is_cut("pools");
        let place = |name: &PoolName| {
            let place = pools.iter().position(|pool| pool.name == *name);
            let place = place.or(blind.then_some(0))?;
            u16::try_from(place).ok().map(PoolIdx)
        };
        let known = Known {
            pool: &place,
            // Segments live in the store: the file cannot know them.
            segment: &|_| Some(Members::none()),
        };
        for (name, spec) in &written {
            if let Err(problems) = Table::compile(name, spec, &known) {
                for problem in problems {
                    self.note(&format!("rollouts.{name}.{}", problem.path), problem.message);
                }
            }
        }
        written.into_iter().collect()
    }
}

fn server(work: &mut Building<'_>, written: w::Server) -> ServerSettings {
    work.not_empty("server.pid_file", &written.pid_file, "run/switchyard.pid");
    work.not_empty(
        "server.upgrade_sock",
        &written.upgrade_sock,
        "run/switchyard-upgrade.sock",
    );
    if let Some(path) = &written.error_log {
        work.not_empty("server.error_log", path, "var/error.log");
    }
    ServerSettings {
        threads: written
            .threads
            .map_or_else(|| ServerSettings::default().threads, |n| usize::from(n.get())),
        pid_file: written.pid_file,
        upgrade_sock: written.upgrade_sock,
        drain: written.drain.0,
        drain_delay: written.drain_delay.0,
        error_log: written.error_log,
        user: written.user,
        group: written.group,
    }
}

fn limits(work: &mut Building<'_>, written: &w::Limits) -> Limits {
    for (name, span) in [
        ("header_timeout", written.header_timeout),
        ("read_timeout", written.read_timeout),
        ("write_timeout", written.write_timeout),
    ] {
        work.positive(&format!("limits.{name}"), span);
    }
    if written.keepalive_timeout.0.subsec_nanos() != 0 || written.keepalive_timeout.0.is_zero() {
        let message = format!("is {}: write whole seconds, at least 1s", written.keepalive_timeout);
        work.note("limits.keepalive_timeout", message);
    }
    for (name, bound) in [
        ("header_bytes_max", written.header_bytes_max.0),
        ("headers_max", written.headers_max as u64),
        ("target_bytes_max", written.target_bytes_max.0),
    ] {
        if bound == 0 {
            work.note(
                &format!("limits.{name}"),
                "is 0, which no request keeps to: write at least 1",
            );
        }
    }
    Limits {
        header_bytes_max: usize::try_from(written.header_bytes_max.0).unwrap_or(usize::MAX),
        headers_max: written.headers_max,
        target_bytes_max: usize::try_from(written.target_bytes_max.0).unwrap_or(usize::MAX),
        body_bytes_max: written.body_bytes_max.map(|size| size.0),
        header_timeout: written.header_timeout.0,
        body_rate_min: written.body_rate_min.0,
        keepalive_timeout: written.keepalive_timeout.0,
        keepalive_requests_max: written.keepalive_requests_max,
        read_timeout: written.read_timeout.0,
        write_timeout: written.write_timeout.0,
        connections_max: written.connections_max,
        connections_per_client: NonZeroUsize::new(written.connections_per_client),
        requests_in_flight_max: written.requests_in_flight_max,
        http2_streams_max: written.http2_streams_max,
        http2_resets_max: written.http2_resets_max,
    }
}

/// Whether a text is a token (RFC 9110, 5.6.2): what methods, field names and names of cookies are.
pub(super) fn is_token(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(allowed)
}

/// What other programs call no log, or their output: hardly meant as the names of files.
const NO_FILES: [&str; 5] = ["none", "false", "null", "stdout", "stderr"];

fn access_log(work: &mut Building<'_>, written: &w::AccessLog) -> AccessLogSettings {
    work.not_empty(
        "access_log.path",
        Path::new(&written.path),
        "var/access.log, or off, or - for standard output",
    );
    if NO_FILES.contains(&written.path.as_str()) {
        let message = format!(
            "{:?} would be a file of that name: write off, - for standard output, or ./{} if it is meant",
            written.path, written.path
        );
        work.note("access_log.path", message);
    }
    AccessLogSettings {
        path: match written.path.as_str() {
            "-" => LogTarget::Stdout,
            "off" => LogTarget::Off,
            path => LogTarget::File(path.into()),
        },
        format: written.format.into(),
        user_id: written.user_id.into(),
    }
}
