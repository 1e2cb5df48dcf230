//! The requests a client and a transaction have in common: one encoding, whatever carries them.

use super::reply;
use crate::path;
use crate::wire::{Kind, PAYLOAD_MAX};
use crate::{Error, Permission, Result};

/// Something requests about nodes can be asked of.
pub(super) trait Ask {
    /// The answer's payload to a request of `kind` about `path`.
    fn ask(&self, kind: Kind, path: &str, payload: &[&[u8]]) -> Result<Vec<u8>>;
}

pub(super) fn read(on: &impl Ask, path: &str) -> Result<Vec<u8>> {
    about(on, Kind::Read, path)
}

pub(super) fn read_string(on: &impl Ask, path: &str) -> Result<String> {
    String::from_utf8(read(on, path)?)
        .map_err(|_| Error::Invalid { path: path.to_owned(), reason: "the value is not UTF-8" })
}

pub(super) fn write(on: &impl Ask, path: &str, value: &[u8]) -> Result<()> {
    path::node(path)?;
    if path.len() + 1 + value.len() > PAYLOAD_MAX {
        return Err(Error::TooBig { path: path.to_owned() });
    }
    on.ask(Kind::Write, path, &[path.as_bytes(), b"\0", value]).map(drop)
}

pub(super) fn mkdir(on: &impl Ask, path: &str) -> Result<()> {
    about(on, Kind::Mkdir, path).map(drop)
}

pub(super) fn remove(on: &impl Ask, path: &str) -> Result<()> {
    about(on, Kind::Rm, path).map(drop)
}

/// Permissions exist for special watches too, hence the wider check.
pub(super) fn permissions(on: &impl Ask, path: &str) -> Result<Vec<Permission>> {
    path::any(path)?;
    reply::permissions(&on.ask(Kind::GetPerms, path, &[path.as_bytes(), b"\0"])?)
}

pub(super) fn set_permissions(on: &impl Ask, path: &str, permissions: &[Permission]) -> Result<()> {
    path::any(path)?;
    if permissions.is_empty() {
        return Err(Error::Invalid { path: path.to_owned(), reason: "permissions without an owner" });
    }
    let list: String = permissions.iter().map(|entry| format!("{entry}\0")).collect();
    if path.len() + 1 + list.len() > PAYLOAD_MAX {
        return Err(Error::TooBig { path: path.to_owned() });
    }
    on.ask(Kind::SetPerms, path, &[path.as_bytes(), b"\0", list.as_bytes()]).map(drop)
}

/// A request whose payload is the path alone.
pub(super) fn about(on: &impl Ask, kind: Kind, path: &str) -> Result<Vec<u8>> {
    path::node(path)?;
    on.ask(kind, path, &[path.as_bytes(), b"\0"])
}
