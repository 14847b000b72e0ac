//! # Switchyard
//!
//! An edge proxy that sends every request of one user to one release, and lets an operator change who goes where
//! while traffic flows. Built on Pingora.
//!
//! ## The map
//! Import downward only; `tests/architecture.rs` holds the floors.
//!
//! ```text
//! roof     main -> cli -> server -> config
//! planes   proxy    admin            (never each other)
//!          control
//! edges    store    upstream         (never each other)
//! domain   rollout -> identity
//! ground   clock    telemetry    precedence    prefetch    allocator
//! ```
//!
//! - [`allocator`]: the program's memory
//! - [`clock`]: the only reader of time
//! - [`precedence`]: which threads the scheduler lets go first
//! - [`prefetch`]: memory that will be read soon, asked for before it is needed
//! - [`telemetry`]: names of every metric, label, log target and access-log field; the access log; the exporter
//! - [`identity`]: request headers -> Identity (pure)
//! - [`rollout`]: the product: spec, split, bucket, target, table, decision (pure)
//! - [`store`]: durable truth: trait Store; memory, embedded (SQLite)
//! - [`upstream`]: pools: endpoints, health, connection limits and options, peers
//! - [`control`]: the only writer of live state: change -> commit -> publish
//! - [`proxy`]: the data plane: ProxyHttp, its phases, headers, CORS, failures
//! - [`admin`]: the control plane's door: the API, its document, events, metrics
//! - [`config`]: reads the YAML; reports every problem with line and column
//! - [`server`]: composition root: Pingora server, listeners, signals, drain, upgrade
//! - [`cli`]: arguments, printing, exit codes
//!
//! A roster is an immutable set of user ids; a segment is one, and what came and went since.
//!
//! ## The request's way
//! [`proxy::Gateway`] pins the live snapshot, refuses doubtful requests, finds the route and the identity, decides by
//! the rollout's table, takes a place on an endpoint of the decided release's pool, stamps the upstream request, and
//! ends with one access-log line. The release is decided once: retries stay inside it.

pub mod admin;
#[cfg(feature = "mimalloc")]
pub mod allocator;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod identity;
pub mod precedence;
pub mod prefetch;
pub mod proxy;
pub mod rollout;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod upstream;
