//! `switchyard upgrade`: starts a successor of the running process, and has it take over, or leaves the old one serving.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::daemon::{self, DaemonError, Stage};
use super::pid_file;
use super::settings::ServerSettings;

/// How a process finds whoever runs it, and that one learns how it is; see sd_notify(3).
const NOTIFY_VARIABLE: &str = "NOTIFY_SOCKET";

/// The process that is to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// Its id.
    pub pid: u32,
    /// Whether it was started with `serve -d`, as its successor then is.
    daemon: bool,
}

impl Running {
    /// The daemon that has the pid file, if there is one.
    #[must_use]
    pub fn daemon(settings: &ServerSettings) -> Option<Self> {
        let pid = pid_file::running(&settings.pid_file).ok()?;
        Some(Self { pid, daemon: true })
    }

    /// The process with this id: the daemon, or one in the foreground.
    #[must_use]
    pub fn of(pid: u32, settings: &ServerSettings) -> Self {
        let daemon = Self::daemon(settings).filter(|running| running.pid == pid);
        daemon.unwrap_or(Self { pid, daemon: false })
    }
}

/// Replaces `running` by a process with the configuration `file`, of which `settings` are a part; returns when that one
/// serves.
///
/// # Errors
/// When it does not come to serve: the running one serves on then.
pub fn replace(
    running: Running,
    file: &Path,
    settings: &ServerSettings,
    tell: &mut dyn FnMut(Stage),
) -> Result<(), DaemonError> {
    if running.pid == 1 {
        return Err(DaemonError::Container);
    }
    if is_supervised(running.pid) && std::env::var_os(NOTIFY_VARIABLE).is_none() {
        return Err(DaemonError::Supervised(running.pid));
    }
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["serve", "-u", "-c"]).arg(file);
    keep_output(&mut command, running.pid);
    if running.daemon {
        command.arg("-d");
        daemon::as_daemon(&mut command, settings)?;
    }
    daemon::launch(command, Some(running.pid), tell)
}

/// Has the successor write where its predecessor does, or, where that cannot be opened, to the standard error of this
/// process: standard output is for the result.
fn keep_output(command: &mut Command, pid: u32) {
    if let Ok(output) = output(pid, 1).or_else(|_| own_errors()) {
        command.stdout(output);
    }
    if let Ok(errors) = output(pid, 2) {
        command.stderr(errors);
    }
}

/// What another process writes to: the very same open file, or, where the system does not give that away, its path.
fn output(pid: u32, descriptor: i32) -> io::Result<OwnedFd> {
    let process = Pid::from_raw(pid.cast_signed()).ok_or(io::ErrorKind::InvalidInput)?;
    let shared = pidfd_open(process, PidfdFlags::empty())
        .and_then(|process| pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty()));
    shared.or_else(|_| opened(pid, descriptor))
}

fn own_errors() -> io::Result<OwnedFd> {
    io::stderr().as_fd().try_clone_to_owned()
}

fn opened(pid: u32, descriptor: i32) -> io::Result<OwnedFd> {
    let path = format!("/proc/{pid}/fd/{descriptor}");
    // A pipe without a reader would be waited for.
    let waits_not = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().append(true).custom_flags(waits_not).open(path)?;
    rustix::fs::fcntl_setfl(&file, OFlags::APPEND)?;
    Ok(file.into())
}

/// Whether systemd, or another that speaks its protocol, waits for the process to say how it is.
fn is_supervised(pid: u32) -> bool {
    // What cannot be read is somebody else's, and will show when it is signalled.
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mut variables = environment.split(|byte| *byte == 0);
    let name = format!("{NOTIFY_VARIABLE}=");
    variables.any(|variable| variable.starts_with(name.as_bytes()))
}
