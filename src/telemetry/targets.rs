//! The log targets of the program. Each begins with `switchyard`, so that one filter speaks of all of them.

/// Requests: failures, refusals, removed headers.
pub const PROXY: &str = "switchyard::proxy";
/// Pools, endpoints, health and name resolution.
pub const UPSTREAM: &str = "switchyard::upstream";
/// The store of rollouts.
pub const STORE: &str = "switchyard::store";
/// The admin listener.
pub const ADMIN: &str = "switchyard::admin";
/// The process: listeners, signals, drain, upgrade, its logs.
pub const SERVER: &str = "switchyard::server";
/// The configuration.
pub const CONFIG: &str = "switchyard::config";
/// The live state: changes that cannot be followed, and what is due.
pub const CONTROL: &str = "switchyard::control";
