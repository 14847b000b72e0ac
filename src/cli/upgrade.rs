//! `switchyard upgrade`: finds the running process, has it replaced, and says how that goes.

use std::io::Write;

use serde::Serialize;

use super::args::{self, Output, Reach};
use super::call::Call;
use super::client::Client;
use super::failure::Failure;
use super::screen;
use crate::admin::wire::Status;
use crate::clock;
use crate::config::{self, Config};
use crate::server::{self, Running, Stage};

/// What `-o json` prints.
#[derive(Debug, Serialize)]
struct Upgraded {
    /// The process that drains.
    replaced: u32,
    /// The one that serves.
    pid: u32,
    /// By this state.
    revision: u64,
    duration_ms: u64,
}

/// Replaces the running process.
///
/// # Errors
/// When there is none, or its successor does not come to serve.
pub fn run(asked: &args::Upgrade) -> Result<(), Failure> {
    let config = config::load(&asked.config).map_err(|e| Failure::Invalid(e.to_string()))?;
    let running = running(asked, &config)?;
    let since = clock::now();
    let person = asked.output == Output::Table;
    let (mut pid, mut revision) = (0, 0);
    let mut told = |stage| {
        match stage {
            Stage::Started(id) => pid = id,
            Stage::Accepts(state) => revision = state,
            Stage::Waits | Stage::HasSockets => {}
        }
        if person {
            say(running, stage);
        }
    };
    server::replace(running, &asked.config, &config.server, &mut told).map_err(|cause| {
        if cause.leaves_one() {
            Failure::NotReplaced(running.pid, cause)
        } else {
            Failure::NothingToReplace(cause)
        }
    })?;
    if person {
        let drain = config.server.drain;
        return screen::put(&format!(
            "process {pid} serves; {} finishes what is in flight, for {drain:?} at most",
            running.pid
        ));
    }
    let upgraded = Upgraded {
        replaced: running.pid,
        pid,
        revision,
        duration_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    let text = serde_json::to_string(&upgraded).map_err(|e| Failure::Unanswered(e.to_string()))?;
    screen::put(&text)
}

/// Which process is replaced: the one that is named, the daemon, or whichever answers at the admin side.
fn running(asked: &args::Upgrade, config: &Config) -> Result<Running, Failure> {
    if let Some(pid) = asked.pid {
        return Ok(Running::of(pid, &config.server));
    }
    if let Some(daemon) = Running::daemon(&config.server) {
        return Ok(daemon);
    }
    let Some(admin) = &config.admin else {
        return Err(Failure::Invalid(format!(
            "no daemon has {}, and admin is off: say which process with --pid",
            config.server.pid_file.display()
        )));
    };
    let client = Client::new(&Reach {
        admin: format!("http://{}", admin.address),
        token_file: asked.token_file.clone(),
        output: asked.output,
    })?;
    let (status, _) = client.read::<Status>(&Call::get(&["status"]))?;
    Ok(Running::of(status.pid, &config.server))
}

/// Progress goes to standard error, as it comes; nobody may read it.
fn say(running: Running, stage: Stage) {
    let text = match stage {
        Stage::Started(pid) => format!("process {} serves; its successor {pid} is started", running.pid),
        Stage::Waits => "  it is prepared, and waits for the sockets".to_owned(),
        Stage::HasSockets => "  it has the sockets".to_owned(),
        Stage::Accepts(revision) => format!("  it accepts, at revision {revision}"),
    };
    drop(writeln!(std::io::stderr(), "{text}"));
}
