//! Every metric: its name, its help, its labels. No metric is named anywhere else.

/// A metric and its labels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Family {
    /// The name, unit and `_total` included.
    pub(super) name: &'static str,
    /// The text of its `# HELP` line.
    pub(super) help: &'static str,
    /// The names of its labels, in the order of their values.
    pub(super) labels: &'static [&'static str],
}

const fn family(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, help, labels }
}

/// Requests.
pub(super) const REQUESTS: Family = family(
    "switchyard_requests_total",
    &["route", "rollout", "release", "code_class"],
    "Requests by the class of the status sent. 499, the client went away, is 4xx.",
);
/// Request durations.
pub(super) const REQUEST_DURATION: Family = family(
    "switchyard_request_duration_seconds",
    &["rollout", "release"],
    "From the first byte of a request's header to the end of its response.",
);
/// Decisions.
pub(super) const DECISIONS: Family = family(
    "switchyard_decisions_total",
    &["rollout", "release", "reason", "source"],
    "Decisions by reason and by where the identity came from.",
);
/// Clients that went away.
pub(super) const DOWNSTREAM_ABORTS: Family = family(
    "switchyard_downstream_aborts_total",
    &["rollout", "release"],
    "Requests whose client went away before the response was complete.",
);
/// Open downstream connections.
pub(super) const DOWNSTREAM_CONNECTIONS: Family =
    family("switchyard_downstream_connections", &[], "Open downstream connections.");
/// Client misbehaviour before there is a request.
pub(super) const DOWNSTREAM_PROTOCOL_ERRORS: Family = family(
    "switchyard_downstream_protocol_errors_total",
    &["cause"],
    "Failures on downstream connections that only the client can cause and that belong to no request.",
);
/// Requests refused by the guard.
pub(super) const REFUSED: Family = family(
    "switchyard_refused_total",
    &["cause"],
    "Requests refused before they were routed.",
);
/// Removed identity headers.
pub(super) const IDENTITY_REMOVED: Family = family(
    "switchyard_identity_removed_total",
    &[],
    "Requests whose identity or forwarding headers were removed because their peer is not trusted.",
);
/// Tokens.
pub(super) const TOKENS: Family = family(
    "switchyard_tokens_total",
    &["outcome"],
    "Requests with a JWT: known as verified (cached), verified, or why it was not believed.",
);
/// Keys that did not come.
pub(super) const KEYS_FAILED: Family = family(
    "switchyard_jwks_failures_total",
    &[],
    "Times that a JSON Web Key Set could not be had or used; the keys from before stay in use.",
);
/// Upstream connections.
pub(super) const UPSTREAM_CONNECTIONS: Family = family(
    "switchyard_upstream_connections",
    &["pool", "endpoint", "state"],
    "Upstream connections that are idle or carry a request (active).",
);
/// Upstream connections opened.
pub(super) const UPSTREAM_CONNECTIONS_OPENED: Family = family(
    "switchyard_upstream_connections_opened_total",
    &["pool", "endpoint"],
    "Upstream connections opened.",
);
/// Upstream connections used again.
pub(super) const UPSTREAM_REUSED: Family = family(
    "switchyard_upstream_reused_total",
    &["pool", "endpoint"],
    "Requests sent on an upstream connection that had been used before.",
);
/// Waiting for an upstream connection.
pub(super) const UPSTREAM_QUEUE: Family = family(
    "switchyard_upstream_queue_seconds",
    &["pool"],
    "How long requests waited for a connection permit, those that waited.",
);
/// Requests past the queue.
pub(super) const QUEUE_REJECTED: Family = family(
    "switchyard_queue_rejected_total",
    &["pool"],
    "Requests answered 503 because no connection permit came free in time.",
);
/// Health.
pub(super) const ENDPOINT_HEALTHY: Family = family(
    "switchyard_endpoint_healthy",
    &["pool", "endpoint"],
    "1 when the endpoint takes requests, 0 when it is unhealthy or ejected.",
);
/// Passive ejections.
pub(super) const EJECTIONS: Family = family(
    "switchyard_ejections_total",
    &["pool", "endpoint"],
    "Times an endpoint was ejected after consecutive failures.",
);
/// Name resolution.
pub(super) const RESOLVE_FAILURES: Family = family(
    "switchyard_resolve_failures_total",
    &["pool"],
    "Failed resolutions of an endpoint's name; its last addresses stay in use.",
);
/// Retries.
pub(super) const RETRIES: Family = family("switchyard_retries_total", &["pool", "cause"], "Retries by cause.");
/// The live revision.
pub(super) const REVISION: Family = family("switchyard_revision", &[], "The revision that requests see.");
/// Weights.
pub(super) const ROLLOUT_WEIGHT: Family = family(
    "switchyard_rollout_weight",
    &["rollout", "release"],
    "Weight of a release, parts per million.",
);
/// The store.
pub(super) const STORE_CONNECTED: Family = family(
    "switchyard_store_connected",
    &[],
    "1 when the store answers and takes changes, 0 when it does not.",
);
/// From commit to live.
pub(super) const COMMIT_TO_LIVE: Family = family(
    "switchyard_commit_to_live_seconds",
    &[],
    "From the commit of a change to requests seeing it on this node.",
);
/// Lost access-log lines.
pub(super) const ACCESS_LOG_DROPPED: Family = family(
    "switchyard_access_log_dropped_total",
    &[],
    "Access-log lines lost because the log could not take them fast enough, or at all.",
);
/// Lost lines of the error log.
pub(super) const ERROR_LOG_DROPPED: Family = family(
    "switchyard_error_log_dropped_total",
    &[],
    "Lines of the error log lost because nobody took what was written to standard error.",
);
/// The program.
pub(super) const BUILD_INFO: Family = family(
    "switchyard_build_info",
    &["version"],
    "Always 1; the labels say what runs.",
);

/// Values of `code_class`, by status / 100 - 1; the last one is for what no standard knows.
pub const CODE_CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];
/// Values of `reason`, in the order of the interface.
pub const REASONS: [&str; 7] = ["killed", "user", "target", "split", "stable", "anonymous", "fallback"];
/// Values of `source`.
pub const SOURCES: [&str; 7] = [
    "header",
    "cookie",
    "query",
    "jwt",
    "anonymous",
    "none",
    "client_certificate",
];

/// Upper bounds of request durations, microseconds: from a cache's answer to a long poll.
pub(super) const DURATION_BOUNDS: &[u64] = &[
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000,
];
/// Upper bounds of the wait for a connection permit, microseconds; its longest is `queue_timeout`.
pub(super) const QUEUE_BOUNDS: &[u64] = &[
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
];
/// Upper bounds from commit to live, microseconds.
pub(super) const COMMIT_BOUNDS: &[u64] = &[
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000,
];
