//! All pools of the process, by name and by number.

use std::sync::Arc;

use thiserror::Error;

use super::connect_proxy::{ConnectProxy, ProxyEnvironment, ProxyUrlError};
use super::kept::Room;
use super::pool::{Pool, PoolStatus};
use super::resolve::Directory;
use super::settings::{PoolSettings, ProxySetting};
use super::tls::{TlsFileError, TlsMaterial};
use crate::clock;
use crate::rollout::{PoolIdx, PoolName};

/// All pools; fixed for the life of the process.
pub struct Pools {
    pools: Vec<Arc<Pool>>,
    directories: Vec<Directory>,
}

/// Why the pools cannot be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// A TLS file of a pool.
    #[error("pool {pool}: {cause}")]
    Tls {
        /// The pool.
        pool: PoolName,
        /// What is wrong.
        cause: TlsFileError,
    },
    /// The proxy URL of a pool.
    #[error("pool {pool}: connections.proxy: {cause}")]
    Proxy {
        /// The pool.
        pool: PoolName,
        /// What is wrong.
        cause: ProxyUrlError,
    },
    /// A proxy variable of the environment.
    #[error("environment variable {variable}: {cause}")]
    Environment {
        /// The variable.
        variable: &'static str,
        /// What is wrong.
        cause: ProxyUrlError,
    },
}

impl Pools {
    /// Builds every pool, with the endpoints whose addresses are written; names are resolved by
    /// [`Upkeep`](super::Upkeep). `var` reads the environment.
    ///
    /// # Errors
    /// When a TLS file or a proxy URL cannot be used.
    pub fn build(settings: Vec<PoolSettings>, var: &dyn Fn(&str) -> Option<String>) -> Result<Self, BuildError> {
        let environment =
            ProxyEnvironment::read(var).map_err(|(variable, cause)| BuildError::Environment { variable, cause })?;
        // It is the same in every pool.
        let room = Room::new(settings.first().map_or(0, |pool| pool.connections.max_idle));
        let mut built = Self {
            pools: Vec::with_capacity(settings.len()),
            directories: Vec::with_capacity(settings.len()),
        };
        for (number, settings) in (0u32..).zip(settings) {
            built.add(number, settings, &room, &environment)?;
        }
        Ok(built)
    }

    fn add(
        &mut self,
        number: u32,
        settings: PoolSettings,
        room: &Arc<Room>,
        environment: &ProxyEnvironment,
    ) -> Result<(), BuildError> {
        let name = settings.name.clone();
        let tls = match &settings.tls {
            Some(tls) => TlsMaterial::load(tls).map_err(|cause| BuildError::Tls {
                pool: name.clone(),
                cause,
            })?,
            None => TlsMaterial::default(),
        };
        let own = match &settings.connections.proxy {
            ProxySetting::Url(url) => {
                Some(ConnectProxy::parse(url).map_err(|cause| BuildError::Proxy { pool: name, cause })?)
            }
            ProxySetting::Environment | ProxySetting::None => None,
        };
        let by_environment = settings.connections.proxy == ProxySetting::Environment;
        let secure = settings.tls.is_some();
        let proxy_for = |host: &str, port: u16| match &own {
            Some(proxy) => Some(proxy.clone()),
            None if by_environment => environment.for_target(secure, host, port).cloned(),
            None => None,
        };
        let pool = Arc::new(Pool::new(settings));
        let directory = Directory::new(Arc::clone(&pool), number, tls, room, &proxy_for);
        directory.publish();
        self.pools.push(pool);
        self.directories.push(directory);
        Ok(())
    }

    /// The number of a pool, as tables and routes keep it.
    pub fn index(&self, name: &PoolName) -> Option<PoolIdx> {
        let place = self.pools.iter().position(|p| p.name() == name)?;
        u16::try_from(place).ok().map(PoolIdx)
    }

    /// The pool with that number; the number came from [`Pools::index`] of the same object.
    pub fn get(&self, index: PoolIdx) -> &Arc<Pool> {
        &self.pools[usize::from(index.0)]
    }

    /// All of them, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.pools.iter()
    }

    /// Whether a request to that pool would find an endpoint now.
    pub fn any_available(&self, index: PoolIdx) -> bool {
        self.get(index).any_available(clock::tick())
    }

    /// For the status page.
    pub fn status(&self) -> Vec<PoolStatus> {
        self.pools.iter().map(|p| p.status()).collect()
    }

    pub(super) fn directories(&self) -> &[Directory] {
        &self.directories
    }
}
