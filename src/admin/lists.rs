//! Lists of users, read while they arrive: never the whole body at once, each id kept once. One bad line fails all,
//! and is told with its number.

mod line;
mod members;
mod unpack;
mod users;

use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;

use self::line::Line;
use self::unpack::{Packing, Unpacking};
pub use self::users::Users;
use super::refusal::{Kind, Refusal};
use super::sent;
use super::wire::{CSV, NDJSON, PLAIN, ProblemItem};
use crate::clock;
use crate::identity::{Normaliser, UserId};
use crate::precedence;
use crate::rollout::{Gathered, Moment, ReleaseName, RosterKey};

/// Pieces of a list that have arrived and wait to be read.
const PIECES: usize = 16;
/// An id of 1,024 bytes, each escaped as six, and the words around it.
const LINE_BYTES_MAX: usize = 8 * 1024;
/// More wrong lines are not told.
const PROBLEMS_MAX: usize = 20;
/// Lines that are read before requests go first: about 15 µs.
const LINES_AT_ONCE: u32 = 128;
/// Bytes whose digest is made before requests go first, likewise.
const DIGESTED_AT_ONCE: usize = 4 * 1024;
/// How long a list may pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What the lines are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `{"user": "42", "release": "canary"}`
    Ndjson,
    /// `42,canary`
    Csv,
    /// `42`
    Plain,
}

impl Format {
    /// As the parameter says, or the media type.
    ///
    /// # Errors
    /// When neither does.
    pub fn of(parameter: Option<String>, headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut values = headers.get_all(header::CONTENT_TYPE).iter();
        let kind = match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().unwrap_or_default(),
            _ => "",
        };
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let by_type = match kind.as_str() {
            NDJSON | "application/jsonl" => Self::Ndjson,
            CSV => Self::Csv,
            PLAIN => Self::Plain,
            _ => {
                let text = format!("send Content-Type: {NDJSON}, {CSV} or {PLAIN}");
                return Err(Refusal::new(Kind::MediaType, text));
            }
        };
        match parameter.as_deref() {
            None => Ok(by_type),
            Some("ndjson") => Ok(Self::Ndjson),
            Some("csv") => Ok(Self::Csv),
            Some("plain") => Ok(Self::Plain),
            Some(other) => {
                let text = format!("{other:?} is none of ndjson, csv and plain");
                Err(Refusal::at(Kind::Malformed, "format", text))
            }
        }
    }
}

/// Where what the lines say goes.
pub trait Sink: Send + 'static {
    /// More lines are refused.
    const LINES_MAX: u32;
    /// A longer list is refused, as it comes and as it is unpacked.
    const BYTES_MAX: u64;

    /// Takes what a line says; `number` is the line's.
    ///
    /// # Errors
    /// When it does not go with what came before.
    fn take(
        &mut self,
        user: &str,
        release: Option<ReleaseName>,
        until: Option<Moment>,
        number: u32,
    ) -> Result<(), String>;

    /// Why it takes no more, if it does not; asked for now and then.
    fn too_many(&self) -> Option<String>;
}

/// What a line may say beside the user.
#[derive(Debug)]
struct Terms {
    /// The releases that exist; none for the users of a segment.
    releases: Option<Vec<ReleaseName>>,
    default: Option<ReleaseName>,
    now: u64,
}

/// A list that is being read.
#[derive(Debug)]
pub struct Reading<S> {
    format: Format,
    terms: Terms,
    /// The beginning of a line whose end has not arrived.
    rest: Vec<u8>,
    number: u32,
    sink: S,
    problems: Vec<ProblemItem>,
    normaliser: Normaliser,
}

