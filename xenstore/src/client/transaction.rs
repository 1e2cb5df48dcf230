//! Transactions: reads and writes that happen at once or not at all.

use std::marker::PhantomData;

use crate::{Error, Permission, Result};

/// A transaction under way: the same requests as [`Client`](crate::Client), seen by others only after the
/// commit.
#[derive(Debug)]
pub struct Transaction<'a> {
    client: PhantomData<&'a ()>,
}

impl Transaction<'_> {
    /// As [`Client::read`](crate::Client::read).
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let _ = path;
        Err(Error::Disconnected)
    }

    /// As [`Client::read_string`](crate::Client::read_string).
    pub fn read_string(&self, path: &str) -> Result<String> {
        let _ = path;
        Err(Error::Disconnected)
    }

    /// As [`Client::write`](crate::Client::write).
    pub fn write(&self, path: &str, value: impl AsRef<[u8]>) -> Result<()> {
        let _ = (path, value);
        Err(Error::Disconnected)
    }

    /// As [`Client::mkdir`](crate::Client::mkdir).
    pub fn mkdir(&self, path: &str) -> Result<()> {
        let _ = path;
        Err(Error::Disconnected)
    }

    /// As [`Client::remove`](crate::Client::remove).
    pub fn remove(&self, path: &str) -> Result<()> {
        let _ = path;
        Err(Error::Disconnected)
    }

    /// As [`Client::directory`](crate::Client::directory).
    pub fn directory(&self, path: &str) -> Result<Vec<String>> {
        let _ = path;
        Err(Error::Disconnected)
    }

    /// As [`Client::permissions`](crate::Client::permissions).
    pub fn permissions(&self, path: &str) -> Result<Vec<Permission>> {
        let _ = path;
        Err(Error::Disconnected)
    }

    /// As [`Client::set_permissions`](crate::Client::set_permissions).
    pub fn set_permissions(&self, path: &str, permissions: &[Permission]) -> Result<()> {
        let _ = (path, permissions);
        Err(Error::Disconnected)
    }
}
