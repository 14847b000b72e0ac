//! The data plane: Pingora's `ProxyHttp`, its phases, headers, CORS, failures. Each phase is a few lines that call a
//! named function. Knows the live snapshot and the pools; knows nothing of the admin side.

pub mod settings;

mod admit;
mod choose;
mod context;
mod cors;
mod edge;
mod engine;
mod failure;
mod farewell;
pub mod fields;
mod gateway;
pub mod guard;
mod headers;
mod leave;
mod phase;
mod places;
mod proxied;
mod record;
mod request;
mod respond;
mod rest;
mod routes;
mod stamp;
mod trace;
mod unread;
mod verify;
mod whole;
pub mod wire;

pub use edge::{Edge, EdgeParts};
pub use engine::{Engine, engine};
pub use gateway::{Gateway, GatewayParts};
pub use places::Connections;
pub use proxied::Relays;
pub use routes::{Routes, Target};
