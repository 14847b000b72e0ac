//! The control plane's door: the API by which everything is read and changed, its document, its events, and the
//! metrics. Who may do what is decided here; what a change means is `control`'s.

mod answer;
mod decode;
mod document;
mod events;
mod explain;
mod export;
mod gate;
mod ids;
pub mod lists;
mod parameters;
mod reads;
mod refusal;
mod rollouts;
mod router;
mod segments;
mod sent;
mod service;
pub mod settings;
mod state;
mod taking;
mod terms;
mod tokens;
mod undo;
mod users;
pub mod wire;

pub use router::router;
pub use service::Admin;
pub use state::Parts;
pub use tokens::{Tokens, TokensError};
