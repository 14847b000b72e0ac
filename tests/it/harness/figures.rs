//! What is measured of the running program.

use std::time::Instant;

use super::{PATIENCE, Proxy};

/// Whether the long forms are asked for (`make stream`, `make websockets`, `make sticky`).
pub fn long() -> bool {
    std::env::var_os("SWITCHYARD_LONG").is_some()
}

impl Proxy {
    /// The sum of all series of a family that carry all of these labels, written as `name="value"`.
    pub fn metric(&self, family: &str, labels: &[&str]) -> f64 {
        let text = self.metrics();
        let lines = text.lines().filter(|line| {
            let rest = line.strip_prefix(family).unwrap_or_default();
            rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label))
        });
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Asks for a metric until it has this value.
    pub fn wait_metric(&self, family: &str, labels: &[&str], expected: f64) {
        let since = Instant::now();
        while self.metric(family, labels) != expected {
            assert!(
                since.elapsed() < PATIENCE,
                "{family} is not {expected}:\n{}",
                self.metrics()
            );
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        let listed = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs");
        listed.count()
    }

    /// A row of /proc/PID/status, in KiB.
    pub fn memory_kib(&self, row: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(row)?.strip_prefix(':'));
        let figure = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        figure.expect("a figure")
    }
}
