//! Brings the keys that tokens are checked with: from files, read again when they change, and from URLs, fetched now
//! and then. What cannot be had or used changes nothing: the keys from before stay in use, and that is said once.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use log::{error, info, warn};
use pingora::server::{Server, ShutdownWatch};
use pingora::services::background::{BackgroundService, background_service};
use tokio::task::{JoinSet, spawn_blocking};
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

use super::stamp::{LOOK_EACH, Stamp};
use super::start::StartError;
use crate::identity::jwt::{KeySet, Keys, OnInvalid, TokenSource};
use crate::telemetry::{metrics, targets};

/// The largest set that is read; providers have some KiB.
const SET_BYTES_MAX: u64 = 256 * 1024;
const REDIRECTS_MAX: u32 = 3;
/// After a failed fetch; doubled with each further one, up to the usual pause.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Looks after the keys of all sources of tokens.
pub struct KeyFeeds(Vec<Arc<Feed>>);

/// Where one source has its keys from.
struct Feed {
    source: Arc<TokenSource>,
    place: Place,
}

enum Place {
    File(PathBuf),
    Url {
        url: String,
        agent: Agent,
        refresh: Duration,
    },
}

/// What came of an attempt.
struct Brought {
    count: usize,
    changed: bool,
}

/// How the last attempts of a feed went.
#[derive(Debug, Default)]
struct Course {
    failures: u32,
    said: Option<String>,
}

impl KeyFeeds {
    /// Brings the first keys. Those of a URL may come later, unless `must` says that they are needed now: then a running
    /// process has them, and is not to be replaced by one without.
    ///
    /// # Errors
    /// When a file has no keys, or a URL that must.
    pub fn open<'a>(sources: impl Iterator<Item = &'a Arc<TokenSource>>, must: bool) -> Result<Self, StartError> {
        let mut feeds = Vec::new();
        for source in sources {
            let feed = Feed::of(source);
            match (feed.bring(), &feed.place) {
                (Ok(brought), _) => info!(target: targets::SERVER, "keys of {}: {}", feed.name(), brought.count),
                (Err(why), Place::Url { .. }) if !must => {
                    metrics::keys_failed();
                    let then = match source.settings().on_invalid {
                        OnInvalid::Reject => "answered 503",
                        OnInvalid::Anonymous => "nobody's",
                    };
                    warn!(
                        target: targets::SERVER,
                        "no keys of {} yet: {why}; requests with a token are {then} until they come", feed.name()
                    );
                }
                (Err(why), _) => return Err(StartError::Keys(feed.name().to_owned(), why)),
            }
            feeds.push(Arc::new(feed));
        }
        Ok(Self(feeds))
    }

    /// Has the server look after them, if there are any.
    pub fn follow(self, server: &mut Server) {
        if !self.0.is_empty() {
            server.add_service(background_service("keys", self));
        }
    }
}

impl Feed {
    fn of(source: &Arc<TokenSource>) -> Self {
        let place = match &source.settings().keys {
            Keys::File(path) => Place::File(path.clone()),
            Keys::Url { url, refresh, timeout } => Place::Url {
                url: url.clone(),
                agent: agent(url, *timeout),
                refresh: *refresh,
            },
        };
        Self {
            source: Arc::clone(source),
            place,
        }
    }

    /// For people; without the query of a URL, which may hold a secret.
    fn name(&self) -> &str {
        match &self.place {
            Place::File(path) => path.to_str().unwrap_or("the file of keys"),
            Place::Url { url, .. } => url.split(['?', '#']).next().unwrap_or_default(),
        }
    }

    /// Has the source take what is there now. Blocks.
    fn bring(&self) -> Result<Brought, String> {
        let text = match &self.place {
            Place::File(path) => read(path)?,
            Place::Url { url, agent, .. } => fetch(agent, url)?,
        };
        let keys = KeySet::read(&text, self.source.settings()).map_err(|e| e.to_string())?;
        Ok(Brought {
            count: keys.count(),
            changed: self.source.take(keys),
        })
    }

    async fn follow(self: Arc<Self>) {
        let mut course = Course {
            failures: u32::from(!self.source.has_keys()),
            said: None,
        };
        match &self.place {
            Place::File(path) => {
                let mut seen = Stamp::of(path);
                // What changed between the first reading and this look is read by the first turn.
                let mut first = true;
                loop {
                    tokio::time::sleep(LOOK_EACH).await;
                    let now = Stamp::of(path);
                    if now != seen || std::mem::take(&mut first) {
                        seen = now;
                        self.again(&mut course).await;
                    }
                }
            }
            Place::Url { refresh, .. } => loop {
                tokio::time::sleep(course.pause(*refresh)).await;
                self.again(&mut course).await;
            },
        }
    }

