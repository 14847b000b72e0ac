//! The control plane's door. In this version it is open to look at: health, readiness and metrics, on loopback.

pub mod settings;
pub mod wire;

mod page;
mod service;

pub use page::{State, router};
pub use service::Admin;
