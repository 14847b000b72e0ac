//! The metrics: handles that are looked up once and then only count, and the text that Prometheus reads.
//!
//! A user id is never a label.

mod families;
mod names;
mod probe;
mod release;
mod series;
mod totals;
mod upstream;
mod value;

use std::time::Duration;

use prometheus::TextEncoder;

use self::families::FAMILIES;

pub use self::names::{CODE_CLASSES, REASONS, SOURCES};
pub use self::probe::{ConnectionProbe, ConnectionSample};
pub use self::release::ReleaseMetrics;
pub use self::totals::{ReleaseTotals, release_totals};
pub use self::upstream::{EndpointMetrics, PoolMetrics, RetryCause};

/// The `Content-Type` of [`render`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// All metrics in Prometheus' text format.
pub fn render() -> Vec<u8> {
    let mut text = String::new();
    TextEncoder::new()
        .encode_utf8(&FAMILIES.registry.gather(), &mut text)
        // invariant: a registry gathers named families that have series, and memory takes every byte.
        .expect("families of the registry can be written");
    text.into_bytes()
}

/// Sets who tells of connections and health each time the metrics are read.
pub fn set_connection_probe(probe: ConnectionProbe) {
    FAMILIES.connection_gauges.set_probe(probe);
}

/// Sets the revision that requests see.
pub fn set_revision(revision: u64) {
    FAMILIES.revision.set(revision);
}

/// Sets the weight of a release, parts per million.
pub fn set_rollout_weight(rollout: &str, release: &str, parts_per_million: u32) {
    FAMILIES
        .rollout_weight
        .with(&[rollout, release])
        .set(u64::from(parts_per_million));
}

/// Removes every series of a rollout. Handles that are still held count on, unseen.
pub fn forget_rollout(rollout: &str) {
    forget_of_rollout(&[("rollout", rollout)]);
}

/// Removes every series of one release of a rollout.
pub fn forget_release(rollout: &str, release: &str) {
    forget_of_rollout(&[("rollout", rollout), ("release", release)]);
}

/// Removes every series of a pool, those of its endpoints included.
pub fn forget_pool(pool: &str) {
    let labels = [("pool", pool)];
    FAMILIES.upstream_queue.forget(&labels);
    FAMILIES.queue_rejected.forget(&labels);
    FAMILIES.resolve_failures.forget(&labels);
    FAMILIES.retries.forget(&labels);
    forget_of_endpoint(&labels);
}

/// Removes every series of one endpoint of a pool.
pub fn forget_endpoint(pool: &str, endpoint: &str) {
    forget_of_endpoint(&[("pool", pool), ("endpoint", endpoint)]);
}

fn forget_of_rollout(labels: &[(&str, &str)]) {
    FAMILIES.requests.forget(labels);
    FAMILIES.request_duration.forget(labels);
    FAMILIES.decisions.forget(labels);
    FAMILIES.downstream_aborts.forget(labels);
    FAMILIES.rollout_weight.forget(labels);
}

fn forget_of_endpoint(labels: &[(&str, &str)]) {
    FAMILIES.upstream_opened.forget(labels);
    FAMILIES.upstream_reused.forget(labels);
    FAMILIES.ejections.forget(labels);
}

/// Sets whether the store answers.
pub fn set_store_connected(connected: bool) {
    FAMILIES.store_connected.set(u64::from(connected));
}

/// Counts how long a change took from its commit to requests seeing it.
pub fn commit_to_live(duration: Duration) {
    FAMILIES.commit_to_live.observe(duration);
}

/// Says what runs.
pub fn set_build(version: &str) {
    FAMILIES.build_info.with(&[version]).set(1);
}

/// Counts a request whose identity or forwarding headers were removed because its peer is not trusted.
pub fn identity_removed() {
    FAMILIES.identity_removed.inc();
}

/// Counts a request refused before it was routed. `cause` is one of a few fixed words.
pub fn refused(cause: &'static str) {
    FAMILIES.refused.with(&[cause]).inc();
}

/// Counts a token that was looked at. `outcome` is one of a few fixed words.
pub fn token(outcome: &'static str) {
    FAMILIES.tokens.with(&[outcome]).inc();
}

