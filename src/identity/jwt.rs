//! JSON Web Tokens: which are believed, and what they say. A token proves itself, so it is read from anyone. Pure: keys
//! are swapped in from outside, the time is an argument, and a check that takes long is handed out to be run elsewhere.

mod cache;
mod check;
mod claims;
mod keys;
mod settings;
mod signature;
mod source;

pub use check::{Check, Checked, Fault};
pub use claims::{Claims, Token};
pub use keys::{KeySet, KeysError};
pub use settings::{Algorithm, Keys, OnInvalid, Place, Settings};
pub use source::TokenSource;

pub(super) use check::Look;
pub(super) use source::Found;
