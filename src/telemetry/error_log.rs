//! The error log: one line a record on standard error, without the lines that Pingora writes at ERROR or WARN for what
//! only a client did.

mod noise;

use std::fmt::{self, Write as _};
use std::io::Write as _;

use env_logger::{Logger, Target};
use log::{Level, LevelFilter, Log, Metadata, Record};

use self::noise::Verdict;
use super::metrics;
use super::timestamp::{push_digits, push_rfc3339};

/// The environment variable that says what is logged, in `env_logger`'s words: `debug`, `warn,switchyard=trace`.
pub const FILTER_VARIABLE: &str = "SWITCHYARD_LOG";

/// What is logged when the variable is not set.
pub const FILTER_DEFAULT: &str = "warn,switchyard=info";

/// Somebody else has installed a logger.
#[derive(Debug, thiserror::Error)]
#[error("error log: another logger is installed already")]
pub struct InitError(#[from] log::SetLoggerError);

/// Installs the error log of the whole program. `unix_micros` tells the time.
pub fn init(unix_micros: fn() -> u64) -> Result<(), InitError> {
    let filter = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| FILTER_DEFAULT.to_owned());
    let error_log = ErrorLog::new(&filter, Target::Stderr, unix_micros);
    let level = error_log.level();
    log::set_boxed_logger(Box::new(error_log))?;
    log::set_max_level(level);
    Ok(())
}

/// Prints what is fit to be read, and counts the rest.
struct ErrorLog {
    printer: Logger,
}

impl ErrorLog {
    fn new(filter: &str, target: Target, unix_micros: fn() -> u64) -> Self {
        let printer = env_logger::Builder::new()
            .parse_filters(filter)
            .target(target)
            .write_style(env_logger::WriteStyle::Never)
            .format(move |out, record| {
                let mut line = Vec::with_capacity(256);
                push_line(&mut line, unix_micros(), record);
                out.write_all(&line)
            })
            .build();
        Self { printer }
    }

    /// What reaches the log. Lines that are counted do even when nothing is printed.
    fn level(&self) -> LevelFilter {
        self.printer.filter().max(LevelFilter::Warn)
    }

    fn print_at_debug(&self, record: &Record<'_>) {
        let quiet = Record::builder()
            .args(*record.args())
            .level(Level::Debug)
            .target(record.target())
            .build();
        self.printer.log(&quiet);
    }
}

impl Log for ErrorLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.printer.enabled(metadata) || noise::may_be(metadata.target(), metadata.level())
    }

    fn log(&self, record: &Record<'_>) {
        if !noise::may_be(record.target(), record.level()) {
            return self.printer.log(record);
        }
        match noise::verdict(record.target(), record.level(), &record.args().to_string()) {
            Verdict::Print => self.printer.log(record),
            Verdict::Quieten => self.print_at_debug(record),
            Verdict::Count(cause) => {
                metrics::downstream_protocol_error(cause);
                self.print_at_debug(record);
            }
        }
    }

    fn flush(&self) {
        self.printer.flush();
    }
}

/// Appends `2026-11-24T00:00:00.000Z LEVEL target message` and a line end. Control characters become
/// spaces: nobody outside can write a line of their own, or drive a terminal.
fn push_line(line: &mut Vec<u8>, unix_micros: u64, record: &Record<'_>) {
    push_rfc3339(line, unix_micros / 1_000_000);
    line.push(b'.');
    push_digits(line, unix_micros / 1_000 % 1_000, 3);
    line.extend_from_slice(b"Z ");
    line.extend_from_slice(record.level().as_str().as_bytes());
    line.push(b' ');
    let mut rest = OneLine(line);
    write!(rest, "{} {}", record.target(), record.args())
        .unwrap_or_else(|fmt::Error| rest.0.extend_from_slice(b" (cannot be shown)"));
    line.push(b'\n');
}

/// Takes text, with a space for each control character.
struct OneLine<'a>(&'a mut Vec<u8>);

impl fmt::Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (index, piece) in text.split(char::is_control).enumerate() {
            if index > 0 {
                self.0.push(b' ');
            }
            self.0.extend_from_slice(piece.as_bytes());
        }
        Ok(())
    }
}
