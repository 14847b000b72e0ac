//! `serve -d` and `upgrade`. A process with threads cannot fork, so it starts the same program again, in a session of
//! its own, and waits until that one says that it serves. The two speak over a socket that is the child's standard
//! input until then.

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
/// How long a running process may take to hand its sockets over: it has nothing to prepare for that.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(5);

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
    #[error("the new process ended before it served: {0}: its log says why")]
    Ended(String),
    /// It is stuck.
    #[error("the new process is not ready and says nothing for {SILENT_MAX:?}: it is ended")]
    Silent,
    /// The running process did not hand over.
    #[error(
        "process {0} was told QUIT and hands nothing over for {HAND_OVER_WITHIN:?}: its log says why; \
         does it run with another server.upgrade_sock?"
    )]
    NotHanded(u32),
    /// There is no such process, or it is somebody else's.
    #[error("process {0} cannot be told to hand over: {1}")]
    Gone(u32, io::Error),
    /// QUIT would kill it.
    #[error("process {0} does not listen to QUIT: it is no switchyard that serves, or one that is still starting")]
    Deaf(u32),
    /// A container ends with its first process.
    #[error("process 1 is the container's, which ends with it: start a new container, then end this one with TERM")]
    Container,
    /// It is not this program's to replace it.
    #[error("process {0} is run by systemd: replace it with systemctl reload")]
    Supervised(u32),
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
    #[error("it cannot be started: {0}")]
    Io(#[from] io::Error),
}

impl DaemonError {
    /// The exit code for it.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Failed { code, .. } => *code,
            Self::Ended(_)
            | Self::Silent
            | Self::NotHanded(_)
            | Self::Gone(..)
            | Self::Deaf(_)
            | Self::Container
            | Self::Supervised(_)
            | Self::Replaced(_)
            | Self::Unknown { .. }
            | Self::NotRoot
            | Self::Io(_) => 1,
        }
    }

    /// Whether there is a process that serves on.
    #[must_use]
    pub fn leaves_one(&self) -> bool {
        !matches!(self, Self::Gone(..) | Self::Deaf(_))
    }
}

/// Whether this process is the one that was started to serve.
#[must_use]
pub fn is_child() -> bool {
    std::env::var_os(CHILD_VARIABLE).is_some()
}

/// Starts the program again in the background, with the arguments of this process. Returns when it serves; with
/// `upgrade`, when it has taken over from the process that the pid file names.
///
/// # Errors
/// When it does not come to serve; nothing is left running then.
pub fn start(settings: &ServerSettings, upgrade: bool) -> Result<(), DaemonError> {
    let replaced = upgrade.then(|| pid_file::running(&settings.pid_file)).transpose()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1));
    as_daemon(&mut command, settings)?;
    launch(command, replaced, &mut |_| {})
}

/// What a process that was started comes to, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It runs, under this id.
    Started(u32),
    /// It is prepared as far as it can be without the sockets.
    Waits,
    /// It has the sockets.
    HasSockets,
    /// It accepts, by the state of this revision.
    Accepts(u64),
}

/// Starts a program that serves, and waits until it does; tells `replaced` to hand over to it when it can.
///
/// # Errors
/// When it does not come to serve; nothing is left running then, but the process that was to be replaced.
pub(super) fn launch(
    mut command: Command,
    replaced: Option<u32>,
    tell: &mut dyn FnMut(Stage),
) -> Result<(), DaemonError> {
    replaced.map_or(Ok(()), listens)?;
    let (ours, its) = UnixStream::pair()?;
    command
        .env(CHILD_VARIABLE, "1")
        // Names this process; the watchdog is the child's.
        .env_remove("WATCHDOG_PID")
        .stdin(Stdio::from(OwnedFd::from(its)));
    let mut child = command.spawn()?;
    // It holds the other end, too, and this side is to see when the child ends.
    drop(command);
    tell(Stage::Started(child.id()));
    let told = listen(&ours, replaced, tell);
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

fn listen(ours: &UnixStream, replaced: Option<u32>, tell: &mut dyn FnMut(Stage)) -> Result<Told, DaemonError> {
    let mut lines = BufReader::new(ours);
    let mut patience = (SILENT_MAX, DaemonError::Silent);
    loop {
        ours.set_read_timeout(Some(patience.0))?;
        let mut line = String::new();
        match lines.read_line(&mut line) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(patience.1),
            Err(e) => return Err(DaemonError::Io(e)),
        }
        patience = (SILENT_MAX, DaemonError::Silent);
        match (
            line.trim_end().split_once(' ').unwrap_or((line.trim_end(), "")),
            replaced,
        ) {
            (("ready", revision), _) => {
                tell(Stage::Accepts(revision.parse().unwrap_or_default()));
                return Ok(Told::Ready);
            }
            (("waiting", _), Some(pid)) => {
                tell(Stage::Waits);
                ask_for_sockets(pid)?;
                patience = (HAND_OVER_WITHIN, DaemonError::NotHanded(pid));
            }
            (("sockets", _), Some(_)) => tell(Stage::HasSockets),
            (("failed", _), _) => {
                let mut text = String::new();
                lines.read_to_string(&mut text)?;
                return Ok(Told::Failed(text));
            }
            _ => return Ok(Told::Nothing),
        }
    }
}

/// Refuses a process that a QUIT would kill.
fn listens(pid: u32) -> Result<(), DaemonError> {
    let status = match std::fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(status) => status,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(DaemonError::Gone(pid, rustix::io::Errno::SRCH.into()));
        }
        Err(e) => return Err(DaemonError::Gone(pid, e)),
    };
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|signals| u64::from_str_radix(signals.trim(), 16).ok());
    let quit = 1 << (Signal::QUIT.as_raw() - 1);
    match caught {
        Some(signals) if signals & quit != 0 => Ok(()),
        Some(_) | None => Err(DaemonError::Deaf(pid)),
    }
}

fn ask_for_sockets(pid: u32) -> Result<(), DaemonError> {
    // It may have ended meanwhile, and its number may be another's.
    listens(pid)?;
    let Some(process) = Pid::from_raw(pid.cast_signed()) else {
        return Err(DaemonError::Gone(pid, io::ErrorKind::InvalidInput.into()));
    };
    rustix::process::kill_process(process, Signal::QUIT).map_err(|e| DaemonError::Gone(pid, e.into()))
}

fn failed(child: &mut Child, text: String) -> Result<(), DaemonError> {
    let code = child.wait()?.code().and_then(|code| u8::try_from(code).ok());
    Err(DaemonError::Failed {
        text,
        code: code.unwrap_or(1),
    })
}

/// Gives the program the output and the user of a daemon. Without `server.error_log` it writes where this process does.
pub(super) fn as_daemon(command: &mut Command, settings: &ServerSettings) -> Result<(), DaemonError> {
    if let Some(path) = &settings.error_log {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|e| io::Error::new(e.kind(), format!("server.error_log: {}: {e}", path.display())))?;
        command.stdout(file.try_clone()?).stderr(file);
    }
    if settings.user.is_some() || settings.group.is_some() {
        change_user(command, settings)?;
    }
    Ok(())
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

    /// They are here.
    pub fn has_sockets(&self) {
        self.say("sockets\n");
    }

    /// It serves, by the state of `revision`. From now on nobody listens, and standard input is empty.
    pub fn ready(&self, revision: u64) {
        self.say(&format!("ready {revision}\n"));
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
