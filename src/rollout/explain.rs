//! Why a user gets a release: the same way as `decide`, with every step told.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bucket::Bucket;
use super::decision::{Attributes, Decision};
use super::name::ReleaseName;
use super::spec::{RolloutSpec, TargetSpec, When};
use super::table::{Table, Told};
use super::weight::Weight;
use crate::identity::{Identity, UserId};

/// A decision with its reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// What the user gets.
    pub release: ReleaseName,
    /// Why, in one word.
    pub reason: String,
    /// The user's bucket, 0 to 999999; none without an id, or while the rollout is killed.
    pub bucket: Option<u32>,
    /// Every step that was taken, in order; the last one decided.
    pub steps: Vec<Step>,
    /// At which share of each release this user enters it, as the split stands.
    pub enters: Vec<Entry>,
}

/// One step on the way to a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// `identity`, `kill`, `user`, `targets[2]`, `split`.
    pub step: String,
    /// Whether it decided.
    pub matched: bool,
    /// Why, or why not.
    pub why: String,
}

/// The share at which a user enters a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// The release.
    pub release: ReleaseName,
    /// The share that the release must have, the others keeping theirs; none where it can never grow so far.
    #[serde(rename = "at")]
    pub share: Option<Weight>,
    /// Whether the user's bucket is its own already.
    pub inside: bool,
}

impl Step {
    /// That requests have another id than was asked about, or none; nothing where they have just that.
    #[must_use]
    pub fn of_identity(asked: &str, identity: &Identity) -> Option<Self> {
        let id = identity.user().map(UserId::as_bytes);
        if id == Some(asked.as_bytes()) {
            return None;
        }
        let made = id.map_or_else(
            || "nothing, so that nobody is known".to_owned(),
            |id| format!("{:?}", String::from_utf8_lossy(id)),
        );
        let why = format!("identity.normalise makes {asked:?} of a request {made}");
        Some(step("identity", false, &why))
    }
}

/// What happened on the way, in numbers.
#[derive(Default)]
struct Path {
    killed: bool,
    single: Option<bool>,
    targets: Vec<bool>,
}

impl Told for Path {
    fn kill(&mut self, killed: bool) {
        self.killed = killed;
    }

    fn single(&mut self, listed: bool) {
        self.single = Some(listed);
    }

    fn target(&mut self, _place: usize, met: bool) {
        self.targets.push(met);
    }
}

impl Table {
    /// Decides, and says why. `spec` is what this table was compiled from.
    pub fn explain(
        &self,
        spec: &RolloutSpec,
        identity: &Identity,
        request: &impl Attributes,
    ) -> (Decision, Explanation) {
        let mut path = Path::default();
        let decision = self.walk(identity, request, &mut path);
        let mut steps = vec![step(
            "kill",
            path.killed,
            if path.killed {
                "the rollout is killed: everyone gets stable"
            } else {
                "the rollout is not killed"
            },
        )];
        if let Some(listed) = path.single {
            steps.push(step("user", listed, &self.single_why(identity, &decision, listed)));
            for (place, met) in path.targets.iter().enumerate() {
                let why = spec
                    .targets
                    .get(place)
                    .map(|target| target_why(target, *met, identity, request));
                steps.push(step(&format!("targets[{place}]"), *met, &why.unwrap_or_default()));
            }
            if !listed && !path.targets.last().copied().unwrap_or(false) {
                steps.push(step("split", true, &self.split_why(&decision)));
            }
        }
        let bucket = identity.id().map(|id| self.salt.bucket(id.as_bytes()));
        let explanation = Explanation {
            release: self.release(decision.release).name.clone(),
            reason: decision.reason.as_str().to_owned(),
            bucket: decision.bucket.map(Bucket::get),
            steps,
            enters: bucket.map(|bucket| self.entries(bucket)).unwrap_or_default(),
        };
        (decision, explanation)
    }

    fn single_why(&self, identity: &Identity, decision: &Decision, listed: bool) -> String {
        match (identity, listed) {
            (_, true) => format!("the user is pinned to {}", self.release(decision.release).name),
            (Identity::User { .. }, false) => "the user is not pinned".to_owned(),
            (Identity::Visitor { .. }, false) => "a visitor with our cookie is no user".to_owned(),
            (Identity::Anonymous, false) => "there is no user id".to_owned(),
        }
    }

    fn split_why(&self, decision: &Decision) -> String {
        let name = &self.release(decision.release).name;
        let Some(bucket) = decision.bucket else {
            return "there is no user id, so no bucket: stable".to_owned();
        };
        let range = self
            .split
            .by_bucket()
            .iter()
            .find(|r| (r.from..r.to).contains(&bucket.get()));
        let (from, to) = range.map_or((0, 0), |r| (r.from, r.to - 1));
        format!("bucket {} is in {name}'s range {from} to {to}", bucket.get())
    }

