//! The retry budget of a pool: retries may add at most a fifth to its requests, and ten a second where there are
//! few, so that a failing pool is not hit by a storm of its own making. (Numbers: `notes/faults.md`, as Finagle and
//! linkerd have them.)

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::clock::Tick;

/// What one retry costs; a request earns a fifth of it.
const RETRY_COST: i64 = 5;
const REQUEST_EARNS: i64 = 1;
/// At most as much as is saved up: a hundred retries in one go.
const SAVED_MAX: i64 = 100 * RETRY_COST;
/// Retries a second that are always allowed.
const PER_SECOND: i64 = 10;

/// Counts what was earned and spent; shared by all requests of a pool.
#[derive(Debug, Default)]
pub struct RetryBudget {
    saved: AtomicI64,
    second: AtomicU64,
    spent_in_second: AtomicI64,
}

impl RetryBudget {
    /// A request began.
    pub fn earn(&self) {
        if self.saved.load(Ordering::Relaxed) < SAVED_MAX {
            self.saved.fetch_add(REQUEST_EARNS, Ordering::Relaxed);
        }
    }

    /// Whether one more retry may be made now; if so, it is paid for.
    pub fn spend(&self, now: Tick) -> bool {
        self.spend_allowance(now) || self.spend_saved()
    }

    fn spend_allowance(&self, now: Tick) -> bool {
        let second = now.millis() / 1000;
        if self.second.swap(second, Ordering::AcqRel) != second {
            self.spent_in_second.store(0, Ordering::Release);
        }
        self.spent_in_second.fetch_add(1, Ordering::AcqRel) < PER_SECOND
    }

    fn spend_saved(&self) -> bool {
        let enough = |saved: i64| (saved >= RETRY_COST).then_some(saved - RETRY_COST);
        self.saved
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, enough)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_traffic_ten_a_second_are_allowed() {
        let budget = RetryBudget::default();
        let allowed = |second: u64| {
            (0..100)
                .filter(|_| budget.spend(Tick::from_millis(second * 1000 + 1)))
                .count()
        };
        assert_eq!(allowed(1), 10);
        assert_eq!(allowed(2), 10);
    }

    #[test]
    fn traffic_earns_a_fifth_and_savings_are_bounded() {
        let budget = RetryBudget::default();
        for _ in 0..100 {
            budget.earn();
        }
        let now = Tick::from_millis(1);
        assert_eq!((0..100).filter(|_| budget.spend(now)).count(), 10 + 20);
        for _ in 0..1_000_000 {
            budget.earn();
        }
        assert_eq!((0..1000).filter(|_| budget.spend(now)).count(), 100);
    }
}
