//! The program itself, on real sockets at port 0, with origins that misbehave on script.

mod harness;

mod aborts;
mod admin;
mod admin_access;
mod admin_client;
mod admin_document;
mod admin_lists;
mod cli;
mod cli_changes;
mod cli_failures;
mod cli_lists;
mod connections;
mod pools;
mod requests;
mod upgrades;
