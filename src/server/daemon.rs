//! `serve -d`. A process with threads cannot fork, so it starts the same program again, in a session of its own, and
//! waits until that one says that it serves. The two speak over a socket that is the child's standard input until then.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use log::warn;
use rustix::process::{Pid, Signal};
use thiserror::Error;

use super::pid_file::{self, PidFileError};
use super::settings::ServerSettings;
use crate::telemetry::targets;

/// Set for the child, which has the same arguments.
const CHILD_VARIABLE: &str = "SWITCHYARD_DAEMON_CHILD";
/// How long the child may be silent: it loads the state, or waits for the hand-over.
const SILENT_MAX: Duration = Duration::from_secs(180);

/// Why there is no daemon.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// It says why.
    #[error("{text}")]
    Failed {
        /// Its words.
        text: String,
        /// Its exit code.
        code: u8,
    },
    /// It does not.
    #[error("the daemon ended before it was ready: {0}")]
    Ended(String),
    /// It is stuck.
    #[error("the daemon is not ready and says nothing for {SILENT_MAX:?}: it is ended")]
    Silent,
    /// There is nobody to take over from.
    #[error(transparent)]
    Replaced(#[from] PidFileError),
    /// A user or group that there is not.
    #[error("server.{key}: there is no {key} {name:?} on this machine")]
    Unknown {
        /// The key in the configuration.
        key: &'static str,
        /// What it says.
        name: String,
    },
    /// Only root can change.
    #[error("server.user and server.group: only root can change to them: leave them out, or start as root")]
    NotRoot,
    /// The machine does not let it.
    #[error("the daemon cannot be started: {0}")]
    Io(#[from] io::Error),
}

impl DaemonError {
    /// The exit code for it.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Failed { code, .. } => *code,
            Self::Ended(_) | Self::Silent | Self::Replaced(_) | Self::Unknown { .. } | Self::NotRoot | Self::Io(_) => 1,
        }
    }
}

/// Whether this process is the one that was started to serve.
#[must_use]
pub fn is_child() -> bool {
    std::env::var_os(CHILD_VARIABLE).is_some()
}

/// Starts the program again in the background. Returns when it serves; with `upgrade`, when it has taken over from the
/// process that the pid file names.
///
/// # Errors
/// When it does not come to serve; nothing is left running then.
pub fn start(settings: &ServerSettings, upgrade: bool) -> Result<(), DaemonError> {
    let replaced = upgrade.then(|| pid_file::running(&settings.pid_file)).transpose()?;
    let (ours, its) = UnixStream::pair()?;
    ours.set_read_timeout(Some(SILENT_MAX))?;
    let mut child = command(settings, its)?.spawn()?;
    let told = listen(&ours, replaced);
    if told.is_err() {
        // It may have ended already, which is as good.
        drop(child.kill());
    }
    match told? {
        Told::Ready => Ok(()),
        Told::Failed(text) => failed(&mut child, text),
        Told::Nothing => Err(DaemonError::Ended(child.wait()?.to_string())),
    }
}

enum Told {
    Ready,
    Failed(String),
    Nothing,
}

fn listen(ours: &UnixStream, replaced: Option<u32>) -> Result<Told, DaemonError> {
    let mut lines = BufReader::new(ours);
    loop {
        let mut line = String::new();
        lines.read_line(&mut line).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => DaemonError::Silent,
            _other => DaemonError::Io(e),
        })?;
        match (
            line.trim_end(),
            replaced.and_then(|pid| Pid::from_raw(pid.cast_signed())),
        ) {
            ("ready", _) => return Ok(Told::Ready),
            ("waiting", Some(pid)) => rustix::process::kill_process(pid, Signal::QUIT).map_err(io::Error::from)?,
            ("failed", _) => {
                let mut text = String::new();
                lines.read_to_string(&mut text)?;
                return Ok(Told::Failed(text));
            }
            (_, _) => return Ok(Told::Nothing),
        }
    }
}

fn failed(child: &mut Child, text: String) -> Result<(), DaemonError> {
    let code = child.wait()?.code().and_then(|code| u8::try_from(code).ok());
    Err(DaemonError::Failed {
        text,
        code: code.unwrap_or(1),
    })
}

/// This program with these arguments. Without `server.error_log` it writes where this process does.
fn command(settings: &ServerSettings, its: UnixStream) -> Result<Command, DaemonError> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(std::env::args_os().skip(1))
        .env(CHILD_VARIABLE, "1")
        .stdin(Stdio::from(OwnedFd::from(its)));
    if let Some(path) = &settings.error_log {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|e| io::Error::new(e.kind(), format!("server.error_log: {}: {e}", path.display())))?;
        command.stdout(file.try_clone()?).stderr(file);
    }
    if settings.user.is_some() || settings.group.is_some() {
        change_user(&mut command, settings)?;
    }
    Ok(command)
}

fn change_user(command: &mut Command, settings: &ServerSettings) -> Result<(), DaemonError> {
    if !rustix::process::geteuid().is_root() {
        return Err(DaemonError::NotRoot);
    }
    let unknown = |key, name: &str| DaemonError::Unknown {
        key,
        name: name.to_owned(),
    };
    if let Some(name) = &settings.user {
        let user = nix::unistd::User::from_name(name).map_err(io::Error::from)?;
        let user = user.ok_or_else(|| unknown("user", name))?;
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    if let Some(name) = &settings.group {
        let group = nix::unistd::Group::from_name(name).map_err(io::Error::from)?;
        command.gid(group.ok_or_else(|| unknown("group", name))?.gid.as_raw());
    }
    Ok(())
}

/// The child's end: whoever started it, and waits.
pub struct Starter(UnixStream);

impl Starter {
    /// Leaves the session of whoever started this process.
    ///
    /// # Errors
    /// When standard input is not what it should be.
    pub fn meet() -> io::Result<Self> {
        rustix::process::setsid()?;
        Ok(Self(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?)))
    }

    /// The sockets can be handed over now.
    pub fn waiting(&self) {
        self.say("waiting\n");
    }

    /// It serves. From now on nobody listens, and standard input is empty.
    pub fn ready(&self) {
        self.say("ready\n");
        let emptied = File::open("/dev/null").and_then(|null| Ok(rustix::stdio::dup2_stdin(null)?));
        if let Err(e) = emptied {
            warn!(target: targets::SERVER, "standard input stays open: {e}");
        }
    }

    /// It does not come to serve.
    pub fn failed(&self, why: &str) {
        self.say(&format!("failed\n{why}"));
    }

    fn say(&self, text: &str) {
        if let Err(e) = (&self.0).write_all(text.as_bytes()) {
            warn!(target: targets::SERVER, "whoever started the daemon is gone: {e}");
        }
    }
}
