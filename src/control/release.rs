//! A compiled rollout with what is looked up once for all its requests: counters and header values.

use std::sync::Arc;

use http::HeaderValue;

use super::seen::SeenUsers;
use super::snapshot::Surroundings;
use crate::rollout::{Decision, Reason, ReleaseName, Revision, RolloutSpec, Table};
use crate::telemetry::metrics::{self, ReleaseMetrics};

/// A rollout as requests see it.
#[derive(Clone)]
pub struct LiveRollout {
    pub(super) spec: Arc<RolloutSpec>,
    pub(super) revision: Revision,
    pub(super) table: Table,
    releases: Vec<LiveRelease>,
    seen: Arc<SeenUsers>,
}

#[derive(Clone)]
struct LiveRelease {
    name: ReleaseName,
    metrics: Arc<ReleaseMetrics>,
    /// `X-Rollout`, by reason.
    stamps: Arc<[HeaderValue; Reason::ALL.len()]>,
}

impl LiveRollout {
    /// From a compiled spec. What is counted and who was seen goes on from `before`.
    pub(super) fn new(
        spec: Arc<RolloutSpec>,
        table: Table,
        revision: Revision,
        before: Option<&Self>,
        around: &Surroundings,
    ) -> Self {
        let routes: Vec<&str> = around.routes.iter().map(String::as_str).collect();
        let rollout = table.name().as_str();
        let metrics_of = |name: &ReleaseName| {
            let known = before.and_then(|b| b.releases.iter().find(|r| r.name == *name));
            known.map_or_else(
                || Arc::new(ReleaseMetrics::new(rollout, name.as_str(), &routes)),
                |known| Arc::clone(&known.metrics),
            )
        };
        let releases = table
            .releases()
            .iter()
            .map(|release| LiveRelease {
                name: release.name.clone(),
                metrics: metrics_of(&release.name),
                stamps: stamps(rollout, &release.name, revision),
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
            table,
            releases,
            seen,
        }
    }

    /// The same rollout at another revision.
    pub(super) fn restamp(&mut self, revision: Revision) {
        self.revision = revision;
        let rollout = self.table.name().as_str().to_owned();
        for release in &mut self.releases {
            release.stamps = stamps(&rollout, &release.name, revision);
        }
    }

    /// Shows the shares in the metrics.
    pub(super) fn show_weights(&self) {
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

fn stamps(rollout: &str, release: &ReleaseName, revision: Revision) -> Arc<[HeaderValue; Reason::ALL.len()]> {
    Arc::new(Reason::ALL.map(|reason| {
        let text = format!("{rollout}={release}; rev={}; reason={}", revision.0, reason.as_str());
        // Names are made of letters, digits, `.`, `_` and `-`, so the text is a valid header value.
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }))
}
