//! Pools: groups of equal upstream addresses with their health, connection limits and options. A release points at
//! one pool; this module picks an endpoint of it, holds a place among its connections and says how to connect.
//! Knows nothing of users' releases, routes or HTTP headers.

pub mod settings;

mod balance;
mod connect_proxy;
mod connection;
mod dial;
mod endpoint;
mod gate;
mod held;
mod kept;
mod pace;
mod paced;
mod pool;
mod pools;
mod probe;
mod progress;
mod resolve;
mod retry;
mod slots;
mod splice;
mod tls;
mod upkeep;
mod whole;

pub use connect_proxy::ConnectProxy;
pub use connection::Connection;
pub use dial::CONNECT_TIMEOUT;
pub use endpoint::{Endpoint, Lease, PeerUse};
pub use held::Held;
pub use paced::{Streams, writes_head};
pub use pool::{Acquire, AcquireError, EndpointStatus, Pool, PoolStatus};
pub use pools::{BuildError, Pools};
pub use retry::RetryBudget;
pub use settings::{PoolSettings, RetryCause};
pub use splice::{NextHead, Splice};
pub use tls::check as check_tls;
pub use upkeep::Upkeep;
pub use whole::{BODILESS, Wanted, Whole};
