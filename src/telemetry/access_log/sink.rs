//! Where lines end up. Only whole lines reach it, whatever the system does to a write.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use memchr::{memchr, memchr_iter, memrchr};

use crate::precedence;

/// Between two tries at a pipe that is full and does not block.
const BLOCKED_PAUSE: Duration = Duration::from_millis(5);

/// Bytes that are written together: about 25 µs within the kernel, during which no request goes first.
const WRITTEN_AT_ONCE: usize = 16 * 1024;

/// A file that is appended to, or standard output.
#[derive(Debug)]
pub(super) struct Sink {
    file: File,
    /// `None` is standard output.
    path: Option<PathBuf>,
    /// The end of a line that the last write broke off in; it goes out before anything else.
    unfinished: Vec<u8>,
}

/// Lines that could not be written.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) lines: u64,
    pub(super) cause: io::Error,
}

impl Sink {
    /// Opens `path` for appending, and makes it when there is none.
    pub(super) fn file(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: append_to(path)?,
            path: Some(path.to_owned()),
            unfinished: Vec::new(),
        })
    }

    /// Standard output as it is now: a daemon calls this after it has detached.
    pub(super) fn stdout() -> io::Result<Self> {
        Ok(Self {
            file: File::from(io::stdout().as_fd().try_clone_to_owned()?),
            path: None,
            unfinished: Vec::new(),
        })
    }

    /// The path, or `-`.
    pub(super) fn name(&self) -> String {
        match &self.path {
            Some(path) => path.display().to_string(),
            None => "-".to_owned(),
        }
    }

    /// Writes whole lines. After an error the line that was broken off is kept and completed by the next call; the
    /// lines behind it are lost.
    pub(super) fn write_lines(&mut self, lines: &[u8]) -> Result<(), Lost> {
        if !self.unfinished.is_empty() {
            let (written, outcome) = write_counted(&mut self.file, &self.unfinished);
            self.unfinished.drain(..written);
            outcome.map_err(|cause| lost(lines, cause))?;
        }
        let mut left = lines;
        while !left.is_empty() {
            let some = first_lines(left);
            let (written, outcome) = write_counted(&mut self.file, some);
            if let Err(cause) = outcome {
                let (rest_of_line, unsent) = broken_off(left, written);
                self.unfinished.extend_from_slice(rest_of_line);
                return Err(lost(unsent, cause));
            }
            left = &left[some.len()..];
            precedence::give_way();
        }
        Ok(())
    }

    /// Opens the path again, so that a renamed file is left alone. On an error the old file stays in use. Returns how
    /// many lines the old file keeps incomplete.
    pub(super) fn reopen(&mut self) -> io::Result<u64> {
        let Some(path) = &self.path else {
            return Ok(0);
        };
        self.file = append_to(path)?;
        let incomplete = u64::from(!self.unfinished.is_empty());
        self.unfinished.clear();
        Ok(incomplete)
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// The first lines, as many as are written together. At least one.
fn first_lines(lines: &[u8]) -> &[u8] {
    let within = &lines[..lines.len().min(WRITTEN_AT_ONCE)];
    let end = memrchr(b'\n', within).or_else(|| memchr(b'\n', lines));
    end.map_or(lines, |end| &lines[..=end])
}

/// Divides what a write left over: the rest of the line that it broke off in, and the lines behind that.
fn broken_off(lines: &[u8], written: usize) -> (&[u8], &[u8]) {
    let (sent, unsent) = lines.split_at(written);
    if sent.is_empty() || sent.ends_with(b"\n") {
        return (&[], unsent);
    }
    let line_end = memchr(b'\n', unsent).map_or(unsent.len(), |place| place + 1);
    unsent.split_at(line_end)
}

fn lost(lines: &[u8], cause: io::Error) -> Lost {
    Lost {
        lines: memchr_iter(b'\n', lines).count() as u64,
        cause,
    }
}

/// Like `write_all`, and says how far it came.
fn write_counted(file: &mut File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Err(ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Somebody we share the pipe with made it non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(BLOCKED_PAUSE),
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_line_that_was_broken_off_is_told_from_those_behind_it() {
        let lines = b"one\ntwo\nthree\n";
        for (written, rest_of_line, unsent) in [
            (0, "", "one\ntwo\nthree\n"),
            (1, "ne\n", "two\nthree\n"),
            (3, "\n", "two\nthree\n"),
            (4, "", "two\nthree\n"),
            (5, "wo\n", "three\n"),
            (13, "\n", ""),
        ] {
            assert_eq!(
                broken_off(lines, written),
                (rest_of_line.as_bytes(), unsent.as_bytes()),
                "{written}"
            );
        }
    }

    #[test]
    fn whole_lines_are_written_together_and_a_longer_one_by_itself() {
        let long = [b"x".repeat(WRITTEN_AT_ONCE), b"\n".to_vec()].concat();
        let lines = [b"0123456789\n".repeat(4_000), long.clone(), b"end\n".to_vec()].concat();
        let (mut left, mut pieces) = (lines.as_slice(), Vec::new());
        while !left.is_empty() {
            let some = first_lines(left);
            pieces.push(some);
            left = &left[some.len()..];
        }
        assert!(pieces.iter().all(|piece| piece.ends_with(b"\n")));
        assert!(
            pieces
                .iter()
                .all(|piece| piece.len() <= WRITTEN_AT_ONCE || *piece == long)
        );
        assert_eq!((pieces.len(), pieces.concat()), (5, lines));
    }

    #[test]
    fn the_end_of_a_line_goes_out_before_the_next() {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let mut sink = Sink {
            file: File::from(OwnedFd::from(ours)),
            path: None,
            unfinished: b"nd of one\n".to_vec(),
        };
        sink.write_lines(b"two\n").expect("written");
        drop(sink);
        let read: Vec<_> = BufReader::new(theirs).lines().map(|line| line.expect("read")).collect();
        assert_eq!(read, ["nd of one", "two"]);
    }

    #[test]
    fn a_pipe_that_does_not_block_gets_whole_lines() {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        ours.set_nonblocking(true).expect("non-blocking");
        let lines = b"0123456789\n".repeat(100_000);
        let reader = thread::spawn(move || {
            let read = BufReader::new(theirs).lines().map(|line| line.expect("read"));
            read.inspect(|line| assert_eq!(line, "0123456789")).count()
        });
        let mut sink = Sink {
            file: File::from(OwnedFd::from(ours)),
            path: None,
            unfinished: Vec::new(),
        };
        sink.write_lines(&lines).expect("written");
        drop(sink);
        assert_eq!(reader.join().expect("reader"), 100_000);
    }
}
