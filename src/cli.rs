//! Arguments, printing and exit codes: 0 done, 1 failed, 2 usage or invalid input.

mod args;
mod demo;
mod origin;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::clock;
use crate::config::{self, Config};
use crate::server::{self, RunOptions};
use crate::telemetry::error_log;
use args::{Args, Command, Serve};

const FAILED: u8 = 1;
const INVALID: u8 = 2;

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    match Args::parse().command {
        Command::Serve(serve) => run(&serve),
        Command::Check { config } => check(&config),
        Command::Schema => print_line(&pretty(&config::schema())),
        Command::Version => print_line(&format!("switchyard {}", env!("CARGO_PKG_VERSION"))),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "switchyard", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Command::Demo { listen, admin } => demo::run(&listen, &admin),
    }
}

fn run(serve: &Serve) -> ExitCode {
    let config = match (&serve.config, &serve.stable, &serve.canary) {
        (Some(file), _, _) => config::load(file),
        (None, Some(stable), Some(canary)) => config::quick(stable, canary, &serve.user_header, &serve.listen),
        _ => {
            return complain(
                "say what to serve: -c FILE, or --stable ADDRESS --canary ADDRESS",
                INVALID,
            );
        }
    };
    let options = RunOptions {
        daemon: serve.daemon,
        upgrade: serve.upgrade,
        from_snapshot: serve.from_snapshot,
    };
    match config {
        Ok(config) => start(config, options),
        Err(e) => complain(&e.to_string(), INVALID),
    }
}

/// Serves until the process ends.
fn start(config: Config, options: RunOptions) -> ExitCode {
    if let Err(e) = error_log::init(clock::unix_micros) {
        return complain(&e.to_string(), FAILED);
    }
    let announce = |what: &str, address: &str| {
        complain(&format!("listening: {what} {address}"), 0);
    };
    match server::run(config, options, &announce) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => complain(&e.to_string(), FAILED),
    }
}

fn check(file: &Path) -> ExitCode {
    match config::load(file) {
        Ok(config) => {
            for warning in &config.warnings {
                complain(&format!("warning: {warning}"), 0);
            }
            let (pools, routes, rollouts) = (config.pools.len(), config.routes.len(), config.rollouts.len());
            print_line(&format!(
                "{}: ok: {pools} pools, {routes} routes, {rollouts} rollouts",
                file.display()
            ))
        }
        Err(e) => complain(&e.to_string(), INVALID),
    }
}

fn pretty(value: &serde_json::Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|e| e.to_string())
}

/// Prints to standard output; a reader that went away is no failure.
fn print_line(text: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(FAILED),
    }
}

fn complain(text: &str, code: u8) -> ExitCode {
    match writeln!(std::io::stderr(), "{text}") {
        Ok(()) => ExitCode::from(code),
        Err(_) => ExitCode::from(code.max(FAILED)),
    }
}
