//! The command line.

mod ask;
mod rollout;
mod user;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub use ask::{Ask, Input, Output, Pair, Reach};
pub use rollout::{Rollout, RolloutVerb, ScheduleVerb};
pub use user::{Explain, Format, Import, Segment, SegmentVerb, User, UserVerb};

/// Sends every request of one user to one release.
#[derive(Debug, Parser)]
#[command(name = "switchyard", version, about, long_about = None)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy
    Serve(Serve),
    /// Run two small origins and the proxy in one process, and print what to try
    Demo {
        /// Where the proxy listens
        #[arg(long, default_value = "127.0.0.1:8080")]
        listen: String,
        /// Where the admin side listens
        #[arg(long, default_value = "127.0.0.1:9180")]
        admin: String,
    },
    /// See and change rollouts
    Rollout(Rollout),
    /// See, pin and explain single users
    User(User),
    /// See and change named lists of users
    Segment(Segment),
    /// How the running program is doing
    Status(Reach),
    /// Follow changes and health as they happen, one line an event
    Events(Events),
    /// Replace the running program: a successor takes over once it serves, or the old one serves on
    Upgrade(Upgrade),
    /// Validate a configuration file: exit 0 or 2
    Check {
        /// The file
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Print the JSON Schema of the configuration file
    Schema,
    /// Print the version
    Version,
    /// Print a completion script
    Completion {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// `switchyard events`
#[derive(Debug, clap::Args)]
pub struct Events {
    #[command(flatten)]
    pub reach: Reach,
    /// Also the figures of each second: requests, errors and latency of each release
    #[arg(long)]
    pub figures: bool,
}

/// `switchyard upgrade`
#[derive(Debug, clap::Args)]
pub struct Upgrade {
    /// The configuration file of the successor
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,
    /// The process to replace; by default the one of server.pid_file, or the one that answers at admin.address
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// A file with a token for admin.address; without it the variable SWITCHYARD_TOKEN is one
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

#[derive(Debug, clap::Args)]
pub struct Serve {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["stable", "canary", "user_header", "listen"])]
    pub config: Option<PathBuf>,
    /// Detach from the terminal
    #[arg(short, long)]
    pub daemon: bool,
    /// Take the listening sockets over from a running process
    #[arg(short, long)]
    pub upgrade: bool,
    /// Serve by the last copy of the store, read-only: when the store itself is damaged
    #[arg(long)]
    pub from_snapshot: bool,
    /// Serve although the file of a segment's users is lost or damaged: nobody is in it but who came since
    #[arg(long)]
    pub without_lost_users: bool,
    /// Without a file: the stable release's address
    #[arg(long, value_name = "ADDRESS", requires = "canary")]
    pub stable: Option<String>,
    /// Without a file: the canary release's address
    #[arg(long, value_name = "ADDRESS", requires = "stable")]
    pub canary: Option<String>,
    /// Without a file: the header field with the user id
    #[arg(long, value_name = "NAME", default_value = "X-User-Id")]
    pub user_header: String,
    /// Without a file: where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: String,
}