/// Counts a token that was known as verified.
pub fn token_cached() {
    FAMILIES.tokens_cached.inc();
}

/// Counts a set of keys that could not be had or used.
pub fn keys_failed() {
    FAMILIES.keys_failed.inc();
}

/// Counts a failure on a downstream connection that belongs to no request.
pub fn downstream_protocol_error(cause: &'static str) {
    FAMILIES.downstream_protocol_errors.with(&[cause]).inc();
}

/// Counts lost access-log lines.
pub(super) fn access_log_dropped(lines: u64) {
    FAMILIES.access_log_dropped.add(lines);
}

/// Counts a lost line of the error log.
pub(super) fn error_log_dropped() {
    FAMILIES.error_log_dropped.inc();
}

/// A downstream connection: counted as open while it exists.
#[derive(Debug)]
pub struct DownstreamConnection(());

impl DownstreamConnection {
    /// Counts a connection until the value is dropped.
    pub fn open() -> Self {
        FAMILIES.downstream_connections.add(1);
        Self(())
    }
}

impl Drop for DownstreamConnection {
    fn drop(&mut self) {
        FAMILIES.downstream_connections.subtract(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The series of the text that mention `word`, without the rest.
    fn series_with(word: &str) -> Vec<String> {
        let text = String::from_utf8(render()).expect("UTF-8");
        let lines = text
            .lines()
            .filter(|line| !line.starts_with('#') && line.contains(word));
        lines.map(str::to_owned).collect()
    }

    fn touch_everything() {
        let release = ReleaseMetrics::new("names", "canary", &["/"]);
        release.request(0, 200);
        release.duration(Duration::from_millis(3));
        release.decision(0, 0);
        release.abort();
        let pool = PoolMetrics::new("names");
        pool.queued(Duration::from_millis(1));
        pool.retry(RetryCause::Connect);
        EndpointMetrics::new("names", "192.0.2.1:1").opened();
        set_rollout_weight("names", "canary", 125_000);
        set_build("0.0.0");
        refused("header_too_large");
        downstream_protocol_error("request_header");
        set_connection_probe(Box::new(|| {
            vec![ConnectionSample {
                pool: "probed".to_owned(),
                endpoint: "192.0.2.1:1".to_owned(),
                idle: 3,
                active: 2,
                healthy: true,
            }]
        }));
    }

    #[test]
    fn the_text_has_exactly_the_names_of_the_interface() {
        touch_everything();
        let text = String::from_utf8(render()).expect("UTF-8");
        let described: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let expected = [
            "switchyard_access_log_dropped_total counter",
            "switchyard_build_info gauge",
            "switchyard_commit_to_live_seconds histogram",
            "switchyard_decisions_total counter",
            "switchyard_downstream_aborts_total counter",
            "switchyard_downstream_connections gauge",
            "switchyard_downstream_protocol_errors_total counter",
            "switchyard_ejections_total counter",
            "switchyard_endpoint_healthy gauge",
            "switchyard_error_log_dropped_total counter",
            "switchyard_identity_removed_total counter",
            "switchyard_jwks_failures_total counter",
            "switchyard_queue_rejected_total counter",
            "switchyard_refused_total counter",
            "switchyard_request_duration_seconds histogram",
            "switchyard_requests_total counter",
            "switchyard_resolve_failures_total counter",
            "switchyard_retries_total counter",
            "switchyard_revision gauge",
            "switchyard_rollout_weight gauge",
            "switchyard_store_connected gauge",
            "switchyard_tokens_total counter",
            "switchyard_upstream_connections gauge",
            "switchyard_upstream_connections_opened_total counter",
            "switchyard_upstream_queue_seconds histogram",
            "switchyard_upstream_reused_total counter",
        ];
        assert_eq!(described, expected);
        for series in [
            "switchyard_requests_total{code_class=\"2xx\",release=\"canary\",rollout=\"names\",route=\"/\"} ",
            "switchyard_decisions_total{reason=\"killed\",release=\"canary\",rollout=\"names\",source=\"header\"} ",
            "switchyard_upstream_connections{endpoint=\"192.0.2.1:1\",pool=\"probed\",state=\"idle\"} 3",
            "switchyard_upstream_connections{endpoint=\"192.0.2.1:1\",pool=\"probed\",state=\"active\"} 2",
            "switchyard_endpoint_healthy{endpoint=\"192.0.2.1:1\",pool=\"probed\"} 1",
            "switchyard_retries_total{cause=\"reused_connection_closed\",pool=\"names\"} 0",
            "switchyard_rollout_weight{release=\"canary\",rollout=\"names\"} 125000",
            "switchyard_build_info{version=\"0.0.0\"} 1",
        ] {
            assert!(text.contains(&format!("\n{series}")), "{series} is not in\n{text}");
        }
    }

    #[test]
    fn statuses_count_into_their_class() {
        let release = ReleaseMetrics::new("classes", "stable", &["/a", "/b"]);
        for status in [101, 204, 304, 404, 499, 503, 999, 0] {
            release.request(1, status);
        }
        let count = |class: &str| {
            series_with("classes").into_iter().find_map(|line| {
                let of_class = line.contains(class) && line.contains("/b");
                of_class.then(|| line.rsplit(' ').next().map(str::to_owned))?
            })
        };
        for (class, expected) in [
            ("1xx", "1"),
            ("2xx", "1"),
            ("3xx", "1"),
            ("4xx", "2"),
            ("5xx", "1"),
            ("other", "2"),
        ] {
            assert_eq!(count(class).as_deref(), Some(expected), "{class}");
        }
    }

    #[test]
    fn every_reason_and_source_has_its_series() {
        let release = ReleaseMetrics::new("matrix", "stable", &[]);
        for reason in 0..REASONS.len() {
            for source in 0..SOURCES.len() {
                release.decision(reason, source);
                release.decision(reason, source);
            }
        }
        let series = series_with("switchyard_decisions_total{");
        let of_release = series.iter().filter(|line| line.contains("matrix"));
        assert_eq!(
            of_release.filter(|line| line.ends_with(" 2")).count(),
            REASONS.len() * SOURCES.len()
        );
    }

    #[test]
    fn what_is_forgotten_is_gone_and_nothing_else() {
        for (rollout, release) in [("gone", "a"), ("gone", "b"), ("kept", "a")] {
            let metrics = ReleaseMetrics::new(rollout, release, &["/x"]);
            metrics.request(0, 200);
            metrics.decision(3, 0);
            set_rollout_weight(rollout, release, 1);
        }
        forget_release("gone", "a");
        assert!(
            series_with("\"gone\"")
                .iter()
                .all(|line| line.contains("release=\"b\""))
        );
        assert!(!series_with("\"gone\"").is_empty());
        forget_rollout("gone");
        assert_eq!(series_with("\"gone\""), Vec::<String>::new());
        assert!(!series_with("\"kept\"").is_empty());

        PoolMetrics::new("leaving");
        EndpointMetrics::new("leaving", "192.0.2.7:1");
        EndpointMetrics::new("leaving", "192.0.2.8:1");
        forget_endpoint("leaving", "192.0.2.7:1");
        assert_eq!(series_with("192.0.2.7"), Vec::<String>::new());
        assert!(!series_with("192.0.2.8").is_empty());
        forget_pool("leaving");
        assert_eq!(series_with("\"leaving\""), Vec::<String>::new());
    }

    #[test]
    fn names_that_join_to_the_same_text_are_two_series() {
        set_rollout_weight("joined", "ab", 1);
        set_rollout_weight("joineda", "b", 2);
        let series = series_with("switchyard_rollout_weight{");
        let weights = series.iter().filter(|line| line.contains("\"joined"));
        assert_eq!(
            weights.map(|line| line.rsplit(' ').next()).collect::<Vec<_>>(),
            [Some("1"), Some("2")]
        );
    }

    #[test]
    fn a_handle_outlives_what_it_counts() {
        let metrics = ReleaseMetrics::new("outlived", "a", &["/"]);
        forget_rollout("outlived");
        metrics.request(0, 200);
        assert_eq!(series_with("outlived"), Vec::<String>::new());
    }

    #[test]
    fn a_connection_is_open_while_it_exists() {
        let open = || series_with("switchyard_downstream_connections")[0].clone();
        let before = open();
        let connection = DownstreamConnection::open();
        assert_ne!(open(), before);
        drop(connection);
        assert_eq!(open(), before);
    }
}
