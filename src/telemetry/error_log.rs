//! The error log: one line a record on standard error, without the lines that Pingora writes at ERROR or WARN for what
//! only a client did.

mod noise;
mod outlet;

use std::fmt::{self, Write as _};
use std::io::Write as _;

use env_logger::{Logger, Target};
use log::{Level, LevelFilter, Log, Metadata, Record};

use self::noise::Verdict;
use self::outlet::{LINE_BYTES_MAX, Outlet};
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
    /// Unless it is printed elsewhere than on standard error.
    outlet: Option<Outlet>,
}

impl ErrorLog {
    fn new(filter: &str, target: Target, unix_micros: fn() -> u64) -> Self {
        let outlet = matches!(target, Target::Stderr).then(Outlet::default);
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
        Self { printer, outlet }
    }

    fn print(&self, record: &Record<'_>) {
        if !self.printer.matches(record) {
            return;
        }
        let print = || self.printer.log(record);
        let printed = match &self.outlet {
            Some(outlet) => outlet.write(print),
            None => {
                print();
                true
            }
        };
        if !printed {
            metrics::error_log_dropped();
        }
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
        self.print(&quiet);
    }
}

impl Log for ErrorLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.printer.enabled(metadata) || noise::may_be(metadata.target(), metadata.level())
    }

    fn log(&self, record: &Record<'_>) {
        if !noise::may_be(record.target(), record.level()) {
            return self.print(record);
        }
        match noise::verdict(record.target(), record.level(), &record.args().to_string()) {
            Verdict::Print => self.print(record),
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

/// Writes `2026-11-24T00:00:00.000Z LEVEL target message` and a line end. Control characters become
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
    line.truncate(LINE_BYTES_MAX);
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

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    const CLIENT_LEFT: &str = "Fail to proxy: Downstream ReadError context: while reading request headers cause: \
                               Connection reset by peer (os error 104), downstream session type: h1";

    #[derive(Clone, Default)]
    struct Printed(Arc<Mutex<Vec<u8>>>);

    impl Write for Printed {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn printed(filter: &str, lines: &[(Level, &str, &str)]) -> String {
        let printed = Printed::default();
        let log = ErrorLog::new(filter, Target::Pipe(Box::new(printed.clone())), || {
            1_795_478_400_012_345
        });
        for (level, target, message) in lines {
            log.log(
                &Record::builder()
                    .level(*level)
                    .target(target)
                    .args(format_args!("{message}"))
                    .build(),
            );
        }
        let bytes = printed.0.lock().clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn a_line_has_its_time_level_target_and_message() {
        let lines = [(Level::Warn, "switchyard::upstream", "pool \"stable\": no endpoint")];
        assert_eq!(
            printed(FILTER_DEFAULT, &lines),
            "2026-11-24T00:00:00.012Z WARN switchyard::upstream pool \"stable\": no endpoint\n"
        );
    }

    #[test]
    fn a_message_cannot_begin_a_second_line() {
        let lines = [(
            Level::Error,
            "switchyard::proxy",
            "GET /\r\n2026 ERROR forged\u{1b}[31m\n",
        )];
        let text = printed(FILTER_DEFAULT, &lines);
        assert!(text.ends_with("GET /  2026 ERROR forged [31m \n"), "{text:?}");
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn ours_are_printed_from_info_on_and_others_from_warnings_on() {
        let lines = [
            (Level::Info, "switchyard::server", "a"),
            (Level::Debug, "switchyard::server", "b"),
            (Level::Info, "pingora_core::server", "c"),
            (Level::Warn, "pingora_core::server", "d"),
        ];
        let text = printed(FILTER_DEFAULT, &lines);
        let messages: Vec<_> = text.lines().filter_map(|line| line.rsplit(' ').next()).collect();
        assert_eq!(messages, ["a", "d"]);
    }

    #[test]
    fn a_client_that_leaves_prints_nothing_and_is_shown_at_debug() {
        let lines = [(Level::Error, "pingora_proxy", CLIENT_LEFT)];
        assert_eq!(printed(FILTER_DEFAULT, &lines), "");
        assert!(printed("debug", &lines).contains(" DEBUG pingora_proxy Fail to proxy: Downstream ReadError"));
    }

    #[test]
    fn what_is_counted_reaches_the_log_even_when_nothing_is_printed() {
        let log = ErrorLog::new("off", Target::Stderr, || 0);
        assert_eq!(log.level(), LevelFilter::Warn);
        let metadata = Metadata::builder().level(Level::Error).target("pingora_proxy").build();
        assert!(log.enabled(&metadata));
        assert!(
            !log.enabled(
                &Metadata::builder()
                    .level(Level::Error)
                    .target("switchyard::proxy")
                    .build()
            )
        );
    }
}
