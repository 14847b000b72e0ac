//! Long lists of single users who are all where they are to be: no change, however many they are.

use super::snapshot::Snapshot;
use crate::rollout::{Fact, Moment, RolloutName, UserGroup};
use crate::store::{Store, StoreError};

/// Users that are read at once.
const PAGE: usize = 50_000;

/// Whether facts pin single users, and do nothing else, who are all pinned so, and nobody else where others are to go.
pub(super) async fn pinned(store: &dyn Store, facts: &[Fact], now: &Snapshot) -> Result<bool, StoreError> {
    // What requests see tells almost all lists apart, without a look into the store.
    let mut lists = Vec::with_capacity(facts.len());
    for fact in facts {
        match list(fact, now) {
            Some(list) => lists.push(list),
            None => return Ok(false),
        }
    }
    for (rollout, groups) in lists {
        if !until_then(store, rollout, groups).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Who is pinned by a fact, if all of them get that release already.
fn list<'a>(fact: &'a Fact, now: &Snapshot) -> Option<(&'a RolloutName, &'a [UserGroup])> {
    let Fact::Users {
        rollout,
        replace,
        unset,
        set,
    } = fact
    else {
        return None;
    };
    let table = now.named(rollout)?.table();
    let users: usize = set.iter().map(|group| group.users.len()).sum();
    let others = *replace && users != table.single_users();
    let is_so = |group: &UserGroup| {
        let mut users = group.users.iter();
        users.all(|user| table.single_user(user) == Some(&group.release))
    };
    (unset.is_empty() && !others && set.iter().all(is_so)).then_some((rollout, set))
}

/// Whether all of them are pinned until then, or for ever.
async fn until_then(store: &dyn Store, rollout: &RolloutName, groups: &[UserGroup]) -> Result<bool, StoreError> {
    let each = groups
        .iter()
        .flat_map(|group| group.users.iter().map(|user| (&**user, group.until)));
    let mut wanted: Vec<(&str, Option<Moment>)> = each.collect();
    // The order of the store.
    wanted.sort_unstable();
    let mut wanted = wanted.into_iter().peekable();
    let mut after: Option<String> = None;
    loop {
        let page = store.users(rollout, after.as_deref(), PAGE).await?;
        for (user, entry) in &page.users {
            while let Some((_, until)) = wanted.next_if(|(wanted, _)| *wanted == &**user) {
                if until != entry.until {
                    return Ok(false);
                }
            }
        }
        match page.next {
            Some(next) if wanted.peek().is_some() => after = Some(next),
            Some(_) | None => return Ok(wanted.peek().is_none()),
        }
    }
}
