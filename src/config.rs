//! Reads the YAML into the settings of every module, and reports what is wrong with it. Nothing reads the file after
//! start.

mod build;
mod check;
mod places;
mod problem;
mod rollouts;
mod shape;
mod tree;
mod typed;
mod value;
mod variables;
mod written;

use std::path::Path;

use thiserror::Error;

use crate::admin::settings::AdminSettings;
use crate::identity;
use crate::proxy::settings::{Limits, RouteSettings};
use crate::rollout::{RolloutName, RolloutSpec};
use crate::server::settings::{ListenerSettings, ServerSettings};
use crate::store::settings::StoreSettings;
use crate::telemetry::settings::AccessLogSettings;
use crate::upstream::PoolSettings;

use places::Places;
use variables::Replaced;

pub use problem::Problem;
pub use rollouts::{WrittenRollout, rollouts_from};

/// The largest file that is read: a list of a million users has room in it.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What code uses: everything checked, every default filled in.
#[derive(Debug)]
pub struct Config {
    /// The process.
    pub server: ServerSettings,
    /// Where downstream connects.
    pub listeners: Vec<ListenerSettings>,
    /// The admin listener, unless it is off.
    pub admin: Option<AdminSettings>,
    /// Who asks.
    pub identity: identity::Settings,
    /// Where requests go.
    pub pools: Vec<PoolSettings>,
    /// Which requests go where.
    pub routes: Vec<RouteSettings>,
    /// Bounds on downstream.
    pub limits: Limits,
    /// The access log.
    pub access_log: AccessLogSettings,
    /// Where changes are kept.
    pub store: StoreSettings,
    /// The seed of the rollouts.
    pub rollouts: Vec<(RolloutName, RolloutSpec)>,
    /// What is allowed, and probably not meant.
    pub warnings: Vec<Problem>,
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("{file}: {cause}")]
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        cause: String,
    },
    /// The arguments that stand for a file are wrong: a line each.
    #[error("{}", .0.join("\n"))]
    Arguments(Vec<String>),
    /// What is wrong with it, in the order of the file.
    #[error("{}", problem::lines(.0))]
    Invalid(Vec<Problem>),
}

/// Reads a file; `${VAR}` is taken from the environment.
///
/// # Errors
/// When it cannot be read, or with all that is wrong with it.
pub fn load(file: &Path) -> Result<Config, LoadError> {
    let name = file.display().to_string();
    let unreadable = |cause: String| LoadError::Unreadable {
        file: name.clone(),
        cause,
    };
    let advised = |e: std::io::Error| unreadable(format!("{e}: write the path of a YAML file that can be read"));
    let size = std::fs::metadata(file).map_err(advised)?.len();
    if size > FILE_BYTES_MAX {
        return Err(unreadable(format!(
            "is larger than {FILE_BYTES_MAX} bytes: import lists of users instead"
        )));
    }
    let bytes = std::fs::read(file).map_err(advised)?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let before = e.as_bytes().get(..e.utf8_error().valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        unreadable(format!("is not UTF-8 in line {line}: save it as UTF-8"))
    })?;
    let env = |variable: &str| std::env::var(variable).ok();
    parse(&name, &text, &env).map_err(LoadError::Invalid)
}

/// Reads a text that came from the file `name`.
///
/// # Errors
/// All that is wrong with it, in the order of the text.
pub fn parse(name: &str, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Vec<Problem>> {
    let replaced = Replaced::new(text, env);
    let mut places = Places::new(name, &replaced);
    let file = typed::file(&replaced, &mut places);
    match file {
        Some(file) => build::config(file, places),
        None => Err(places.into_problems()),
    }
}

/// The JSON Schema of the file, for editors.
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(written::File).to_value()
}

/// The configuration without a file: rollout `default` between two pools, everyone on stable.
///
/// # Errors
/// When an address or a name is none: which argument, and what to write.
pub fn quick(stable: &str, canary: &str, user_header: &str, listen: &str) -> Result<Config, LoadError> {
    let text = format!(
        "listeners: [{{ address: {} }}]\n\
         store: {{ memory: {{}} }}\n\
         identity: {{ sources: [{{ header: {} }}] }}\n\
         pools:\n  stable: {{ endpoints: [{}] }}\n  canary: {{ endpoints: [{}] }}\n\
         routes: [{{ rollout: default }}]\n\
         rollouts:\n  default:\n    releases: {{ stable: {{ pool: stable }}, canary: {{ pool: canary }} }}\n",
        quoted(listen),
        quoted(user_header),
        quoted(stable),
        quoted(canary),
    );
    from_arguments(&text)
}

/// An argument as a text of the file. JSON is YAML; and no argument is a variable.
#[must_use]
pub fn quoted(argument: &str) -> String {
    serde_json::Value::from(argument).to_string().replace("${", "$${")
}

/// Reads a text that was made of arguments: what is wrong is told of those.
///
/// # Errors
/// What is wrong with which argument.
pub fn from_arguments(text: &str) -> Result<Config, LoadError> {
    let mut config = parse("command line", text, &|_| None).map_err(|problems| {
        let told = problems.iter().map(|p| format!("{}: {}", argument(&p.key), p.message));
        LoadError::Arguments(told.collect())
    })?;
    // Where only this machine can connect, there is nobody whose word would not be taken.
    let near = config.listeners.iter().all(|l| l.address.ip().is_loopback());
    config.warnings.retain(|_| !near);
    config.warnings.iter_mut().for_each(Problem::forget_place);
    Ok(config)
}

/// The argument that a key of [`from_arguments`] came from.
fn argument(key: &str) -> &str {
    let arguments = [
        ("pools.stable.", "--stable"),
        ("pools.canary.", "--canary"),
        ("listeners", "--listen"),
        ("admin", "--admin"),
        ("identity", "--user-header"),
    ];
    let found = arguments.iter().find(|(prefix, _)| key.starts_with(prefix));
    found.map_or(key, |(_, argument)| argument)
}
