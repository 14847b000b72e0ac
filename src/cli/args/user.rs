//! `switchyard user` and `switchyard segment`

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

use super::ask::{Ask, Input, Pair, Reach, client_address, user_id};
use crate::cli::moment;
use crate::rollout::{Moment, ReleaseName, RolloutName, SegmentName};

/// `switchyard user`
#[derive(Debug, clap::Args)]
pub struct User {
    #[command(flatten)]
    pub reach: Reach,
    #[command(subcommand)]
    pub verb: UserVerb,
}

#[derive(Debug, Subcommand)]
pub enum UserVerb {
    /// Pin one user to a release
    Set {
        /// In which rollout
        #[arg(value_parser = RolloutName::parse)]
        rollout: RolloutName,
        /// The user id
        #[arg(value_parser = user_id)]
        user: String,
        /// What the user gets
        #[arg(value_parser = ReleaseName::parse)]
        release: ReleaseName,
        /// When that ends: 2026-11-24T15:30:00Z, or from now on, such as 90m, 2h or 7d
        #[arg(long, value_name = "TIME", value_parser = moment::parse)]
        until: Option<Moment>,
        #[command(flatten)]
        ask: Ask,
    },
    /// Unpin one user
    Unset {
        /// In which rollout
        #[arg(value_parser = RolloutName::parse)]
        rollout: RolloutName,
        /// The user id
        #[arg(value_parser = user_id)]
        user: String,
        #[command(flatten)]
        ask: Ask,
    },
    /// Where one user is pinned; exit 1 if nowhere
    Get {
        /// In which rollout
        #[arg(value_parser = RolloutName::parse)]
        rollout: RolloutName,
        /// The user id
        #[arg(value_parser = user_id)]
        user: String,
    },
    /// Pin the users of a file in one change: one id a line, CSV `user[,release[,until]]`, or NDJSON
    Import(Import),
    /// Print all pinned users, one JSON object a line
    Export {
        /// Of which rollout
        #[arg(value_parser = RolloutName::parse)]
        rollout: RolloutName,
    },
    /// What a user gets, with every step and why
    Explain(Explain),
}

/// `switchyard user import`
#[derive(Debug, clap::Args)]
pub struct Import {
    /// In which rollout
    #[arg(value_parser = RolloutName::parse)]
    pub rollout: RolloutName,
    /// What users get whose line does not say it
    #[arg(value_parser = ReleaseName::parse)]
    pub release: ReleaseName,
    /// The file; - for standard input
    #[arg(value_name = "FILE", value_parser = Input::parse)]
    pub file: Input,
    /// Unpin all others
    #[arg(long)]
    pub replace: bool,
    /// What the file is; by its name or its first line where left out
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    #[command(flatten)]
    pub ask: Ask,
}

/// What a list of users looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One id a line
    Plain,
    /// user,release,until
    Csv,
    /// One JSON object a line
    Ndjson,
}

/// `switchyard user explain`
#[derive(Debug, clap::Args)]
pub struct Explain {
    /// In which rollout
    #[arg(value_parser = RolloutName::parse)]
    pub rollout: RolloutName,
    /// The user id; without it nobody known asks
    #[arg(value_parser = user_id)]
    pub user: Option<String>,
    /// A header field of the request
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = Pair::header)]
    pub headers: Vec<Pair>,
    /// A cookie of the request
    #[arg(long = "cookie", value_name = "NAME=VALUE", value_parser = Pair::equals)]
    pub cookies: Vec<Pair>,
    /// A query parameter, as the request has it
    #[arg(long = "query", value_name = "NAME=VALUE", value_parser = Pair::equals)]
    pub query: Vec<Pair>,
    /// The path of the request
    #[arg(long, value_name = "PATH", default_value = "/")]
    pub path: String,
    /// The address of the client
    #[arg(long, value_name = "ADDRESS", value_parser = client_address)]
    pub client: Option<IpAddr>,
    /// A claim of the user's token; several of one name are a list
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = Pair::equals)]
    pub claims: Vec<Pair>,
    /// Ask this configuration file, not the running program
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `switchyard segment`
#[derive(Debug, clap::Args)]
pub struct Segment {
    #[command(flatten)]
    pub reach: Reach,
    #[command(subcommand)]
    pub verb: SegmentVerb,
}

#[derive(Debug, Subcommand)]
pub enum SegmentVerb {
    /// Every segment and its number of users
    List,
    /// One segment's users
    Get {
        /// Which
        #[arg(value_name = "SEGMENT", value_parser = SegmentName::parse)]
        name: SegmentName,
    },
    /// Print all users of a segment, one JSON object a line
    Export {
        /// Which segment
        #[arg(value_name = "SEGMENT", value_parser = SegmentName::parse)]
        name: SegmentName,
        /// Print ids alone, one a line
        #[arg(long)]
        plain: bool,
    },
    /// Create a segment of a list of users: one id a line, CSV, or NDJSON; gzip and zstd are unpacked
    Create {
        /// Its name
        #[arg(value_name = "SEGMENT", value_parser = SegmentName::parse)]
        name: SegmentName,
        /// The list; - for standard input
        #[arg(short, long, value_name = "FILE", value_parser = Input::parse)]
        file: Input,
        /// If it exists, replace its users
        #[arg(long)]
        replace: bool,
        /// What the file is; by its name or its first line where left out
        #[arg(long, value_enum)]
        format: Option<Format>,
        #[command(flatten)]
        ask: Ask,
    },
    /// Add users to a segment
    Add {
        /// Which
        #[arg(value_name = "SEGMENT", value_parser = SegmentName::parse)]
        name: SegmentName,
        /// Their ids
        #[arg(required = true, value_name = "USER", value_parser = user_id)]
        users: Vec<String>,
        #[command(flatten)]
        ask: Ask,
    },
    /// Take users out of a segment
    Remove {
        /// Which
        #[arg(value_name = "SEGMENT", value_parser = SegmentName::parse)]
        name: SegmentName,
        /// Their ids
        #[arg(required = true, value_name = "USER", value_parser = user_id)]
        users: Vec<String>,
        #[command(flatten)]
        ask: Ask,
    },
    /// Remove a segment that no rollout uses
    Delete {
        /// Which
        #[arg(value_name = "SEGMENT", value_parser = SegmentName::parse)]
        name: SegmentName,
        #[command(flatten)]
        ask: Ask,
    },
}
