//! All series of one metric, by the values of their labels.
//!
//! The `prometheus` crate's own families know a series by a hash of its joined label values: `("a", "bc")` and
//! `("ab", "c")` are one to them. Here names come from users, so the values themselves are the key.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use prometheus::core::{Collector, Desc, Metric};
use prometheus::proto::{LabelPair, MetricFamily, MetricType};

use super::names::Family;

/// The series of `family`, each with a value of its own.
#[derive(Clone)]
pub(super) struct Series<V> {
    family: &'static Family,
    kind: MetricType,
    desc: Desc,
    new_value: fn() -> V,
    values: Arc<RwLock<HashMap<Vec<String>, V>>>,
}

impl<V: Metric> Series<V> {
    pub(super) fn new(family: &'static Family, kind: MetricType, new_value: fn() -> V) -> prometheus::Result<Self> {
        let labels = family.labels.iter().map(|&label| label.to_owned()).collect();
        Ok(Self {
            family,
            kind,
            desc: Desc::new(family.name.to_owned(), family.help.to_owned(), labels, HashMap::new())?,
            new_value,
            values: Arc::default(),
        })
    }

    /// The value of one series, which begins with the first call. `labels` are in the order of the family's.
    pub(super) fn with(&self, labels: &[&str]) -> V {
        debug_assert_eq!(labels.len(), self.family.labels.len());
        let key: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
        if let Some(value) = self.values.read().get(&key) {
            return value.clone();
        }
        self.values.write().entry(key).or_insert_with(self.new_value).clone()
    }

    /// Removes the series that have all of `labels`, given with their names. A value that is still held counts on,
    /// unseen.
    pub(super) fn forget(&self, labels: &[(&str, &str)]) {
        let names = self.family.labels;
        self.values.write().retain(|key, _| {
            let has = |label: &(&str, &str)| {
                names
                    .iter()
                    .zip(key)
                    .any(|(&name, value)| (name, value.as_str()) == *label)
            };
            !labels.iter().all(has)
        });
    }

    /// Removes every series.
    pub(super) fn clear(&self) {
        self.values.write().clear();
    }

    fn label_pairs(&self, key: &[String]) -> Vec<LabelPair> {
        let pair = |(&name, value): (&&str, &String)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(value.clone());
            pair
        };
        let mut pairs: Vec<_> = self.family.labels.iter().zip(key).map(pair).collect();
        pairs.sort_by(|one, other| one.name().cmp(other.name()));
        pairs
    }
}

impl<V: Metric> Collector for Series<V> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let values = self.values.read();
        let metrics = values.iter().map(|(key, value)| {
            let mut metric = value.metric();
            metric.set_label(self.label_pairs(key));
            metric
        });
        let mut family = MetricFamily::default();
        family.set_name(self.family.name.to_owned());
        family.set_help(self.family.help.to_owned());
        family.set_field_type(self.kind);
        family.set_metric(metrics.collect());
        vec![family]
    }
}
