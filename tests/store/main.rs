//! Proofs of the store: one contract for every kind of store, and what a file must survive.

mod contract;
mod crash;
mod damage;
mod dice;
mod embedded;
mod folder;
mod history;
mod log;
mod make;
mod model;
mod rosters;
