//! The program itself, on real sockets at port 0, with origins that misbehave on script.

mod harness;

mod aborts;
mod connections;
mod failures;
mod messages;
mod pools;
mod requests;
mod streams;
mod upgrades;
