//! `switchyard rollout`

use clap::Subcommand;

use super::ask::{Ask, Input, Reach, revision};
use crate::rollout::{ReleaseName, RolloutName, Weight};

/// `switchyard rollout`
#[derive(Debug, clap::Args)]
pub struct Rollout {
    #[command(flatten)]
    pub reach: Reach,
    #[command(subcommand)]
    pub verb: RolloutVerb,
}

#[derive(Debug, Subcommand)]
pub enum RolloutVerb {
    /// Every rollout and its shares
    List,
    /// One rollout; with -o json the output can be edited and given to apply
    Get {
        /// Which
        #[arg(value_name = "ROLLOUT", value_parser = RolloutName::parse)]
        name: RolloutName,
    },
    /// Create a rollout that does not exist yet
    Create {
        /// Its name
        #[arg(value_name = "ROLLOUT", value_parser = RolloutName::parse)]
        name: RolloutName,
        /// Its spec, YAML or JSON; - for standard input
        #[arg(short, long, value_name = "FILE", value_parser = Input::parse)]
        file: Input,
        #[command(flatten)]
        ask: Ask,
    },
    /// Create or replace the rollouts of a file in one change, and show what it changes
    Apply {
        /// The rollout's name, where the file does not say it
        #[arg(value_name = "ROLLOUT", value_parser = RolloutName::parse)]
        name: Option<RolloutName>,
        /// `rollouts:` by name, a whole switchyard.yaml, or one rollout's spec with `name:`; - for standard input
        #[arg(short, long, value_name = "FILE", value_parser = Input::parse)]
        file: Input,
        #[command(flatten)]
        ask: Ask,
    },
    /// Set the shares: what is not named gets nothing, the rest is stable's
    Split {
        /// Of which rollout
        #[arg(value_name = "ROLLOUT", value_parser = RolloutName::parse)]
        name: RolloutName,
        /// Shares, such as canary=12.5%
        #[arg(required = true, value_name = "RELEASE=SHARE", value_parser = share)]
        shares: Vec<(ReleaseName, Weight)>,
        #[command(flatten)]
        ask: Ask,
    },
    /// Every user to stable, now
    Kill(Named),
    /// End a kill
    Resume(Named),
    /// No new users enter a release, those in it stay
    Freeze(Named),
    /// End a freeze
    Unfreeze(Named),
    /// Remove a rollout and its single users
    Delete(Named),
    /// Who would move, before it is done
    Plan {
        /// In which rollout
        #[arg(value_name = "ROLLOUT", value_parser = RolloutName::parse)]
        name: RolloutName,
        /// Shares, such as canary=20%
        #[arg(required_unless_present = "file", value_name = "RELEASE=SHARE", value_parser = share)]
        shares: Vec<(ReleaseName, Weight)>,
        /// Another spec instead; - for standard input
        #[arg(short, long, value_name = "FILE", value_parser = Input::parse, conflicts_with = "shares")]
        file: Option<Input>,
    },
    /// What was changed, by whom and why, the latest first
    History {
        /// Only of this rollout
        #[arg(value_name = "ROLLOUT", value_parser = RolloutName::parse)]
        name: Option<RolloutName>,
        /// How many changes
        #[arg(short = 'n', long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// Only changes before this revision
        #[arg(long, value_name = "REV", value_parser = revision)]
        before: Option<u64>,
        /// Also what each of them changed
        #[arg(short, long)]
        diff: bool,
    },
    /// Restore all rollouts and segments as they were; itself a change, so it can be undone
    Undo {
        /// The revision to go back to; without it the last change is undone
        #[arg(long, value_name = "REV", value_parser = revision)]
        to: Option<u64>,
        #[command(flatten)]
        ask: Ask,
    },
    /// Changes that wait for their time
    Schedule {
        #[command(subcommand)]
        verb: ScheduleVerb,
    },
}

/// A rollout, and on what conditions it is changed.
#[derive(Debug, clap::Args)]
pub struct Named {
    /// Which
    #[arg(value_name = "ROLLOUT", value_parser = RolloutName::parse)]
    pub name: RolloutName,
    #[command(flatten)]
    pub ask: Ask,
}

#[derive(Debug, Subcommand)]
pub enum ScheduleVerb {
    /// What waits, the next one first
    List,
    /// Take a scheduled change back
    Cancel {
        /// Its number, as `rollout schedule list` says it
        #[arg(value_parser = revision)]
        id: u64,
        #[command(flatten)]
        ask: Ask,
    },
}

fn share(text: &str) -> Result<(ReleaseName, Weight), String> {
    let (release, share) = text
        .split_once('=')
        .ok_or("write a release and its share, such as canary=12.5%")?;
    let release = ReleaseName::parse(release).map_err(|e| e.to_string())?;
    Ok((release, Weight::parse(share).map_err(|e| e.to_string())?))
}
