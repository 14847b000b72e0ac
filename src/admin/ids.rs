//! Ids of users that an operator writes: only those that requests can have are kept, as any other would be for nobody.

use super::refusal::{Kind, Refusal};
use super::wire::ProblemItem;
use crate::identity::Normaliser;

/// More of them are not told.
const PROBLEMS_MAX: usize = 20;

/// Requests may have these ids; `key` says where the one at a place is written.
///
/// # Errors
/// With those that no request can have, up to twenty.
pub fn may_come<'a>(
    normaliser: &Normaliser,
    ids: impl Iterator<Item = &'a str>,
    key: impl Fn(usize, &str) -> String,
) -> Result<(), Refusal> {
    let wrong = ids.enumerate().filter_map(|(place, id)| {
        let why = normaliser.check(id).err()?;
        Some(ProblemItem {
            key: key(place, id),
            message: format!("the user id {why}"),
        })
    });
    let problems: Vec<ProblemItem> = wrong.take(PROBLEMS_MAX).collect();
    let Some(first) = problems.first() else {
        return Ok(());
    };
    let detail = format!("{}: {}", first.key, first.message);
    Err(Refusal::new(Kind::Invalid, detail).with(problems))
}
