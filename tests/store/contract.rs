//! What every store does. Each behaviour is proved for each kind of store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use switchyard::rollout::{Fact, Moment, Revision, UserEntry};
use switchyard::store::{
    Answered, CommitError, EmbeddedStore, Event, Expired, HistoryQuery, MemoryStore, Store, StoreError, USERS_IN_A_FACT,
};

use crate::dice::Dice;
use crate::embedded::Folder;
use crate::make::{
    asked, commit, commit_at, delete, group, load, must, next, now, pin, pins, put, release, rollout, scheduled,
    segment,
};
use crate::model::Model;

macro_rules! each_store {
    ($($name:ident)*) => {$(
        mod $name {
            #[tokio::test]
            async fn in_memory() {
                super::prove::$name(std::sync::Arc::new(switchyard::store::MemoryStore::new())).await;
            }

            #[tokio::test]
            async fn embedded() {
                let folder = crate::embedded::Folder::new();
                super::prove::$name(std::sync::Arc::new(folder.open())).await;
            }
        }
    )*};
}

each_store! {
    a_commit_at_an_old_revision_is_refused_and_leaves_nothing
}

mod prove {
    use super::*;

    pub async fn a_commit_at_an_old_revision_is_refused_and_leaves_nothing(store: Arc<dyn Store>) {
        let mut watch = store.watch(Revision(0));
        must(&*store, 0, vec![put("search", "1")]).await;
        let late = store.commit(Revision(0), commit(vec![put("search", "2")])).await;
        assert!(matches!(late, Err(CommitError::Moved(Revision(1)))), "{late:?}");
        let early = store.commit(Revision(7), commit(vec![put("search", "2")])).await;
        assert!(matches!(early, Err(CommitError::Moved(Revision(1)))), "{early:?}");
        assert_eq!(load(&*store).await, (Revision(1), vec![put("search", "1")]));
        assert_eq!(*next(&mut watch).await.facts, vec![put("search", "1")]);
        assert_eq!(must(&*store, 1, vec![put("search", "2")]).await.revision, Revision(2));
        assert_eq!(next(&mut watch).await.revision, Revision(2));
    }
}
