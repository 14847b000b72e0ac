//! Makes committed changes live, one snapshot for each revision, in order. The follower does it; who has just committed a
//! change does it at once, where it is the next: the follower's thread may wait for its turn on a busy core.

use std::sync::Arc;

use log::error;

use super::apply::{Opened, opened};
use super::live::{Live, Turn};
use super::snapshot::Snapshot;
use crate::store::{Committed, Store};
use crate::telemetry::targets;

/// Publishes a committed change, unless that was done.
pub(super) async fn follow(store: &Arc<dyn Store>, live: &Live, committed: &Committed) {
    let mut turn = live.turn().await;
    if committed.revision > live.pin().revision() {
        publish(store, &mut turn, committed).await;
    }
}

/// Publishes a change that was just committed, if nothing before it is to be published first.
pub(super) async fn hasten(store: &Arc<dyn Store>, live: &Live, committed: &Committed) {
    let mut turn = live.turn().await;
    if committed.revision.0 == live.pin().revision().0 + 1 {
        publish(store, &mut turn, committed).await;
    }
}

/// Publishes a state that was loaded, unless requests see a later one by now.
pub(super) async fn replace(live: &Live, loaded: Snapshot) {
    let mut turn = live.turn().await;
    if loaded.revision() >= live.pin().revision() {
        turn.publish(loaded);
    }
}

async fn publish(store: &Arc<dyn Store>, turn: &mut Turn<'_>, committed: &Committed) {
    let revision = committed.revision.0;
    let opened = opened(store, &committed.facts).await.unwrap_or_else(|e| {
        error!(target: targets::CONTROL, "revision {revision}: {e}: the segment stays as it was");
        Opened::new()
    });
    let live = turn.live();
    let mut next = Snapshot::clone(&live.pin());
    for p in next.apply(committed.revision, &committed.facts, &opened, live.around()) {
        error!(
            target: targets::CONTROL,
            "revision {revision}: rollout {}: {}: {}: this rollout stays as it was",
            p.rollout, p.problem.path, p.problem.message
        );
    }
    turn.publish(next);
}
