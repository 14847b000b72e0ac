//! Which rollouts routes lead to, and which routes lead to each.

use std::collections::HashMap;

use crate::control::Slot;
use crate::proxy::settings::{RouteSettings, RouteTarget};
use crate::rollout::RolloutName;

/// The rollouts that routes select, each once.
pub(super) struct Slots {
    /// In the order of their slots.
    pub(super) names: Vec<RolloutName>,
    /// The routes of each.
    pub(super) routes: HashMap<RolloutName, Vec<String>>,
    numbers: HashMap<RolloutName, Slot>,
}

impl Slots {
    pub(super) fn of(routes: &[RouteSettings]) -> Self {
        let mut slots = Self {
            names: Vec::new(),
            routes: HashMap::new(),
            numbers: HashMap::new(),
        };
        for route in routes {
            if let RouteTarget::Rollout(name) = &route.to {
                slots.add(name, route.id.to_string());
            }
        }
        slots
    }

    fn add(&mut self, name: &RolloutName, route: String) {
        if !self.numbers.contains_key(name) {
            let next = u16::try_from(self.names.len()).unwrap_or(u16::MAX);
            self.numbers.insert(name.clone(), Slot(next));
            self.names.push(name.clone());
        }
        self.routes.entry(name.clone()).or_default().push(route);
    }

    /// The slot of a rollout that a route selects.
    pub(super) fn slot(&self, name: &RolloutName) -> Slot {
        self.numbers.get(name).copied().unwrap_or(Slot(u16::MAX))
    }
}
