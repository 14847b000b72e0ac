//! Whether the facts of a commit stand on something: single users are of a rollout that exists by then.

use std::collections::HashMap;

use crate::rollout::{Fact, RolloutName};

use super::StoreError;

/// Refuses users of a rollout that does not exist when their fact is applied.
pub(super) fn check(
    facts: &[Fact],
    place: &str,
    mut exists: impl FnMut(&RolloutName) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    let mut told: HashMap<&RolloutName, bool> = HashMap::new();
    for fact in facts {
        match fact {
            Fact::Rollout { rollout, spec } => {
                told.insert(rollout, spec.is_some());
            }
            Fact::Users { rollout, .. } => {
                let there = match told.get(rollout) {
                    Some(there) => *there,
                    None => exists(rollout)?,
                };
                if !there {
                    return Err(StoreError::Failed {
                        place: place.to_owned(),
                        cause: format!("users of rollout {:?}, which does not exist", rollout.as_str()),
                        remedy: "create the rollout first",
                    });
                }
            }
            Fact::Segment { .. }
            | Fact::Roster { .. }
            | Fact::Merged { .. }
            | Fact::NoSegment { .. }
            | Fact::Scheduled { .. }
            | Fact::NotScheduled { .. } => {}
        }
    }
    Ok(())
}
