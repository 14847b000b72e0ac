//! Lists of users, read while they arrive: never the whole body at once, each id kept once. One bad line fails all,
//! and is told with its number.

mod line;

use std::collections::HashMap;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use futures_util::StreamExt;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use xxhash_rust::xxh3::xxh3_64;

use self::line::Line;
use super::refusal::{Kind, Refusal};
use super::sent;
use super::wire::{CSV, NDJSON, PLAIN, ProblemItem};
use crate::clock;
use crate::identity::UserId;
use crate::rollout::{Moment, ReleaseName, UserGroup};

const LIST_BYTES_MAX: u64 = 256 * 1024 * 1024;
const LINES_MAX: u32 = 5_000_000;
/// An id of 1,024 bytes, each escaped as six, and the words around it.
const LINE_BYTES_MAX: usize = 8 * 1024;
/// More wrong lines are not told.
const PROBLEMS_MAX: usize = 20;
/// Different pairs of release and time; a list with more is not one of a rollout.
const GROUPS_MAX: usize = 10_000;
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
            Some(_) => Err(Refusal::at(
                Kind::Malformed,
                "format",
                "is none of ndjson, csv and plain",
            )),
        }
    }
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
pub struct Reading {
    format: Format,
    terms: Terms,
    /// The beginning of a line whose end has not arrived.
    rest: Vec<u8>,
    number: u32,
    users: Users,
    problems: Vec<ProblemItem>,
}

/// Users as they are kept while a list is read.
#[derive(Debug, Default)]
pub struct Users {
    groups: Vec<Group>,
    by_terms: HashMap<(ReleaseName, Option<Moment>), u32>,
    /// The group and the place in it of each user.
    places: HashTable<(u32, u32)>,
}

#[derive(Debug)]
struct Group {
    release: Option<ReleaseName>,
    until: Option<Moment>,
    ids: Vec<Box<str>>,
    /// The line of each.
    lines: Vec<u32>,
}

/// Reads a whole list, and yields the digest of its request.
///
/// # Errors
/// With all lines that are wrong, up to twenty; or when the list is too large or ends early.
pub async fn read(mut reading: Reading, parts: &Parts, body: Body) -> Result<(Users, [u8; 32]), Refusal> {
    let mut digest = sent::begun(parts);
    let mut chunks = body.into_data_stream();
    let mut bytes = 0;
    let mut fed = Ok(());
    loop {
        let next = tokio::time::timeout(PAUSE_MAX, chunks.next()).await;
        let next = next.map_err(|_| Refusal::new(Kind::Malformed, "the list stopped arriving"))?;
        let Some(chunk) = next else { break };
        let chunk = chunk.map_err(|_| Refusal::new(Kind::Malformed, "the list did not arrive whole"))?;
        bytes += chunk.len() as u64;
        if bytes > LIST_BYTES_MAX {
            return Err(Refusal::new(
                Kind::TooLarge,
                format!("the list is larger than {LIST_BYTES_MAX} bytes"),
            ));
        }
        digest.update(&chunk);
        // Most clients hear why they are refused only after they have sent all.
        fed = fed.and_then(|()| reading.feed(&chunk));
        tokio::task::yield_now().await;
    }
    fed?;
    Ok((reading.end()?, sent::finished(digest)))
}

impl Reading {
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
        Ok(Self::new(format, terms))
    }

    /// A list of users of a segment.
    pub fn of_members(format: Format) -> Self {
        let terms = Terms {
            releases: None,
            default: None,
            now: 0,
        };
        Self::new(format, terms)
    }

    fn new(format: Format, terms: Terms) -> Self {
        Self {
            format,
            terms,
            rest: Vec::new(),
            number: 0,
            users: Users::default(),
            problems: Vec::new(),
        }
    }

    fn feed(&mut self, chunk: &[u8]) -> Result<(), Refusal> {
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

    fn end(mut self) -> Result<Users, Refusal> {
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() {
            self.line(&rest)?;
        }
        if self.problems.is_empty() {
            return Ok(self.users);
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
        if self.number > LINES_MAX {
            return Err(Refusal::new(
                Kind::TooLarge,
                format!("the list has more than {LINES_MAX} lines"),
            ));
        }
        if let Err(message) = self.take(bytes) {
            let key = format!("line {}", self.number);
            self.problems.push(ProblemItem { key, message });
            if self.problems.len() >= PROBLEMS_MAX {
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
        let (release, until) = self.terms.of(&line)?;
        let number = self.number;
        self.users.add(&line.user, release, until, number)
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

impl Users {
    fn add(
        &mut self,
        user: &str,
        release: Option<ReleaseName>,
        until: Option<Moment>,
        number: u32,
    ) -> Result<(), String> {
        let group = self.group(release, until)?;
        let groups = &mut self.groups;
        let id = |(group, place): (u32, u32)| -> &str { &groups[group as usize].ids[place as usize] };
        let hash = xxh3_64(user.as_bytes());
        let entry = self
            .places
            .entry(hash, |at| id(*at) == user, |at| xxh3_64(id(*at).as_bytes()));
        match entry {
            Entry::Occupied(known) => {
                let (other, place) = *known.get();
                if other == group {
                    return Ok(());
                }
                let first = groups[other as usize].lines[place as usize];
                Err(format!(
                    "the user is in line {first} already, and gets something else there"
                ))
            }
            Entry::Vacant(free) => {
                let into = &mut groups[group as usize];
                // Fewer than LINES_MAX, which fits.
                free.insert((group, into.ids.len() as u32));
                into.ids.push(user.into());
                into.lines.push(number);
                Ok(())
            }
        }
    }

    fn group(&mut self, release: Option<ReleaseName>, until: Option<Moment>) -> Result<u32, String> {
        // Most lists say the same in every line.
        if let Some(last) = self.groups.last() {
            if last.release == release && last.until == until {
                return Ok(self.groups.len() as u32 - 1);
            }
        }
        let number = self.groups.len() as u32;
        if let Some(name) = &release {
            let place = self.by_terms.entry((name.clone(), until)).or_insert(number);
            if *place != number {
                return Ok(*place);
            }
        }
        if self.groups.len() >= GROUPS_MAX {
            return Err(format!(
                "there are more than {GROUPS_MAX} different pairs of release and time"
            ));
        }
        self.groups.push(Group {
            release,
            until,
            ids: Vec::new(),
            lines: Vec::new(),
        });
        Ok(number)
    }

    /// Who gets what.
    pub fn into_groups(self) -> Vec<UserGroup> {
        let group = |group: Group| {
            group.release.map(|release| UserGroup {
                release,
                until: group.until,
                users: group.ids,
            })
        };
        self.groups.into_iter().filter_map(group).collect()
    }

    /// The ids alone.
    pub fn into_ids(self) -> Vec<Box<str>> {
        self.groups.into_iter().flat_map(|group| group.ids).collect()
    }
}

#[cfg(test)]
mod tests;
