//! The data plane: Pingora's `ProxyHttp`, its phases, headers, CORS, failures. Each phase is a few lines that call a
//! named function. Knows the live snapshot and the pools; knows nothing of the admin side.

pub mod settings;

mod gateway;
mod edge;
mod context;
mod guard;
mod admit;
mod choose;
mod routes;
mod request;
mod headers;
mod trace;
mod cors;
mod failure;
mod respond;
mod record;

pub use edge::Edge;
pub use gateway::{Gateway, GatewayParts};
pub use routes::{Routes, Target};
