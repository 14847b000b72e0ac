//! `switchyard demo`: two origins and the proxy in one process, and what to try with them.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;

use super::{FAILED, INVALID, complain, origin, print_line};
use crate::admin::settings::AdminSettings;
use crate::config::{self, Config, LoadError};
use crate::identity::{Identity, SourceKind, UserId};
use crate::rollout::{Known, NoAttributes, PoolIdx, Table};
use crate::server::RunOptions;

/// How many users the bar counts.
const USERS: u32 = 1000;
/// The width of the bar.
const WIDTH: u32 = 50;

/// Runs the demo.
pub fn run(listen: &str, admin: &str) -> ExitCode {
    let origins = origin::spawn("stable").and_then(|stable| Ok((stable, origin::spawn("canary")?)));
    let config = match origins {
        Ok((stable, canary)) => config(listen, admin, stable, canary),
        Err(e) => return complain(&format!("the demo's origins do not start: {e}"), FAILED),
    };
    match config {
        Ok(config) => {
            print_line(&introduction(listen, admin, &config));
            super::start(config, RunOptions::default())
        }
        Err(e) => complain(&e.to_string(), INVALID),
    }
}

fn config(listen: &str, admin: &str, stable: SocketAddr, canary: SocketAddr) -> Result<Config, LoadError> {
    let text = format!(
        r#"
listeners: [{{ address: {} }}]
admin: {{ address: {} }}
identity: {{ sources: [{{ header: X-User-Id }}, {{ query: uid }}] }}
access_log: {{ path: "off" }}
store: {{ memory: {{}} }}
pools:
  stable: {{ endpoints: ["{stable}"] }}
  canary: {{ endpoints: ["{canary}"] }}
routes: [{{ rollout: demo }}]
rollouts:
  demo:
    releases: {{ stable: {{ pool: stable }}, canary: {{ pool: canary }} }}
    targets: [{{ users: ["42"], release: canary }}]
    split: {{ canary: 10% }}
"#,
        config::quoted(listen),
        config::quoted(admin),
    );
    config::from_arguments(&text)
}

fn introduction(listen: &str, admin: &str, config: &Config) -> String {
    let on_canary = canary_users(config);
    let filled = on_canary * WIDTH / USERS;
    let bar: String = (0..WIDTH).map(|n| if n < filled { '█' } else { '░' }).collect();
    let mut text =
        String::from("switchyard demo: releases stable and canary, canary has user 42 and 10 % of the others\n\n");
    let program = program();
    // What the command line asks by default.
    let usual = admin.parse() == Ok(AdminSettings::default().address);
    let to = if usual {
        String::new()
    } else {
        format!(" --admin http://{admin}")
    };
    for (what, command) in [
        ("user 42 is listed", format!("curl -H 'X-User-Id: 42' http://{listen}/")),
        (
            "user 43 goes by share",
            format!("curl -H 'X-User-Id: 43' http://{listen}/"),
        ),
        ("nobody in particular", format!("curl http://{listen}/")),
        (
            "move user 43 to canary, now",
            format!("{program} user set demo 43 canary{to}"),
        ),
        (
            "who would move at 20 %",
            format!("{program} rollout plan demo canary=20%{to}"),
        ),
        ("move them", format!("{program} rollout split demo canary=20%{to}")),
        ("why user 44 gets what", format!("{program} user explain demo 44{to}")),
        ("everyone to stable, now", format!("{program} rollout kill demo{to}")),
        (
            "leave early: it stays quiet",
            format!("curl -m 1 'http://{listen}/slow?uid=42'"),
        ),
        (
            "what is counted",
            format!("curl -s http://{admin}/metrics | grep switchyard_downstream_aborts"),
        ),
    ] {
        let _infallible = writeln!(text, "  {what:28} {command}");
    }
    let _infallible = writeln!(text, "\n  of {USERS} users {on_canary} get canary: {bar}");
    text
}

/// This program as it was called, so that what is printed can be pasted.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "switchyard".to_owned())
}

/// How many of the users 0..1000 the rollout sends to canary.
fn canary_users(config: &Config) -> u32 {
    let tables = config.rollouts.iter().filter_map(|(name, spec)| {
        let known = Known {
            pool: &|pool| Some(PoolIdx(u16::from(pool.as_str() == "canary"))),
            segment: &|_| None,
        };
        Table::compile(name, spec, &known).ok()
    });
    let Some(table) = tables.into_iter().next() else {
        return 0;
    };
    let count = (0..USERS).filter(|n| {
        let Ok(id) = UserId::new(n.to_string().as_bytes()) else {
            return false;
        };
        let user = Identity::User {
            id,
            source: SourceKind::Header,
        };
        table.release(table.decide(&user, &NoAttributes).release).pool == PoolIdx(1)
    });
    u32::try_from(count.count()).unwrap_or(USERS)
}
