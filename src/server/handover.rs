//! The hand-over of the listening sockets, over one connection to where the successor waits (`server.upgrade_sock`):
//!
//! 1. the running process sends `sockets NAME…`, with the sockets;
//! 2. the successor says `ready PID`: all is prepared, and it accepts nothing yet;
//! 3. the running process says `take`;
//! 4. the successor accepts, and says `accepting PID REVISION`.
//!
//! The running process goes on accepting until the last of it: whatever happens to the successor before, nothing is lost.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg, sockopt,
};
use thiserror::Error;

use super::listen::Opened;

/// The most sockets in one message; Linux allows 253.
const SOCKETS_MAX: usize = 128;
/// The most text in one message: so many of the longest addresses.
const TEXT_MAX: usize = 8 * 1024;
/// How long a successor waits for the running process to be told QUIT.
const OFFER_WITHIN: Duration = Duration::from_secs(60);
/// How long one side waits for what the other only has to say.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long the running process waits for its successor to be prepared: names resolved, the newest state loaded.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Why no sockets are handed over.
#[derive(Debug, Error)]
pub enum HandoverError {
    /// Another successor waits already.
    #[error("another successor waits at {}: let it finish, or end it", .0.display())]
    Another(PathBuf),
    /// A file cannot be had.
    #[error("{}: {cause}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Whoever may write to the folder could put a socket of their own there, and be given the sockets.
    #[error(
        "{}: anybody may write to this folder, and wait in a successor's place: write a server.upgrade_sock in a folder \
         of its own",
        .0.display()
    )]
    Open(PathBuf),
    /// More than one message can carry.
    #[error("{0} sockets are more than {SOCKETS_MAX}")]
    Many(usize),
    /// The connection.
    #[error("the other process cannot be spoken to: {0}")]
    Connection(#[from] io::Error),
    /// Nothing came in time.
    #[error("the other process did not say {0:?} within {1:?}")]
    Silent(&'static str, Duration),
    /// It ended, or gave up.
    #[error("the other process ended before it said {0:?}")]
    Ended(&'static str),
    /// It speaks another version.
    #[error("the other process said {said:?} instead of {expected:?}")]
    Strange {
        /// What should have come.
        expected: &'static str,
        /// What came.
        said: String,
    },
}

/// Gives the sockets to the successor that waits at `path`; yields what it said when it accepted: `PID REVISION`. Blocks.
///
/// # Errors
/// When there is no successor, or it did not come to accept in time. The caller serves on then.
pub fn give(path: &Path, sockets: &[Opened]) -> Result<String, HandoverError> {
    private(path)?;
    let link = Link(UnixStream::connect(path)?);
    link.send(sockets)?;
    link.hear("ready", READY_WITHIN)?;
    link.say("take")?;
    link.hear("accepting", ANSWER_WITHIN)
}

fn folder(path: &Path) -> &Path {
    let parent = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

fn failed(path: &Path, cause: io::Error) -> HandoverError {
    HandoverError::File {
        path: path.to_owned(),
        cause,
    }
}

/// Refuses a socket in a folder that anybody may write to.
fn private(path: &Path) -> Result<(), HandoverError> {
    const BY_ANYBODY: u32 = 0o002;
    let folder = folder(path);
    let found = std::fs::metadata(folder).map_err(|e| failed(folder, e))?;
    if found.permissions().mode() & BY_ANYBODY != 0 {
        return Err(HandoverError::Open(folder.to_owned()));
    }
    Ok(())
}

/// A successor that waits for the sockets. There is one at a time.
pub struct Waiting {
    listener: UnixListener,
    path: PathBuf,
    lock: File,
}

impl Waiting {
    /// Begins to wait at `path`. Its folder is made where it is missing, for this user only.
    ///
    /// # Errors
    /// When another successor waits there, anybody may write to the folder, or the socket cannot be made.
    pub fn at(path: &Path) -> Result<Self, HandoverError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder(path));
        made.map_err(|e| failed(folder(path), e))?;
        private(path)?;
        let beside = |word: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(word);
            PathBuf::from(name)
        };
        let (lock_path, new_path) = (beside(".lock"), beside(".new"));
        let lock = OpenOptions::new().create(true).append(true).open(&lock_path);
        let lock = lock.map_err(|e| failed(&lock_path, e))?;
        lock.try_lock().map_err(|e| match e {
            std::fs::TryLockError::WouldBlock => HandoverError::Another(path.to_owned()),
            std::fs::TryLockError::Error(e) => failed(&lock_path, e),
        })?;
        // Left over by a successor that was killed; an error shows when it is bound.
        drop(std::fs::remove_file(&new_path));
        let listener = UnixListener::bind(&new_path).map_err(|e| failed(&new_path, e))?;
        std::fs::set_permissions(&new_path, Permissions::from_mode(0o600)).map_err(|e| failed(&new_path, e))?;
        // Whoever sees the socket can connect to it.
        std::fs::rename(&new_path, path).map_err(|e| failed(path, e))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            lock,
        })
    }

    /// Waits for the running process to send its sockets. Blocks.
    ///
    /// # Errors
    /// When it is not told to in time, or does not.
    pub fn sockets(self) -> Result<(Vec<Opened>, Successor), HandoverError> {
        sockopt::set_socket_timeout(&self.listener, sockopt::Timeout::Recv, Some(OFFER_WITHIN))
            .map_err(io::Error::from)?;
        let accepted = self.listener.accept();
        // It is gone if somebody tidied up, which is as good.
        drop(std::fs::remove_file(&self.path));
        let (stream, _) = accepted.map_err(|e| in_time(e, "sockets", OFFER_WITHIN))?;
        let link = Link(stream);
        let sockets = link.receive()?;
        Ok((sockets, Successor { link, _lock: self.lock }))
    }
}

