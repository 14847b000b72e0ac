//! A compiled rollout with what is looked up once for all its requests: counters and header values.

use std::sync::{Arc, LazyLock};

use http::HeaderValue;

use super::seen::SeenUsers;
use super::snapshot::Surroundings;
use crate::rollout::{Decision, Reason, ReleaseName, Revision, RolloutSpec, Table};
use crate::telemetry::metrics::{self, ReleaseMetrics};

type MakeMetrics = Box<dyn FnOnce() -> ReleaseMetrics + Send + Sync>;

/// A rollout as requests see it.
#[derive(Clone)]
pub struct LiveRollout {
    pub(super) spec: Arc<RolloutSpec>,
    pub(super) revision: Revision,
    /// Also of the last change of a segment that its targets name.
    as_of: Revision,
    pub(super) table: Table,
    releases: Vec<LiveRelease>,
    seen: Arc<SeenUsers>,
}

#[derive(Clone)]
struct LiveRelease {
    name: ReleaseName,
    /// Made when it is published, so that a candidate which is only tried leaves no series behind.
    metrics: Arc<LazyLock<ReleaseMetrics, MakeMetrics>>,
    /// `X-Rollout`, by reason.
    stamps: Arc<[HeaderValue; Reason::ALL.len()]>,
}

impl LiveRollout {
    /// From a compiled spec, whose segments last changed at `segments`. What is counted and who was seen goes on from
    /// `before`.
    pub(super) fn new(
        spec: Arc<RolloutSpec>,
        table: Table,
        (revision, segments): (Revision, Revision),
        before: Option<&Self>,
        around: &Surroundings,
    ) -> Self {
        let as_of = revision.max(segments);
        let rollout = table.name().as_str();
        let routes = around.routes.get(table.name()).map_or(&[][..], Vec::as_slice);
        let metrics_of = |name: &ReleaseName| {
            let known = before.and_then(|b| b.releases.iter().find(|r| r.name == *name));
            known.map_or_else(
                || Arc::new(LazyLock::new(metrics_later(rollout, name, routes))),
                |known| Arc::clone(&known.metrics),
            )
        };
        let releases = table
            .releases()
            .iter()
            .map(|release| LiveRelease {
                name: release.name.clone(),
                metrics: metrics_of(&release.name),
                stamps: stamps(rollout, &release.name, as_of),
            })
            .collect();
        // Numbers of releases or buckets may have changed with the spec: then what was seen by the old ones is nothing.
        let same = before.filter(|b| b.table.same_buckets(&table)).filter(|b| {
            b.releases
                .iter()
                .map(|r| &r.name)
                .eq(table.releases().iter().map(|r| &r.name))
        });
        let seen = same.map_or_else(SeenUsers::new, |b| Arc::clone(&b.seen));
        Self {
            spec,
            revision,
            as_of,
            table,
            releases,
            seen,
        }
    }

    /// The same rollout at another revision.
    pub(super) fn restamp(&mut self, revision: Revision) {
        self.revision = revision;
        self.touch(revision);
    }

    /// The same rollout with members of a segment that changed at a revision.
    pub(super) fn touch(&mut self, revision: Revision) {
        if revision <= self.as_of {
            return;
        }
        self.as_of = revision;
        let rollout = self.table.name().as_str().to_owned();
        for release in &mut self.releases {
            release.stamps = stamps(&rollout, &release.name, revision);
        }
    }

    /// Shows itself in the metrics: its counters and its shares.
    pub(super) fn show(&self) {
        for release in &self.releases {
            LazyLock::force(&release.metrics);
        }
        for (release, weight) in self.table.weights() {
            metrics::set_rollout_weight(self.table.name().as_str(), release.as_str(), weight.parts_per_million());
        }
    }

    /// The compiled rollout.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// What it was compiled from, without single users.
    #[must_use]
    pub fn spec(&self) -> &RolloutSpec {
        &self.spec
    }

    /// The revision of the last change to it.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The revision of the last change to it, or to a segment that its targets name: what `X-Rollout` says.
    #[must_use]
    pub fn as_of(&self) -> Revision {
        self.as_of
    }

    /// Users seen lately.
    #[must_use]
    pub fn seen(&self) -> &SeenUsers {
        &self.seen
    }

    /// The metrics of the decided release.
    #[must_use]
    pub fn metrics(&self, decision: &Decision) -> &ReleaseMetrics {
        &self.releases[usize::from(decision.release.0)].metrics
    }

    /// The value of `X-Rollout` for that decision.
    #[must_use]
    pub fn stamp(&self, decision: &Decision) -> &HeaderValue {
        &self.releases[usize::from(decision.release.0)].stamps[decision.reason.index()]
    }
}

fn metrics_later(rollout: &str, release: &ReleaseName, routes: &[String]) -> MakeMetrics {
    let (rollout, release, routes) = (rollout.to_owned(), release.clone(), routes.to_vec());
    Box::new(move || {
        let routes: Vec<&str> = routes.iter().map(String::as_str).collect();
        ReleaseMetrics::new(&rollout, release.as_str(), &routes)
    })
}

fn stamps(rollout: &str, release: &ReleaseName, revision: Revision) -> Arc<[HeaderValue; Reason::ALL.len()]> {
    Arc::new(Reason::ALL.map(|reason| {
        let text = format!("{rollout}={release}; rev={}; reason={}", revision.0, reason.as_str());
        // Names are made of letters, digits, `.`, `_` and `-`, so the text is a valid header value.
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }))
}
