//! One line of a list, in each of the formats.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::error::Category;

/// What a line says.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line<'a> {
    /// The user id.
    #[serde(borrow)]
    pub user: Cow<'a, str>,
    /// What the user gets.
    #[serde(borrow, default)]
    pub release: Option<Cow<'a, str>>,
    /// When that ends.
    #[serde(borrow, default)]
    pub until: Option<Cow<'a, str>>,
}

/// Whether the first line of a CSV list names the columns.
pub fn is_head(text: &str) -> bool {
    ["user", "user,release", "user,release,until"].contains(&text.trim())
}

impl<'a> Line<'a> {
    /// A JSON object.
    pub fn of_json(text: &'a str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|e| {
            let said = e.to_string();
            let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(said, _)| said);
            let remedy = "write an object such as {\"user\": \"42\"}, with release and until where they are needed";
            match e.classify() {
                Category::Data if !said.starts_with("invalid type") => {
                    format!("column {}: {said}: {remedy}", e.column())
                }
                Category::Data | Category::Io | Category::Syntax | Category::Eof => {
                    format!("column {}: is no JSON object of a user: {remedy}", e.column())
                }
            }
        })
    }

    /// `user[,release[,until]]`, with quotes as RFC 4180 has them, on one line.
    pub fn of_csv(text: &'a str) -> Result<Self, String> {
        let mut rest = Some(text);
        let mut field = || -> Result<Option<Cow<'a, str>>, String> {
            let Some(text) = rest else { return Ok(None) };
            let (field, after) = csv_field(text)?;
            rest = after;
            Ok(Some(field))
        };
        let user = field()?.unwrap_or_default();
        let (release, until) = (field()?, field()?);
        if rest.is_some() {
            return Err("has more than three fields: write user,release,until".to_owned());
        }
        let some = |field: Option<Cow<'a, str>>| field.filter(|text| !text.is_empty());
        Ok(Self {
            user,
            release: some(release),
            until: some(until),
        })
    }

    /// The id alone, without spaces around it.
    pub fn of_plain(text: &'a str) -> Self {
        Self {
            user: text.trim().into(),
            release: None,
            until: None,
        }
    }
}

fn csv_field(text: &str) -> Result<(Cow<'_, str>, Option<&str>), String> {
    let Some(mut inner) = text.strip_prefix('"') else {
        return Ok(match text.split_once(',') {
            Some((field, after)) => (field.trim().into(), Some(after)),
            None => (text.trim().into(), None),
        });
    };
    let mut value = String::new();
    loop {
        let (part, after) = inner.split_once('"').ok_or("has a quote without an end")?;
        value.push_str(part);
        if let Some(more) = after.strip_prefix('"') {
            value.push('"');
            inner = more;
            continue;
        }
        return match after.strip_prefix(',') {
            Some(more) => Ok((value.into(), Some(more))),
            None if after.trim().is_empty() => Ok((value.into(), None)),
            None => Err("has text behind a closing quote".to_owned()),
        };
    }
}
