//! One line a request, written by a thread of its own. A request never waits for it: what finds no room is dropped and
//! counted.

mod escape;
mod line;
mod orders;
mod pending;
mod record;
mod sink;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use parking_lot::Mutex;

use self::orders::Orders;
use self::pending::{Appended, Pending};
use self::sink::Sink;
use super::metrics;
use super::settings::{AccessLogSettings, LogFormat, LogTarget, UserIdShown};
use super::timestamp::DateForm;
use crate::precedence;

pub use self::record::{AccessRecord, HttpVersion};

/// How long dropping an access log waits for a sink that takes no bytes.
const DROP_PATIENCE: Duration = Duration::from_secs(1);

/// The access log. Dropping it writes what waits, within a second.
#[derive(Debug)]
pub struct AccessLog {
    /// `None` when the log is off.
    shared: Option<Arc<Shared>>,
    start: Mutex<Start>,
}

/// The log's file cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "access_log: cannot open {} for appending: {source}: write the path of a file in a folder that exists and is writable",
    path.display()
)]
pub struct OpenError {
    path: PathBuf,
    source: io::Error,
}

/// What request threads and the writer share.
#[derive(Debug)]
struct Shared {
    format: LogFormat,
    user_id: UserIdShown,
    pending: Pending,
    orders: Orders,
    writer: OnceLock<Thread>,
    /// The writer waits for a call, not for its next round.
    asleep: AtomicBool,
    /// Lines that found no room.
    refused: AtomicU64,
    /// Lines that the sink did not take.
    lost: AtomicU64,
}

#[derive(Debug)]
enum Start {
    File(Sink),
    Stdout,
    Done,
}

impl AccessLog {
    /// Opens the file. Nothing is written before [`AccessLog::start`]; lines wait until then.
    pub fn open(settings: &AccessLogSettings) -> Result<Self, OpenError> {
        let start = match &settings.path {
            LogTarget::Off => Start::Done,
            LogTarget::Stdout => Start::Stdout,
            LogTarget::File(path) => Start::File(Sink::file(path).map_err(|source| OpenError {
                path: path.clone(),
                source,
            })?),
        };
        let shared = match start {
            Start::Done => None,
            Start::File(_) | Start::Stdout => Some(Arc::new(Shared::new(settings))),
        };
        Ok(Self {
            shared,
            start: Mutex::new(start),
        })
    }

    /// Starts the writer, once; further calls do nothing. A daemon calls it after it has detached, for a thread does
    /// not survive that.
    pub fn start(&self) -> io::Result<()> {
        let Some(shared) = &self.shared else {
            return Ok(());
        };
        let mut start = self.start.lock();
        let sink = match std::mem::replace(&mut *start, Start::Done) {
            Start::File(sink) => sink,
            Start::Stdout => Sink::stdout().inspect_err(|_| *start = Start::Stdout)?,
            Start::Done => return Ok(()),
        };
        let writers_shared = Arc::clone(shared);
        let writer = thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            precedence::logs();
            writer::run(&writers_shared, sink);
        })?;
        shared.writer.get_or_init(|| writer.thread().clone());
        Ok(())
    }

    /// Whether a line shows `Referer` and `User-Agent`.
    pub fn shows_agents(&self) -> bool {
        self.shared
            .as_ref()
            .is_some_and(|shared| shared.format == LogFormat::Combined)
    }

    /// Takes one line. Neither waits for the sink nor, once the buffers have grown, allocates.
    pub fn write(&self, record: &AccessRecord<'_>) {
        if let Some(shared) = &self.shared {
            shared.write(record);
        }
    }

    /// Has the writer open the log's path again, after the lines that wait now. For USR1: the old file can have been
    /// renamed.
    pub fn reopen(&self) {
        if let Some(shared) = &self.shared {
            shared.orders.reopen();
            shared.call_writer();
        }
    }

    /// Waits, `patience` at most, until every line taken before the call is written and every reopening asked for
    /// before it is done. Returns whether they are; `false` too when the sink refused lines meanwhile. Before
    /// [`AccessLog::start`] it returns whether no line waits.
    pub fn flush(&self, patience: Duration) -> bool {
        let Some(shared) = &self.shared else {
            return true;
        };
        if shared.writer.get().is_none() {
            return shared.pending.is_empty();
        }
        let lost_before = shared.lost.load(Ordering::Relaxed);
        let round = shared.orders.ask_round();
        shared.call_writer();
        shared.orders.wait_for(round, patience) && shared.lost.load(Ordering::Relaxed) == lost_before
    }

    /// Lines that are lost: they found no room, or the sink did not take them.
    pub fn dropped(&self) -> u64 {
        self.shared.as_ref().map_or(0, |shared| {
            shared.refused.load(Ordering::Relaxed) + shared.lost.load(Ordering::Relaxed)
        })
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        let Some(shared) = &self.shared else {
            return;
        };
        if !shared.pending.is_empty() && self.start().is_err() {
            return;
        }
        self.flush(DROP_PATIENCE);
        shared.orders.stop();
        shared.call_writer();
    }
}

