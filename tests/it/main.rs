//! The program itself, on real sockets at port 0, with origins that misbehave on script.

mod harness;

mod aborts;
mod connections;
mod cors;
mod failures;
mod http2;
mod messages;
mod pools;
mod requests;
mod sticky;
mod streams;
mod upgrades;