/// A successor that has the sockets, and does not accept yet.
pub struct Successor {
    link: Link,
    /// Keeps other successors away until this one accepts.
    _lock: File,
}

impl Successor {
    /// Says that all is prepared, and waits to be told to accept. Blocks.
    ///
    /// # Errors
    /// When the other process gave up: it serves on, and this one must not.
    pub fn ready(&self) -> Result<(), HandoverError> {
        self.link.say(&format!("ready {}", std::process::id()))?;
        self.link.hear("take", ANSWER_WITHIN).map(drop)
    }

    /// Says that it accepts, by the state of `revision`.
    ///
    /// # Errors
    /// When the other process is gone.
    pub fn accepting(self, revision: u64) -> Result<(), HandoverError> {
        self.link.say(&format!("accepting {} {revision}", std::process::id()))
    }
}

/// The connection of the two.
struct Link(UnixStream);

impl Link {
    fn say(&self, line: &str) -> Result<(), HandoverError> {
        self.0.set_write_timeout(Some(ANSWER_WITHIN))?;
        (&self.0).write_all(format!("{line}\n").as_bytes())?;
        Ok(())
    }

    /// Waits for a line that begins with `expected`; yields the rest of it.
    fn hear(&self, expected: &'static str, within: Duration) -> Result<String, HandoverError> {
        self.0.set_read_timeout(Some(within))?;
        let (mut line, mut byte) = (Vec::new(), [0]);
        while byte != *b"\n" && line.len() < TEXT_MAX {
            match (&self.0).read(&mut byte) {
                Ok(0) => return Err(HandoverError::Ended(expected)),
                Ok(_) => line.push(byte[0]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(in_time(e, expected, within)),
            }
        }
        rest(&line, expected)
    }

    fn send(&self, sockets: &[Opened]) -> Result<(), HandoverError> {
        if sockets.len() > SOCKETS_MAX {
            return Err(HandoverError::Many(sockets.len()));
        }
        let names: Vec<&str> = sockets.iter().map(|opened| opened.name.as_str()).collect();
        let text = format!("sockets {}\n", names.join(" "));
        let fds: Vec<BorrowedFd<'_>> = sockets.iter().map(|opened| opened.socket.as_fd()).collect();
        let message = SendAncillaryMessage::ScmRights(&fds);
        let mut space = vec![MaybeUninit::uninit(); message.size()];
        let mut control = SendAncillaryBuffer::new(&mut space);
        // invariant: the space is made for this message.
        assert!(control.push(message));
        let bytes = [IoSlice::new(text.as_bytes())];
        sendmsg(&self.0, &bytes, &mut control, SendFlags::NOSIGNAL).map_err(io::Error::from)?;
        Ok(())
    }

    fn receive(&self) -> Result<Vec<Opened>, HandoverError> {
        const EXPECTED: &str = "sockets";
        self.0.set_read_timeout(Some(ANSWER_WITHIN))?;
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut text = [0; TEXT_MAX];
        let mut bytes = [IoSliceMut::new(&mut text)];
        let got = recvmsg(&self.0, &mut bytes, &mut control, RecvFlags::CMSG_CLOEXEC)
            .map_err(|e| in_time(e.into(), EXPECTED, ANSWER_WITHIN))?
            .bytes;
        let mut fds: Vec<OwnedFd> = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                fds.extend(more);
            }
        }
        let names = rest(&text[..got], EXPECTED)?;
        let names: Vec<&str> = names.split_ascii_whitespace().collect();
        if names.len() != fds.len() {
            let said = format!("{} sockets with {} names", fds.len(), names.len());
            return Err(HandoverError::Strange {
                expected: EXPECTED,
                said,
            });
        }
        let named = names.into_iter().zip(fds);
        Ok(named
            .map(|(name, socket)| Opened {
                name: name.to_owned(),
                socket,
            })
            .collect())
    }
}

/// What a line says after the word that was waited for.
fn rest(line: &[u8], expected: &'static str) -> Result<String, HandoverError> {
    let said = String::from_utf8_lossy(line);
    let strange = || HandoverError::Strange {
        expected,
        said: said.trim_end().to_owned(),
    };
    let (first, rest) = match said.strip_suffix('\n').ok_or_else(strange)?.split_once(' ') {
        Some((first, rest)) => (first, rest.to_owned()),
        None => (said.trim_end(), String::new()),
    };
    if first == expected { Ok(rest) } else { Err(strange()) }
}

fn in_time(e: io::Error, expected: &'static str, within: Duration) -> HandoverError {
    match e.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => HandoverError::Silent(expected, within),
        _other => HandoverError::Connection(e),
    }
}
