//! The data plane: Pingora's `ProxyHttp`, its phases, headers, CORS, failures. Each phase is a few lines that call a
//! named function. Knows the live snapshot and the pools; knows nothing of the admin side.

pub mod settings;

mod admit;
mod choose;
mod context;
mod cors;
mod edge;
mod failure;
mod gateway;
mod guard;
mod headers;
mod leave;
mod record;
mod request;
mod respond;
mod routes;
mod trace;
mod wire;

pub use edge::Edge;
pub use gateway::{Gateway, GatewayParts};
pub use routes::{Routes, Target};
