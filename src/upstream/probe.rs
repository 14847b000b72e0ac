//! Active health checks: Pingora's probes, driven for each endpoint on its own, so that a slow endpoint delays no
//! other one's verdict.

use std::sync::Arc;

use pingora::Result;
use pingora::upstreams::peer::HttpPeer;
use pingora_load_balancing::Backend;
use pingora_load_balancing::health_check::{HealthCheck as Probing, HttpHealthCheck, TcpHealthCheck};

use super::endpoint::{Endpoint, PeerUse};
use super::pool::Pool;
use super::settings::{HealthCheck, Probe};

/// Probes one endpoint; keeps what is to be remembered between two probes.
pub struct Prober {
    settings: HealthCheck,
    probing: Box<dyn Probing + Send + Sync>,
    backend: Backend,
    streak: Streak,
}

/// Equal verdicts in a row.
#[derive(Debug, Default, Clone, Copy)]
struct Streak {
    passed: bool,
    length: u32,
}

impl Prober {
    pub fn new(settings: &HealthCheck, endpoint: &Arc<Endpoint>) -> Result<Self> {
        let backend = Backend {
            addr: endpoint.address().into(),
            weight: 1,
            ext: http::Extensions::new(),
        };
        let mut peer = *endpoint.probe_peer(PeerUse::Request);
        peer.options.read_timeout = Some(settings.timeout);
        Ok(Self {
            probing: probing(settings, endpoint.label(), peer)?,
            settings: settings.clone(),
            backend,
            streak: Streak::default(),
        })
    }

    /// One probe, and what follows from it.
    pub async fn probe(&mut self, pool: &Pool, endpoint: &Endpoint) {
        let probe = tokio::time::timeout(self.settings.timeout, self.probing.check(&self.backend));
        let verdict = match probe.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(e.to_string()),
            Err(_) => Err(format!("no answer within {:?}", self.settings.timeout)),
        };
        let passed = verdict.is_ok();
        self.streak = self.streak.then(passed);
        let needed = if passed {
            self.settings.healthy_after
        } else {
            self.settings.unhealthy_after
        };
        if self.streak.length >= needed.get() {
            pool.set_healthy(endpoint, passed, verdict.err().as_deref().unwrap_or_default());
        }
    }
}

impl Streak {
    fn then(self, passed: bool) -> Self {
        let length = if passed == self.passed { self.length } else { 0 };
        Self {
            passed,
            length: length.saturating_add(1),
        }
    }
}

fn probing(settings: &HealthCheck, label: &str, peer: HttpPeer) -> Result<Box<dyn Probing + Send + Sync>> {
    match &settings.probe {
        Probe::Tcp => {
            let mut tcp = TcpHealthCheck::default();
            tcp.peer_template.options = peer.options;
            tcp.peer_template.sni = peer.sni;
            Ok(Box::new(tcp))
        }
        Probe::Http { path, host } => {
            let mut check = HttpHealthCheck::new(host.as_deref().unwrap_or(label), peer.is_tls());
            check.req.set_raw_path(path.as_bytes())?;
            check.req.insert_header("User-Agent", "switchyard-health-check")?;
            check.peer_template = peer;
            check.validator = Some(Box::new(|head| {
                if head.status.is_success() {
                    Ok(())
                } else {
                    let status = head.status.as_u16();
                    pingora::Error::e_explain(
                        pingora::ErrorType::HTTPStatus(status),
                        format!("the health check was answered {status}, not 2xx"),
                    )
                }
            }));
            Ok(Box::new(check))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_streak_starts_anew_when_the_verdict_turns() {
        let lengths: Vec<u32> = [true, true, false, false, true]
            .iter()
            .scan(Streak::default(), |streak, passed| {
                *streak = streak.then(*passed);
                Some(streak.length)
            })
            .collect();
        assert_eq!(lengths, [1, 2, 1, 2, 1]);
    }
}
