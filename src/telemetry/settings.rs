//! What the access log is told at start.

use std::path::PathBuf;

/// The access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLogSettings {
    /// Where lines go.
    pub path: LogTarget,
    /// How a line looks.
    pub format: LogFormat,
    /// How a user id is shown.
    pub user_id: UserIdShown,
}

impl Default for AccessLogSettings {
    fn default() -> Self {
        Self {
            path: LogTarget::Stdout,
            format: LogFormat::Json,
            user_id: UserIdShown::Hashed,
        }
    }
}

/// Where access-log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// `-`
    Stdout,
    /// A file, appended to.
    File(PathBuf),
    /// `off`
    Off,
}

/// How an access-log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line, with every field.
    Json,
    /// The combined format of Apache and nginx.
    Combined,
}

/// How a user id is shown in the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserIdShown {
    /// 64-bit hash in hexadecimal; the same user has the same hash.
    Hashed,
    /// As it is.
    Plain,
    /// Not at all.
    None,
}