/// Reads a whole list on a thread of its own, while it arrives, and yields the digest of its request.
///
/// # Errors
/// With all lines that are wrong, up to twenty, and where the look ended; or when the list is too large or ends early.
pub async fn read<S: Sink>(reading: Reading<S>, parts: &Parts, body: Body) -> Result<(S, [u8; 32]), Refusal> {
    let mut unpacking = Unpacking::new(Packing::of(&parts.headers)?, reading)?;
    let (send, mut pieces) = mpsc::channel::<Bytes>(PIECES);
    let reading = precedence::at_length(move || {
        let mut fed = Ok(());
        while let Some(piece) = pieces.blocking_recv() {
            // Most clients hear why they are refused only after they have sent all.
            fed = fed.and_then(|()| unpacking.feed(&piece));
        }
        fed?;
        unpacking.end()
    });
    let mut digest = sent::begun(parts);
    let mut chunks = body.into_data_stream();
    let mut bytes = 0;
    loop {
        let next = tokio::time::timeout(PAUSE_MAX, chunks.next()).await;
        let next = next.map_err(|_| Refusal::new(Kind::Malformed, "the list stopped arriving"))?;
        let Some(chunk) = next else { break };
        let chunk = chunk.map_err(|_| Refusal::new(Kind::Malformed, "the list did not arrive whole"))?;
        bytes += chunk.len() as u64;
        if bytes > S::BYTES_MAX {
            let text = format!("the list is larger than {} bytes", S::BYTES_MAX);
            return Err(Refusal::new(Kind::TooLarge, text));
        }
        for piece in chunk.chunks(DIGESTED_AT_ONCE) {
            digest.update(piece);
            precedence::give_way();
        }
        if send.send(chunk).await.is_err() {
            break;
        }
    }
    drop(send);
    let read = reading.await.ok_or_else(ending)?;
    Ok((read?, sent::finished(digest)))
}

/// Why nothing comes of a list that is read no further.
pub fn ending() -> Refusal {
    Refusal::new(Kind::Store, "the program is ending: ask the one that runs now")
}

impl Reading<Users> {
    /// A list of users of a rollout with those releases.
    ///
    /// # Errors
    /// When the default is none of them.
    pub fn of_users(
        format: Format,
        releases: Vec<ReleaseName>,
        default: Option<ReleaseName>,
        now: u64,
    ) -> Result<Self, Refusal> {
        if let Some(wrong) = default.as_ref().filter(|release| !releases.contains(release)) {
            return Err(Refusal::at(
                Kind::Invalid,
                "release",
                unknown(wrong.as_str(), &releases),
            ));
        }
        let terms = Terms {
            releases: Some(releases),
            default,
            now,
        };
        Ok(Self::new(format, terms, Users::default()))
    }
}

impl Reading<Gathered> {
    /// A list of users of a segment; the key is for their fingerprints. They are sorted on so many threads.
    pub fn of_members(format: Format, key: RosterKey, threads: usize) -> Self {
        let terms = Terms {
            releases: None,
            default: None,
            now: 0,
        };
        Self::new(format, terms, Gathered::new(key, threads))
    }
}

impl<S: Sink> Reading<S> {
    fn new(format: Format, terms: Terms, sink: S) -> Self {
        Self {
            format,
            terms,
            rest: Vec::new(),
            number: 0,
            sink,
            problems: Vec::new(),
            normaliser: Normaliser::new(&[]),
        }
    }

    /// Refuses ids that no request can have, once this has made an id of what it brings.
    pub fn asked_through(mut self, normaliser: Normaliser) -> Self {
        self.normaliser = normaliser;
        self
    }

