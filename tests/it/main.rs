//! The program itself, on real sockets at port 0, with origins that misbehave on script.

mod authority;
mod harness;

mod aborts;
mod attacks;
mod balances;
mod connections;
mod http2;
mod pools;
mod requests;
mod signals;
mod tls;
mod upgrades;
