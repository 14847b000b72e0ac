//! Long lists of users, sent as they are read: a file or standard input, with a bar on a terminal.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read, stderr, stdin};
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use super::args::{Ask, Format, Input};
use super::call::{Answer, Call};
use super::failure::Failure;
use super::session::{Session, conditions};
use crate::admin::wire;

/// How gzip and Zstandard begin.
const PACKED: [&[u8]; 2] = [&[0x1f, 0x8b], &[0x28, 0xb5, 0x2f, 0xfd]];

/// What some editors write in front.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Sends the list as the body of a change.
///
/// # Errors
/// When it cannot be read, or the change was not made.
pub fn send(
    session: &Session,
    ask: &Ask,
    call: Call,
    input: &Input,
    format: Option<Format>,
) -> Result<Answer, Failure> {
    let (mut first, length) = open(input)?;
    let format = match format.or_else(|| by_name(input)) {
        Some(format) => format,
        None => sniffed(input, first.as_mut())?,
    };
    let media = match format {
        Format::Plain => wire::PLAIN,
        Format::Csv => wire::CSV,
        Format::Ndjson => wire::NDJSON,
    };
    // A refusal that needs no list comes before it is sent, and is heard.
    let call = conditions(call, ask)?
        .header("content-type", media)
        .header("expect", "100-continue");
    let bar = progress(length);
    let mut first = Some(first);
    let answer = session.client.upload(&call, &mut || {
        let list = match (first.take(), input) {
            (Some(list), _) => list,
            (None, Input::Stdin) => return Ok(None),
            (None, Input::File(_)) => open(input)?.0,
        };
        bar.set_position(0);
        Ok(Some(bar.wrap_read(list)))
    });
    bar.finish_and_clear();
    answer
}

type List = Box<dyn BufRead>;

fn open(input: &Input) -> Result<(List, Option<u64>), Failure> {
    match input {
        Input::Stdin => Ok((Box::new(BufReader::new(stdin())), None)),
        Input::File(path) => {
            let file = File::open(path).map_err(|e| unreadable(input, &e))?;
            let length = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|m| m.len());
            Ok((Box::new(BufReader::new(file)), length))
        }
    }
}

fn unreadable(input: &Input, error: &std::io::Error) -> Failure {
    Failure::Invalid(format!("{input}: {error}"))
}

fn by_name(input: &Input) -> Option<Format> {
    let Input::File(path) = input else {
        return None;
    };
    let path = Path::new(path);
    let packed = path.extension().is_some_and(|ending| ending == "gz" || ending == "zst");
    let path = if packed { Path::new(path.file_stem()?) } else { path };
    match path.extension()?.to_str()? {
        "csv" => Some(Format::Csv),
        "ndjson" | "jsonl" => Some(Format::Ndjson),
        "txt" => Some(Format::Plain),
        _ => None,
    }
}

/// By the first line, which is not taken. What is packed has none to look at.
fn sniffed(input: &Input, list: &mut dyn BufRead) -> Result<Format, Failure> {
    let begin = list.fill_buf().map_err(|e| unreadable(input, &e))?;
    if PACKED.iter().any(|magic| begin.starts_with(magic)) {
        let text = format!(
            "{input}: it is packed, and its name does not say what is in it: add --format plain, csv or ndjson, or call \
             it, for example, users.csv.gz"
        );
        return Err(Failure::Invalid(text));
    }
    let begin = begin.strip_prefix(BYTE_ORDER_MARK).unwrap_or(begin);
    let line = begin.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(match line.trim_ascii_start().first() {
        Some(b'{') => Format::Ndjson,
        Some(_) if line.contains(&b',') => Format::Csv,
        Some(_) | None => Format::Plain,
    })
}

/// A bar on standard error where that is a terminal.
fn progress(length: Option<u64>) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match length {
        Some(length) => (
            ProgressBar::new(length),
            "{wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
        ),
        None => (ProgressBar::no_length(), "{spinner} {bytes} sent, {bytes_per_sec}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("█░░")),
        Err(_) => bar,
    }
}

/// Copies an export to standard output as it comes.
///
/// # Errors
/// When it breaks off, or there is nowhere to print.
pub fn receive(mut list: impl Read) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = list.read(&mut buffer);
        let n = read.map_err(|e| Failure::Unanswered(format!("the export broke off: {e}: repeat it")))?;
        if n == 0 {
            return Ok(std::io::Write::flush(&mut out)?);
        }
        std::io::Write::write_all(&mut out, &buffer[..n])?;
    }
}
