//! The simulation (work in progress).
use std::path::Path;

use crate::{
    Access, Backend, Copier, Counted, DomId, Error, EventChannel, Frontend, GrantRef, Mapping, Port, Shared,
    Statistics,
};

/// Keeps the domains.
pub struct Broker(());

impl Broker {
    /// Starts a broker on `dir`.
    ///
    /// # Errors
    /// None yet.
    pub fn start(_dir: &Path) -> Result<Self, Error> {
        Err(Error::Disconnected)
    }
}

/// One domain's handle.
pub struct Sim {
    domain: DomId,
}

/// Connects as `domain`.
///
/// # Errors
/// [`Error::Disconnected`].
pub fn connect(dir: &Path, domain: DomId) -> Result<Sim, Error> {
    std::fs::metadata(dir).map_err(Error::system("looking for the broker"))?;
    Ok(Sim { domain })
}

impl Counted for Sim {
    fn statistics(&self) -> Statistics {
        Statistics::default()
    }
}

impl Backend for Sim {
    fn map(&self, _: DomId, _: &[GrantRef]) -> Result<Mapping, Error> {
        Err(Error::Disconnected)
    }
    fn copier(&self, _: DomId) -> Result<Box<dyn Copier>, Error> {
        Err(Error::Disconnected)
    }
    fn bind(&self, _: DomId, _: Port) -> Result<Box<dyn EventChannel>, Error> {
        Err(Error::Disconnected)
    }
}

impl Frontend for Sim {
    fn domain(&self) -> DomId {
        self.domain
    }
    fn share(&self, _: DomId, _: usize, _: Access) -> Result<Shared, Error> {
        Err(Error::Disconnected)
    }
    fn allocate(&self, _: DomId) -> Result<Box<dyn EventChannel>, Error> {
        Err(Error::Disconnected)
    }
}