    /// Reads the next piece of the list, which may end within a line.
    ///
    /// # Errors
    /// When it cannot be a list any more.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), Refusal> {
        let mut begin = 0;
        for end in memchr::memchr_iter(b'\n', chunk) {
            if self.rest.is_empty() {
                self.line(&chunk[begin..end])?;
            } else {
                let mut whole = std::mem::take(&mut self.rest);
                whole.extend_from_slice(&chunk[begin..end]);
                self.line(&whole)?;
            }
            begin = end + 1;
        }
        self.rest.extend_from_slice(&chunk[begin..]);
        if self.rest.len() > LINE_BYTES_MAX {
            self.number += 1;
            let text = format!("is longer than {LINE_BYTES_MAX} bytes");
            return Err(Refusal::at(Kind::Invalid, format!("line {}", self.number), text));
        }
        Ok(())
    }

    /// The list is all there.
    ///
    /// # Errors
    /// With the lines that are wrong.
    pub fn end(mut self) -> Result<S, Refusal> {
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() {
            self.line(&rest)?;
        }
        if self.problems.is_empty() {
            return Ok(self.sink);
        }
        Err(self.refused())
    }

    fn refused(&mut self) -> Refusal {
        let problems = std::mem::take(&mut self.problems);
        let first = problems.first().map(|p| format!("{}: {}", p.key, p.message));
        Refusal::new(
            Kind::Invalid,
            format!("nothing was changed: {}", first.unwrap_or_default()),
        )
        .with(problems)
    }

    fn line(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.number += 1;
        if self.number.is_multiple_of(LINES_AT_ONCE) {
            precedence::give_way();
            if let Some(why) = self.sink.too_many() {
                return Err(Refusal::new(Kind::TooLarge, why));
            }
        }
        if self.number > S::LINES_MAX {
            return Err(Refusal::new(
                Kind::TooLarge,
                format!("the list has more than {} lines", S::LINES_MAX),
            ));
        }
        if let Err(message) = self.take(bytes) {
            let key = format!("line {}", self.number);
            self.problems.push(ProblemItem { key, message });
            if self.problems.len() >= PROBLEMS_MAX {
                self.problems.push(ProblemItem {
                    key: format!("line {} and later", self.number + 1),
                    message: "not looked at".to_owned(),
                });
                return Err(self.refused());
            }
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        if bytes.len() > LINE_BYTES_MAX {
            return Err(format!("is longer than {LINE_BYTES_MAX} bytes"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
        let text = text.strip_suffix('\r').unwrap_or(text);
        let text = if self.number == 1 {
            text.strip_prefix('\u{feff}').unwrap_or(text)
        } else {
            text
        };
        if text.trim().is_empty() || (self.number == 1 && self.format == Format::Csv && line::is_head(text)) {
            return Ok(());
        }
        let line = match self.format {
            Format::Ndjson => Line::of_json(text)?,
            Format::Csv => Line::of_csv(text)?,
            Format::Plain => Line::of_plain(text),
        };
        UserId::new(line.user.as_bytes()).map_err(|e| format!("the user id {e}"))?;
        self.normaliser
            .check(&line.user)
            .map_err(|e| format!("the user id {e}"))?;
        let (release, until) = self.terms.of(&line)?;
        let number = self.number;
        self.sink.take(&line.user, release, until, number)
    }
}

impl Terms {
    fn of(&self, line: &Line<'_>) -> Result<(Option<ReleaseName>, Option<Moment>), String> {
        let Some(releases) = &self.releases else {
            return match (&line.release, &line.until) {
                (None, None) => Ok((None, None)),
                (Some(_), _) | (_, Some(_)) => Err("says more than a user: segments have users only".to_owned()),
            };
        };
        let release = match &line.release {
            Some(name) => releases
                .iter()
                .find(|known| known.as_str() == name)
                .ok_or_else(|| unknown(name, releases))?,
            None => self
                .default
                .as_ref()
                .ok_or("says no release: write one, or say ?release= for all such lines")?,
        };
        let until = line.until.as_deref().map(clock::parse_rfc3339).transpose()?;
        if until.is_some_and(|until| until <= self.now) {
            return Err("its time is over: write a time to come".to_owned());
        }
        Ok((Some(release.clone()), until.map(Moment)))
    }
}

fn unknown(name: &str, releases: &[ReleaseName]) -> String {
    let known: Vec<&str> = releases.iter().map(ReleaseName::as_str).collect();
    format!("release {name:?} does not exist: write one of {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::UserGroup;

    fn names(all: &[&str]) -> Vec<ReleaseName> {
        all.iter().map(|n| ReleaseName::parse(n).expect("a name")).collect()
    }

    fn users(format: Format, default: Option<&str>) -> Reading<Users> {
        let default = default.map(|n| ReleaseName::parse(n).expect("a name"));
        Reading::of_users(format, names(&["canary", "stable"]), default, 1_000).expect("known")
    }

    /// Fed in pieces of every size: lines are where line feeds are, not where pieces end.
    fn read_all(make: impl Fn() -> Reading<Users>, text: &[u8]) -> Result<Vec<UserGroup>, Vec<(String, String)>> {
        let mut results = Vec::new();
        for size in [1, 2, 7, text.len().max(1)] {
            let mut reading = make();
            let fed = text.chunks(size).try_for_each(|chunk| reading.feed(chunk));
            let result = fed.and_then(|()| reading.end());
            results.push(result.map(Users::into_groups).map_err(|refusal| {
                let problems = refusal.problem().problems;
                problems.into_iter().map(|p| (p.key, p.message)).collect()
            }));
        }
        let first = results.remove(0);
        assert!(results.iter().all(|other| *other == first), "{results:?} and {first:?}");
        first
    }

    fn flat(groups: Vec<UserGroup>) -> Vec<(String, String, Option<u64>)> {
        let each = groups.into_iter().flat_map(|group| {
            let (release, until) = (group.release.to_string(), group.until.map(|m| m.0));
            group
                .users
                .into_iter()
                .map(move |user| (user.to_string(), release.clone(), until))
        });
        each.collect()
    }

    fn row(user: &str, release: &str, until: Option<u64>) -> (String, String, Option<u64>) {
        (user.to_owned(), release.to_owned(), until)
    }

    #[test]
    fn each_format_says_the_same() {
        let expected = vec![
            row("a b", "canary", None),
            row("ü\"", "canary", None),
            row("3", "stable", Some(2_000)),
        ];
        let ndjson = "{\"user\":\"a b\"}\n\n{\"user\":\"\\u00fc\\\"\",\"release\":\"canary\"}\r\n\
                      {\"user\":\"3\",\"release\":\"stable\",\"until\":\"1970-01-01T00:00:02Z\"}";
        let csv = "\u{feff}user,release,until\na b\n\"ü\"\"\",canary\n3,stable,1970-01-01T00:00:02Z\n";
        for (format, text) in [(Format::Ndjson, ndjson), (Format::Csv, csv)] {
            let read = read_all(|| users(format, Some("canary")), text.as_bytes());
            assert_eq!(read.map(flat), Ok(expected.clone()), "{format:?}");
        }
        let plain = read_all(|| users(Format::Plain, Some("canary")), b" a b \nuser\n");
        assert_eq!(
            plain.map(flat),
            Ok(vec![row("a b", "canary", None), row("user", "canary", None)])
        );
    }

    #[test]
    fn every_wrong_line_is_told_with_its_number() {
        let text = "{\"user\":\"1\",\"release\":\"canary\"}\n{\"user\":\"\"}\n{\"user\":\"2\"}\nnonsense\n\
                    {\"user\":\"3\",\"release\":\"beta\"}\n{\"user\":\"4\",\"release\":\"canary\",\"until\":\"1970-01-01T00:00:00Z\"}\n\
                    {\"user\":\"1\",\"release\":\"canary\"}\n{\"user\":\"1\",\"release\":\"stable\"}\n";
        let problems = read_all(|| users(Format::Ndjson, None), text.as_bytes()).expect_err("wrong");
        let lines: Vec<&str> = problems.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(lines, ["line 2", "line 3", "line 4", "line 5", "line 6", "line 8"]);
        assert!(problems[5].1.contains("line 1 "), "{problems:?}");
        let many = "x\n".repeat(100);
        let problems = read_all(|| users(Format::Ndjson, None), many.as_bytes()).expect_err("wrong");
        assert_eq!(problems.len(), PROBLEMS_MAX + 1);
        assert_eq!(
            problems[20],
            ("line 21 and later".to_owned(), "not looked at".to_owned())
        );
    }

    #[test]
    fn bounds_hold() {
        let long = vec![b'x'; LINE_BYTES_MAX + 1];
        let problems = read_all(|| users(Format::Plain, Some("canary")), &long).expect_err("too long");
        assert_eq!(problems[0].0, "line 1");
        let problems = read_all(|| users(Format::Plain, Some("canary")), b"ok\n\xff\n").expect_err("no UTF-8");
        assert_eq!(problems, [("line 2".to_owned(), "is not UTF-8".to_owned())]);
        assert!(Reading::of_users(Format::Csv, names(&["stable"]), Some(names(&["x"]).remove(0)), 0).is_err());
    }

    #[test]
    fn a_segment_has_users_only() {
        let reading = || Reading::of_members(Format::Csv, RosterKey([1, 2]), 1);
        let mut good = reading();
        good.feed(b"a\nb\na\n").expect("good");
        let mut ids = good.end().expect("good").sorted().expect("few").ids();
        ids.sort_unstable();
        assert_eq!(ids, ["a".into(), "b".into()]);
        let mut bad = reading();
        bad.feed(b"a,canary\n").expect("told at the end");
        assert!(bad.end().is_err());
    }
}