    async fn again(self: &Arc<Self>, course: &mut Course) {
        let own = Arc::clone(self);
        let brought = spawn_blocking(move || own.bring()).await;
        let brought = brought.unwrap_or_else(|e| Err(e.to_string()));
        match &brought {
            Ok(brought) if brought.changed => {
                info!(target: targets::SERVER, "keys of {} changed: {}", self.name(), brought.count);
            }
            Ok(_) => {}
            Err(_) => metrics::keys_failed(),
        }
        if let Some(news) = course.went(brought.map(|brought| brought.count)) {
            match news {
                Ok(count) => info!(target: targets::SERVER, "keys of {} are there again: {count}", self.name()),
                Err(why) => {
                    let then = if self.source.has_keys() {
                        "the keys from before stay in use"
                    } else {
                        "there are none"
                    };
                    error!(target: targets::SERVER, "{}: {why}; {then}", self.name());
                }
            }
        }
    }
}

impl Course {
    /// How long to wait until the next attempt.
    fn pause(&self, usual: Duration) -> Duration {
        match self.failures {
            0 => usual,
            times => FIRST_PAUSE.saturating_mul(1 << (times - 1).min(16)).min(usual),
        }
    }

    /// Takes the outcome of an attempt; what of it is to be said, because it was not said before.
    fn went(&mut self, brought: Result<usize, String>) -> Option<Result<usize, String>> {
        match brought {
            Ok(count) => {
                let failed = self.failures > 0;
                *self = Self::default();
                failed.then_some(Ok(count))
            }
            Err(why) => {
                self.failures = self.failures.saturating_add(1);
                if self.said.as_deref() == Some(why.as_str()) {
                    return None;
                }
                self.said = Some(why.clone());
                Some(Err(why))
            }
        }
    }
}

#[async_trait]
impl BackgroundService for KeyFeeds {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut following: JoinSet<()> = self.0.iter().map(|feed| Arc::clone(feed).follow()).collect();
        tokio::select! {
            // An error means that the server is gone, which ends it too.
            _ = shutdown.wait_for(|over| *over) => {}
            // None of them ends by itself.
            () = async { while following.join_next().await.is_some() {} } => {}
        }
    }
}

fn agent(url: &str, timeout: Duration) -> Agent {
    let config = Agent::config_builder()
        .user_agent(concat!("switchyard/", env!("CARGO_PKG_VERSION")))
        .timeout_global(Some(timeout))
        .max_redirects(REDIRECTS_MAX)
        // A redirect to clear text would give up what the URL asks for.
        .https_only(url.starts_with("https:"))
        .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build());
    config.build().new_agent()
}

fn fetch(agent: &Agent, url: &str) -> Result<Vec<u8>, String> {
    let answer = agent.get(url).call().map_err(|e| e.to_string())?;
    bounded(answer.into_body().into_reader())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    bounded(file)
}

fn bounded(from: impl Read) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let most = from
        .take(SET_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .map_err(|e| e.to_string())?;
    if most as u64 > SET_BYTES_MAX {
        return Err(format!("is larger than {SET_BYTES_MAX} bytes"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_said_once_and_tried_again_later_and_later() {
        let usual = Duration::from_secs(10);
        let mut course = Course::default();
        assert_eq!(course.pause(usual), usual);
        let refused = || Err("refused".to_owned());
        assert_eq!(course.went(refused()), Some(refused()));
        assert_eq!(course.pause(usual), Duration::from_secs(1));
        assert_eq!(course.went(refused()), None);
        assert_eq!(course.pause(usual), Duration::from_secs(2));
        let bad = || Err("is bad".to_owned());
        assert_eq!(course.went(bad()), Some(bad()));
        for _ in 0..100 {
            assert_eq!(course.went(bad()), None);
        }
        assert_eq!(course.pause(usual), usual);
        assert_eq!(course.went(Ok(2)), Some(Ok(2)));
        assert_eq!(course.went(Ok(2)), None);
        assert_eq!(course.pause(usual), usual);
    }

    #[test]
    fn a_set_without_end_is_not_read_to_its_end() {
        assert!(bounded(std::io::repeat(b' ')).is_err());
        let most = usize::try_from(SET_BYTES_MAX).expect("fits");
        assert_eq!(bounded(vec![b' '; most].as_slice()).map(|text| text.len()), Ok(most));
    }
}
