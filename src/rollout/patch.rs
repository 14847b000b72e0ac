//! Parts of a rollout that are changed, as RFC 7396 has them: what is named is set, what is null is taken out, the rest
//! stays.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::name::ReleaseName;
use super::spec::{ReleaseSpec, RolloutSpec, TargetSpec, Unhealthy};
use super::split::Range;
use super::weight::Weight;

/// One part of what is patched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Part<T> {
    /// It is not named, and stays.
    #[default]
    Kept,
    /// It is null: as if it had never been written.
    Removed,
    /// It is this now.
    Set(T),
}

/// Parts of a map: those that are null go out, the others come in.
type Entries<K, V> = Part<BTreeMap<K, Option<V>>>;

/// Parts of a rollout as people write them: what is left out stays, null takes out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutPatch {
    /// Releases by name.
    #[serde(default, skip_serializing_if = "Part::is_kept")]
    pub releases: Entries<ReleaseName, ReleaseSpec>,
    /// Single users: those that are null are unpinned, those that are not named stay as they are; null unpins all.
    #[serde(default, skip_serializing_if = "Part::is_kept")]
    pub users: Entries<String, ReleaseName>,
    /// All rules, in place of those before.
    #[serde(default, skip_serializing_if = "Part::is_kept")]
    pub targets: Part<Vec<TargetSpec>>,
    /// Shares of the releases.
    #[serde(default, skip_serializing_if = "Part::is_kept")]
    pub split: Entries<ReleaseName, Weight>,
    /// The bucket ranges; made from the shares where left out.
    #[serde(default, skip_serializing_if = "Part::is_kept")]
    pub ranges: Part<Vec<Range>>,
    /// Mixed into the bucket.
    #[serde(default, skip_serializing_if = "Part::is_kept")]
    pub salt: Part<String>,
    /// What happens when the decided release has no healthy endpoint.
    #[serde(default, skip_serializing_if = "Part::is_kept")]
    pub unhealthy: Part<Unhealthy>,
    /// Every user to stable, above every other rule.
    #[serde(default, skip_serializing_if = "Part::is_kept")]
    pub killed: Part<bool>,
    /// No new users enter a release, those in it stay.
    #[serde(default, skip_serializing_if = "Part::is_kept")]
    pub frozen: Part<bool>,
}

/// What a patch does to single users, who are no part of a stored spec.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct UsersPatch {
    /// Whether all are unpinned first.
    pub replace: bool,
    /// Who is unpinned.
    pub unset: Vec<Box<str>>,
    /// Who is pinned.
    pub set: BTreeMap<String, ReleaseName>,
}

impl RolloutPatch {
    /// The single users that come in.
    pub fn pinned(&self) -> impl Iterator<Item = &str> {
        let named = match &self.users {
            Part::Set(each) => Some(each),
            Part::Kept | Part::Removed => None,
        };
        let each = named.into_iter().flatten();
        each.filter_map(|(user, release)| release.as_ref().map(|_| user.as_str()))
    }

    /// A spec with these parts changed, its ranges to be made anew unless they are among them; and what becomes of single
    /// users.
    #[must_use]
    pub fn onto(self, before: &RolloutSpec) -> (RolloutSpec, UsersPatch) {
        let before = before.clone();
        let spec = RolloutSpec {
            releases: self.releases.merged(before.releases),
            users: BTreeMap::new(),
            targets: self.targets.over(before.targets),
            split: self.split.merged(before.split),
            ranges: self.ranges.over_optional(None),
            salt: self.salt.over_optional(before.salt),
            unhealthy: self.unhealthy.over(before.unhealthy),
            killed: self.killed.over(before.killed),
            frozen: self.frozen.over(before.frozen),
        };
        let mut users = UsersPatch::default();
        match self.users {
            Part::Kept => {}
            Part::Removed => users.replace = true,
            Part::Set(each) => {
                for (user, release) in each {
                    match release {
                        Some(release) => drop(users.set.insert(user, release)),
                        None => users.unset.push(user.into()),
                    }
                }
            }
        }
        (spec, users)
    }
}

impl<T> Part<T> {
    fn is_kept(&self) -> bool {
        matches!(self, Self::Kept)
    }

    fn over_optional(self, before: Option<T>) -> Option<T> {
        match self {
            Self::Kept => before,
            Self::Removed => None,
            Self::Set(value) => Some(value),
        }
    }
}

impl<T: Default> Part<T> {
    fn over(self, before: T) -> T {
        self.over_optional(Some(before)).unwrap_or_default()
    }
}

impl<K: Ord, V> Entries<K, V> {
    fn merged(self, mut before: BTreeMap<K, V>) -> BTreeMap<K, V> {
        match self {
            Self::Kept => before,
            Self::Removed => BTreeMap::new(),
            Self::Set(entries) => {
                for (key, value) in entries {
                    match value {
                        Some(value) => before.insert(key, value),
                        None => before.remove(&key),
                    };
                }
                before
            }
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Part<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Option::deserialize(deserializer)? {
            None => Self::Removed,
            Some(value) => Self::Set(value),
        })
    }
}

/// What is kept is not written at all.
impl<T: Serialize> Serialize for Part<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Kept | Self::Removed => serializer.serialize_none(),
            Self::Set(value) => serializer.serialize_some(value),
        }
    }
}

impl<T: JsonSchema> JsonSchema for Part<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Option::<T>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Option::<T>::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> RolloutSpec {
        serde_json::from_str(text).expect("a spec")
    }

    #[test]
    fn what_is_named_is_set_what_is_null_is_taken_out_and_the_rest_stays() {
        let before = spec(
            r#"{"releases":{"stable":{"pool":"s"},"canary":{"pool":"c"},"old":{"pool":"o"}},
                "targets":[{"users":["1"],"release":"canary"}],"split":{"canary":"10%","old":"5%"},
                "salt":"x","unhealthy":"stable","killed":true}"#,
        );
        let text = r#"{"releases":{"old":null,"new":{"pool":"n"}},"users":{"3":"canary","4":null},
                       "split":{"old":null,"new":"1%"},"salt":null,"killed":false}"#;
        let patch: RolloutPatch = serde_json::from_str(text).expect("a patch");
        let written = serde_json::to_string(&patch).expect("JSON");
        assert_eq!(serde_json::from_str::<RolloutPatch>(&written).expect("a patch"), patch);
        let (after, users) = patch.onto(&before);
        let wanted = spec(
            r#"{"releases":{"stable":{"pool":"s"},"canary":{"pool":"c"},"new":{"pool":"n"}},
                "targets":[{"users":["1"],"release":"canary"}],"split":{"canary":"10%","new":"1%"},
                "unhealthy":"stable"}"#,
        );
        assert_eq!(after, wanted);
        let canary = ReleaseName::parse("canary").expect("a name");
        let set = BTreeMap::from([("3".to_owned(), canary)]);
        let unset = vec!["4".into()];
        let replace = false;
        assert_eq!(users, UsersPatch { replace, unset, set });
    }

    #[test]
    fn nothing_changes_nothing_and_null_users_unpins_all() {
        let before = spec(r#"{"releases":{"stable":{"pool":"s"}},"split":{"stable":"100%"},"frozen":true}"#);
        assert_eq!(
            RolloutPatch::default().onto(&before),
            (before.clone(), UsersPatch::default())
        );
        let patch: RolloutPatch = serde_json::from_str(r#"{"users":null}"#).expect("a patch");
        assert!(patch.onto(&before).1.replace);
    }
}
