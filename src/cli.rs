//! Arguments, printing and exit codes: 0 done, 1 failed, 2 usage or invalid input, 3 conflict, 4 committed but not yet
//! live everywhere.

mod apply;
mod args;
mod call;
mod client;
mod demo;
mod events;
mod explain;
mod failure;
mod file;
mod list;
mod moment;
mod origin;
mod rollout;
mod screen;
mod segment;
mod session;
mod show;
mod upgrade;
mod user;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::admin::wire::Status;
use crate::clock;
use crate::config::{self, Config};
use crate::server::{self, RunOptions, StartError};
use crate::telemetry::error_log;
use args::{Args, Command, Reach, Serve};
use call::Call;
use failure::{FAILED, Failure, INVALID};
use session::Session;

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    match Args::parse().command {
        Command::Serve(serve) => run(&serve),
        Command::Upgrade(asked) => ended(upgrade::run(&asked)),
        Command::Check { config } => check(&config),
        Command::Schema => print_line(&pretty(&config::schema())),
        Command::Version => print_line(&format!("switchyard {}", env!("CARGO_PKG_VERSION"))),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "switchyard", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Command::Demo { listen, admin } => demo::run(&listen, &admin),
        Command::Rollout(rollout) => ended(rollout::run(&rollout)),
        Command::User(user) => ended(user::run(&user)),
        Command::Segment(segment) => ended(segment::run(&segment)),
        Command::Status(reach) => ended(status(&reach)),
        Command::Events(events) => ended(events::run(&events)),
    }
}

fn status(reach: &Reach) -> Result<(), Failure> {
    let session = Session::new(reach)?;
    session.show(&Call::get(&["status"]), |screen, status: &Status| {
        show::status(screen, status)
    })
}

/// The exit code of a verb, its failure told; a reader of the output that went away is no failure.
fn ended(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Output(e)) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => complain(&failure.to_string(), failure.code()),
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
        without_lost_users: serve.without_lost_users,
    };
    match config {
        Ok(config) => start(config, options),
        Err(e) => complain(&e.to_string(), INVALID),
    }
}

/// Serves until the process ends.
fn start(config: Config, options: RunOptions) -> ExitCode {
    if options.daemon && !server::is_child() {
        return match server::start_daemon(&config.server, options.upgrade) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => complain(&e.to_string(), e.code()),
        };
    }
    if let Err(e) = error_log::init(clock::unix_micros) {
        return complain(&e.to_string(), FAILED);
    }
    let announce = |what: &str, address: &str| {
        complain(&format!("listening: {what} {address}"), 0);
    };
    // Whoever started this process in the background writes the same there.
    let is_told = server::is_child() && config.server.error_log.is_none();
    match server::run(config, options, &announce) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if is_told && !matches!(e, StartError::Starter(_)) => ExitCode::from(FAILED),
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
                "{}: ok: {}, {}, {}",
                file.display(),
                screen::counted(pools, "pool"),
                screen::counted(routes, "route"),
                screen::counted(rollouts, "rollout")
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
