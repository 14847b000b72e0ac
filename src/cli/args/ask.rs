//! Flags that verbs share: how to reach the admin side and how to print, and on what conditions a change is asked for.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::ValueEnum;

use crate::cli::moment;
use crate::identity::UserId;
use crate::rollout::Moment;

/// How to reach the running program, and how to print what it answers.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Admin side")]
pub struct Reach {
    /// Where the running program's admin side is
    #[arg(
        long,
        global = true,
        env = "SWITCHYARD_ADMIN",
        value_name = "URL",
        default_value = "http://127.0.0.1:9180"
    )]
    pub admin: String,
    /// A file with the token; without it the variable SWITCHYARD_TOKEN is one
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// What is printed: a table for people, or the API's JSON as it came
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

/// On what conditions a change is asked for.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "The change")]
pub struct Ask {
    /// Why, for the history
    #[arg(short = 'm', long, value_name = "REASON")]
    pub reason: Option<String>,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Wait up to a minute until the change is live
    #[arg(long)]
    pub wait: bool,
    /// Make the change then: 2026-11-24T15:30:00Z, or from now on, such as 90m, 2h or 7d
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    pub at: Option<Moment>,
    /// Users may move backwards out of a growing release
    #[arg(long)]
    pub allow_flips: bool,
    /// Only if what is changed has this revision
    #[arg(long, value_name = "REV", value_parser = revision)]
    pub if_match: Option<u64>,
    /// Do not ask on a terminal
    #[arg(short, long)]
    pub yes: bool,
}

/// Reads a revision, or the number of a scheduled change, which is one.
///
/// # Errors
/// When it is no number.
pub fn revision(text: &str) -> Result<u64, String> {
    let number = text.parse();
    number.map_err(|_| format!("{text:?} is no revision: write a number such as 17"))
}

/// Takes a user id.
///
/// # Errors
/// When it is none.
pub fn user_id(text: &str) -> Result<String, String> {
    match UserId::new(text.as_bytes()) {
        Ok(_) => Ok(text.to_owned()),
        Err(e) => Err(format!("{e}: write 1 to 1024 bytes without control characters")),
    }
}

/// Reads the address of a client.
///
/// # Errors
/// When it is none.
pub fn client_address(text: &str) -> Result<IpAddr, String> {
    let address = text.parse();
    address.map_err(|_| format!("{text:?} is no address: write one such as 203.0.113.7 or 2001:db8::7, without a port"))
}

/// A file, or standard input.
#[derive(Debug, Clone)]
pub enum Input {
    /// `-`
    Stdin,
    /// A file.
    File(PathBuf),
}

impl Input {
    /// Takes the argument.
    ///
    /// # Errors
    /// Never: whether the file is there, reading shows.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "-" => Self::Stdin,
            path => Self::File(path.into()),
        })
    }
}

impl std::fmt::Display for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdin => f.write_str("standard input"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// A name and a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    pub name: String,
    pub value: String,
}

impl Pair {
    fn split(text: &str, mark: char, example: &str) -> Result<Self, String> {
        match text.split_once(mark) {
            Some((name, value)) if !name.trim().is_empty() => Ok(Self {
                name: name.trim().to_owned(),
                value: value.trim().to_owned(),
            }),
            _ => Err(format!("write one such as '{example}'")),
        }
    }

    /// `X-App-Version: 5.3.0`
    ///
    /// # Errors
    /// When there is no colon, or nothing before it.
    pub fn header(text: &str) -> Result<Self, String> {
        Self::split(text, ':', "X-App-Version: 5.3.0")
    }

    /// `beta=1`
    ///
    /// # Errors
    /// When there is no equals sign, or nothing before it.
    pub fn equals(text: &str) -> Result<Self, String> {
        Self::split(text, '=', "beta=1")
    }
}
