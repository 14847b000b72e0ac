//! Stands between a running process and its successor, passes on what they say to each other, and stops where the
//! successor is to be killed: so it dies at that very stage, however fast it is.

use std::io::{BufRead, BufReader, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Child;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use crate::files::until;
use crate::succession::kill;

/// How far a successor has come when it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It loads.
    Started,
    /// It waits for the sockets.
    Waits,
    /// It has them, and prepares.
    HasSockets,
    /// It has said that all is prepared, and the running process does not know yet.
    Prepared,
    /// The running process has told it to accept, and it does not know yet.
    ToldToTake,
}

impl Stage {
    pub const ALL: [Self; 5] = [
        Self::Started,
        Self::Waits,
        Self::HasSockets,
        Self::Prepared,
        Self::ToldToTake,
    ];
}

/// Where the two think the other is.
pub struct Between {
    /// The running process comes here.
    listener: UnixListener,
    /// The successor waits here.
    there: PathBuf,
    here: PathBuf,
}

impl Between {
    pub fn at(here: &Path, there: &Path) -> Self {
        std::fs::create_dir_all(here.parent().expect("a folder")).expect("folder");
        drop(std::fs::remove_file(here));
        drop(std::fs::remove_file(there));
        Self {
            listener: UnixListener::bind(here).expect("socket"),
            here: here.to_owned(),
            there: there.to_owned(),
        }
    }

    /// Lets an upgrade go on up to this stage, and kills the successor there; how `upgrade` ends, and what it says.
    pub fn until(self, stage: Stage, mut upgrade: Child) -> (Option<i32>, String) {
        let mut words = BufReader::new(upgrade.stderr.take().expect("piped"));
        let mut first = String::new();
        words.read_line(&mut first).expect("a line");
        let successor = first.split(' ').nth(5).and_then(|pid| pid.parse().ok()).expect("a pid");
        let links = (stage != Stage::Started).then(|| self.pass(stage));
        kill(successor, "KILL");
        let status = upgrade.wait().expect("it ends");
        // The running process learns of it now, and not before.
        drop(links);
        drop(std::fs::remove_file(&self.here));
        let mut said = first;
        words.read_to_string(&mut said).expect("text");
        (status.code(), said)
    }

    /// Passes on all that comes before a stage.
    fn pass(&self, stage: Stage) -> (UnixStream, Option<UnixStream>) {
        let (mut old, _) = self.listener.accept().expect("the running process comes");
        if stage == Stage::Waits {
            return (old, None);
        }
        until("the successor waits", || self.there.exists());
        let mut new = UnixStream::connect(&self.there).expect("connect");
        pass_sockets(&old, &new);
        if stage == Stage::HasSockets {
            return (old, Some(new));
        }
        let ready = line(&mut new);
        assert!(ready.starts_with("ready "), "{ready}");
        if stage == Stage::Prepared {
            return (old, Some(new));
        }
        old.write_all(ready.as_bytes()).expect("it listens");
        assert_eq!(line(&mut old), "take\n");
        (old, Some(new))
    }
}

/// One line, and nothing behind it.
fn line(stream: &mut UnixStream) -> String {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while byte != *b"\n" {
        stream.read_exact(&mut byte).expect("a line");
        line.push(byte[0]);
    }
    String::from_utf8(line).expect("text")
}

fn pass_sockets(from: &UnixStream, to: &UnixStream) {
    let mut text = [0; 8192];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(
        from,
        &mut [IoSliceMut::new(&mut text)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    );
    let bytes = got.expect("a message").bytes;
    let mut sockets: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            sockets.extend(more);
        }
    }
    let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    let message = SendAncillaryMessage::ScmRights(&sockets);
    let mut space = vec![MaybeUninit::uninit(); message.size()];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(message));
    sendmsg(to, &[IoSlice::new(&text[..bytes])], &mut control, SendFlags::NOSIGNAL).expect("sent");
}
