//! The program itself, on real sockets at port 0, with origins that misbehave on script.

mod authority;
#[path = "../store/dice.rs"]
mod dice;
#[path = "../store/folder.rs"]
mod folder;
mod harness;
mod holding;
#[path = "../jwt/signer.rs"]
mod signer;

mod aborts;
mod admin;
mod admin_access;
mod admin_client;
mod admin_document;
mod admin_lists;
mod attacks;
mod balances;
mod between;
mod cli;
mod cli_changes;
mod cli_failures;
mod cli_lists;
mod connections;
mod cors;
mod crowd;
mod daemon;
mod drains;
mod early_answers;
mod embedded;
mod endurance;
mod failures;
mod farewells;
mod faults;
mod files;
mod handover;
mod heads;
mod http2;
mod http2_upstream;
mod jwt;
mod limits;
mod load;
mod memory;
mod messages;
mod pools;
mod proxied;
mod requests;
mod segments;
mod signals;
mod sticky;
mod streams;
mod succession;
mod surroundings;
mod switching;
mod switching_crash;
mod switching_disk;
mod tls;
mod tls_listener;
mod upgrade;
mod upgrade_load;
mod upgrades;
mod waits;
mod whole;