impl Shared {
    fn new(settings: &AccessLogSettings) -> Self {
        let form = match settings.format {
            LogFormat::Json => DateForm::Rfc3339,
            LogFormat::Combined => DateForm::CommonLog,
        };
        Self {
            format: settings.format,
            user_id: settings.user_id,
            pending: Pending::new(form),
            orders: Orders::default(),
            writer: OnceLock::new(),
            asleep: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    fn write(&self, record: &AccessRecord<'_>) {
        let appended = self.pending.append(|text, dates| match self.format {
            LogFormat::Json => line::push_json_line(text, record, self.user_id, dates),
            LogFormat::Combined => line::push_combined_line(text, record, self.user_id, dates),
        });
        match appended {
            Appended::Waiting => {
                if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
                    self.call_writer();
                }
            }
            Appended::HalfFull => self.call_writer(),
            Appended::Refused => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                metrics::access_log_dropped(1);
            }
        }
    }

    fn lose_written(&self, lines: u64) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
        metrics::access_log_dropped(lines);
    }

    fn call_writer(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader, PipeReader, PipeWriter};
    use std::os::fd::AsRawFd;
    use std::path::Path;

    use super::*;

    /// Longer than any writer needs; a test that waits as long has failed.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn log_to(path: &Path) -> AccessLog {
        let settings = AccessLogSettings {
            path: LogTarget::File(path.to_owned()),
            ..AccessLogSettings::default()
        };
        AccessLog::open(&settings).expect("the log opens")
    }

    fn log_to_pipe() -> (AccessLog, PipeReader) {
        let (reader, writer): (_, PipeWriter) = io::pipe().expect("a pipe");
        let log = log_to(Path::new(&format!("/proc/self/fd/{}", writer.as_raw_fd())));
        (log, reader)
    }

    fn write_numbered(log: &AccessLog, number: u64) {
        log.write(&AccessRecord {
            method: b"GET",
            path: b"/",
            revision: number,
            ..AccessRecord::default()
        });
    }

    fn numbers(text: &str) -> Vec<u64> {
        let number = |line: &str| {
            let read: serde_json::Value = serde_json::from_str(line).expect("a whole line");
            read["revision"].as_u64().expect("a number")
        };
        text.lines().map(number).collect()
    }

    /// A folder of its own, gone with the value.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("switchyard-access-log-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).expect("a folder");
            Self(path)
        }

        fn file(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("the folder can go");
        }
    }

    #[test]
    fn lines_of_one_thread_arrive_in_order() {
        let folder = Folder::new("order");
        let log = log_to(&folder.file("log"));
        for number in 0..10 {
            write_numbered(&log, number);
        }
        assert!(!log.flush(PATIENCE), "nothing is started yet");
        log.start().expect("a thread");
        log.start().expect("once is enough");
        for number in 10..1_000 {
            write_numbered(&log, number);
        }
        assert!(log.flush(PATIENCE));
        let text = fs::read_to_string(folder.file("log")).expect("the log");
        assert_eq!(numbers(&text), (0..1_000).collect::<Vec<_>>());
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn lines_of_many_threads_all_arrive() {
        let folder = Folder::new("threads");
        let log = log_to(&folder.file("log"));
        log.start().expect("a thread");
        thread::scope(|scope| {
            for thread in 0..16 {
                let log = &log;
                scope.spawn(move || (0..100).for_each(|number| write_numbered(log, thread * 100 + number)));
            }
        });
        assert!(log.flush(PATIENCE));
        let mut found = numbers(&fs::read_to_string(folder.file("log")).expect("the log"));
        found.sort_unstable();
        assert_eq!(found, (0..1_600).collect::<Vec<_>>());
    }

    #[test]
    fn dropping_the_log_writes_what_waits_even_when_nothing_was_started() {
        let folder = Folder::new("drop");
        for started in [false, true] {
            let log = log_to(&folder.file("log"));
            if started {
                log.start().expect("a thread");
            }
            write_numbered(&log, 7);
        }
        let text = fs::read_to_string(folder.file("log")).expect("the log");
        assert_eq!(numbers(&text), [7, 7]);
    }

    #[test]
    fn a_renamed_file_is_left_alone_after_reopening() {
        let folder = Folder::new("reopen");
        let log = log_to(&folder.file("log"));
        log.start().expect("a thread");
        write_numbered(&log, 1);
        assert!(log.flush(PATIENCE));
        fs::rename(folder.file("log"), folder.file("log.1")).expect("renamed");
        write_numbered(&log, 2);
        log.reopen();
        assert!(log.flush(PATIENCE));
        write_numbered(&log, 3);
        assert!(log.flush(PATIENCE));
        let read = |name| numbers(&fs::read_to_string(folder.file(name)).expect("a log"));
        assert_eq!((read("log.1"), read("log")), (vec![1, 2], vec![3]));
    }

    #[test]
    fn a_log_that_cannot_be_reopened_stays_in_its_old_file() {
        let folder = Folder::new("reopen-fails");
        fs::create_dir(folder.file("logs")).expect("a folder");
        let log = log_to(&folder.file("logs/log"));
        log.start().expect("a thread");
        fs::rename(folder.file("logs"), folder.file("old")).expect("renamed");
        log.reopen();
        assert!(log.flush(PATIENCE));
        write_numbered(&log, 1);
        assert!(log.flush(PATIENCE));
        assert_eq!(
            numbers(&fs::read_to_string(folder.file("old/log")).expect("the log")),
            [1]
        );
    }

    #[test]
    fn a_sink_that_blocks_costs_lines_and_no_waiting() {
        let (log, reader) = log_to_pipe();
        log.start().expect("a thread");
        let mut written = 0;
        while log.dropped() == 0 {
            assert!(written < 1_000_000, "the log is not bounded");
            write_numbered(&log, written);
            written += 1;
        }
        assert!(!log.flush(Duration::from_millis(1)), "the sink is blocked");
        let dropped = log.dropped();
        assert!(dropped > 0);

        let lines = thread::spawn(move || {
            let text = io::read_to_string(reader).expect("the pipe ends when the log does");
            numbers(&text).len() as u64
        });
        assert!(log.flush(PATIENCE));
        drop(log);
        assert_eq!(lines.join().expect("the reader"), written - dropped);
    }

    #[test]
    fn a_full_disk_costs_lines_and_no_waiting() {
        let log = log_to(Path::new("/dev/full"));
        log.start().expect("a thread");
        for number in 0..5 {
            write_numbered(&log, number);
        }
        assert!(!log.flush(PATIENCE), "the lines are lost");
        assert_eq!(log.dropped(), 5);
    }

    #[test]
    fn a_line_wakes_a_writer_that_has_nothing_to_do() {
        let (log, reader) = log_to_pipe();
        log.start().expect("a thread");
        let shared = log.shared.as_ref().expect("the log is on");
        while !shared.asleep.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        write_numbered(&log, 9);
        let mut line = String::new();
        BufReader::new(reader).read_line(&mut line).expect("a line");
        assert_eq!(numbers(&line), [9]);
    }

    #[test]
    fn a_log_that_is_off_takes_nothing_and_is_always_flushed() {
        let log = AccessLog::open(&AccessLogSettings {
            path: LogTarget::Off,
            ..AccessLogSettings::default()
        });
        let log = log.expect("nothing to open");
        log.start().expect("nothing to start");
        write_numbered(&log, 1);
        log.reopen();
        assert!(log.flush(Duration::ZERO));
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let path = PathBuf::from("/nonexistent/log");
        let error = AccessLog::open(&AccessLogSettings {
            path: LogTarget::File(path),
            ..AccessLogSettings::default()
        });
        let text = error.expect_err("there is no such folder").to_string();
        assert_eq!(
            text,
            "access_log: cannot open /nonexistent/log for appending: No such file or directory (os error 2): \
             write the path of a file in a folder that exists and is writable"
        );
    }
}
