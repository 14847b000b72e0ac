//! Files that are read whole: rollouts, through the configuration's own reader.

use std::io::Read;

use super::args::Input;
use super::failure::Failure;
use crate::config::{self, WrittenRollout};
use crate::rollout::{RolloutName, RolloutSpec};

/// The largest file that is taken for rollouts, as for a configuration.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The rollouts of a file.
///
/// # Errors
/// When it cannot be read, or with all that is wrong with it.
pub fn rollouts(input: &Input) -> Result<Vec<WrittenRollout>, Failure> {
    let text = text(input)?;
    let env = |variable: &str| std::env::var(variable).ok();
    config::rollouts_from(&input.to_string(), &text, &env).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Failure::Invalid(lines.join("\n"))
    })
}

/// The spec of the one rollout of a file that is called so, or that is called nothing.
///
/// # Errors
/// When it cannot be read, is wrong, or holds no such rollout.
pub fn rollout(input: &Input, name: &RolloutName) -> Result<RolloutSpec, Failure> {
    named(input, name).map(|one| one.spec)
}

/// The one rollout of a file that is called so, or that is called nothing.
///
/// # Errors
/// When it cannot be read, is wrong, or holds no such rollout.
pub fn named(input: &Input, name: &RolloutName) -> Result<WrittenRollout, Failure> {
    let mut names = Vec::new();
    for one in rollouts(input)? {
        match &one.name {
            Some(other) if other != name => names.push(other.to_string()),
            Some(_) | None => return Ok(one),
        }
    }
    if names.is_empty() {
        return Err(Failure::Invalid(format!("{input}: holds no rollout")));
    }
    Err(Failure::Invalid(format!(
        "{input}: holds no rollout {name}, but {}: say one of them, or write `name: {name}`",
        names.join(", ")
    )))
}

fn text(input: &Input) -> Result<String, Failure> {
    let mut text = String::new();
    let read = match input {
        Input::Stdin => std::io::stdin().take(FILE_BYTES_MAX + 1).read_to_string(&mut text),
        Input::File(path) => {
            std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
        }
    };
    let length = read.map_err(|e| Failure::Invalid(format!("{input}: {e}")))?;
    if length as u64 > FILE_BYTES_MAX {
        return Err(Failure::Invalid(format!(
            "{input}: is larger than {FILE_BYTES_MAX} bytes"
        )));
    }
    Ok(text)
}