    /// Growth takes stable's lowest buckets first, so a bucket of stable enters when all below it are taken.
    fn entries(&self, bucket: Bucket) -> Vec<Entry> {
        let owner = self.split.owner(bucket);
        let stable = &self.release(self.stable).name;
        let others = self.releases.iter().map(|r| &r.name).filter(|name| *name != stable);
        others
            .map(|name| {
                let share = if owner == name {
                    self.taken_up_to(name, bucket)
                } else if owner == stable {
                    Some(self.split.weight(name).parts_per_million() + self.stable_below(bucket) + 1)
                } else {
                    None
                };
                Entry {
                    release: name.clone(),
                    share: share.and_then(Weight::new),
                    inside: owner == name,
                }
            })
            .collect()
    }

    fn stable_below(&self, bucket: Bucket) -> u32 {
        let stable = &self.release(self.stable).name;
        let own = self.split.by_bucket().iter().filter(|r| r.release == *stable);
        own.map(|r| r.to.min(bucket.get()).saturating_sub(r.from)).sum()
    }

    /// How much the release had when it took the bucket.
    fn taken_up_to(&self, release: &ReleaseName, bucket: Bucket) -> Option<u32> {
        let mut before = 0;
        for range in self.split.ranges().iter().filter(|r| r.release == *release) {
            if (range.from..range.to).contains(&bucket.get()) {
                return Some(before + bucket.get() - range.from + 1);
            }
            before += range.to - range.from;
        }
        None
    }
}

fn step(name: &str, matched: bool, why: &str) -> Step {
    Step {
        step: name.to_owned(),
        matched,
        why: why.to_owned(),
    }
}

fn target_why(target: &TargetSpec, met: bool, identity: &Identity, request: &impl Attributes) -> String {
    let nobody = identity.user().is_none();
    let release = &target.release;
    match (&target.users, &target.segment, &target.when) {
        (Some(_), ..) | (_, Some(_), _) if nobody => "there is no user id to look for".to_owned(),
        (Some(users), ..) if met => format!("the user is one of the {} listed for {release}", users.len()),
        (Some(users), ..) => format!("the user is none of the {} listed for {release}", users.len()),
        (None, Some(segment), _) if met => format!("the user is in segment {segment}"),
        (None, Some(segment), _) => format!("the user is not in segment {segment}"),
        (None, None, Some(when)) => when_why(when, met, request),
        (None, None, None) => String::new(),
    }
}

fn when_why(when: &When, met: bool, request: &impl Attributes) -> String {
    let (what, value) = attribute(when, request);
    let test = test(when);
    let value = value.map_or_else(|| "is not there".to_owned(), |value| format!("is {value:?}"));
    let verdict = if met { "meets" } else { "does not meet" };
    format!("{what} {value}, which {verdict} {test}")
}

fn attribute(when: &When, request: &impl Attributes) -> (String, Option<String>) {
    let text = |bytes: Option<&[u8]>| bytes.map(|b| String::from_utf8_lossy(b).into_owned());
    if let Some(name) = &when.header {
        let field = http::HeaderName::from_bytes(name.as_bytes()).ok();
        return (
            format!("header {name}"),
            field.and_then(|field| text(request.header(&field))),
        );
    }
    if let Some(name) = &when.cookie {
        return (format!("cookie {name}"), text(request.cookie(name)));
    }
    if let Some(name) = &when.query {
        return (format!("query parameter {name}"), text(request.query(name)));
    }
    if let Some(name) = &when.claim {
        let claims = request.claims();
        let values: Vec<&str> = claims.map(|c| c.values(name).collect()).unwrap_or_default();
        return (format!("claim {name}"), (!values.is_empty()).then(|| values.join(", ")));
    }
    if when.path.is_some() {
        return ("path".to_owned(), Some(request.path().to_owned()));
    }
    (
        "client address".to_owned(),
        request.client_ip().map(|ip| ip.to_string()),
    )
}

fn test(when: &When) -> String {
    let tests = [
        ("equals", &when.equals),
        ("prefix", &when.prefix),
        ("regex", &when.regex),
        ("semver", &when.semver),
        ("path", &when.path),
        ("cidr", &when.cidr),
    ];
    let written = tests
        .iter()
        .find_map(|(key, value)| Some(format!("{key} {:?}", value.as_deref()?)));
    written.unwrap_or_default()
}
