//! The listening sockets: one for dom0, one for each domain that has its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Sockets {
    base: PathBuf,
    listeners: BTreeMap<u16, Arc<UnixListener>>,
    /// Domains whose socket could not be opened, so that it is tried and reported once.
    failed: BTreeSet<u16>,
}

impl Sockets {
    /// Listens for dom0 at `base`.
    pub(super) fn open_base(base: &Path) -> io::Result<Sockets> {
        let mut sockets =
            Sockets { base: base.to_owned(), listeners: BTreeMap::new(), failed: BTreeSet::new() };
        sockets.open(0)?;
        Ok(sockets)
    }

    /// Where a domain connects.
    pub(super) fn path(&self, domain: u16) -> PathBuf {
        if domain == 0 {
            return self.base.clone();
        }
        let mut path = self.base.clone().into_os_string();
        path.push(format!(".{domain}"));
        path.into()
    }

    /// Opens a domain's socket, if it is not open.
    pub(super) fn open(&mut self, domain: u16) -> io::Result<()> {
        if !self.listeners.contains_key(&domain) {
            self.listeners.insert(domain, Arc::new(listen(&self.path(domain))?));
        }
        Ok(())
    }

    /// Opens and closes until exactly dom0's and the `wanted` domains' sockets are open.
    pub(super) fn follow(&mut self, wanted: &BTreeSet<u16>) {
        self.failed.retain(|domain| wanted.contains(domain));
        for &domain in wanted {
            if !self.failed.contains(&domain)
                && let Err(error) = self.open(domain)
            {
                log::error!("{}: {error}", self.path(domain).display());
                self.failed.insert(domain);
            }
        }
        let unwanted =
            self.listeners.keys().filter(|&&domain| domain != 0 && !wanted.contains(&domain)).copied();
        for domain in unwanted.collect::<Vec<_>>() {
            self.close(domain);
        }
    }

    pub(super) fn listeners(&self) -> impl Iterator<Item = (u16, Arc<UnixListener>)> {
        self.listeners.iter().map(|(&domain, listener)| (domain, listener.clone()))
    }

    fn close(&mut self, domain: u16) {
        if self.listeners.remove(&domain).is_some() {
            let _ = fs::remove_file(self.path(domain));
        }
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        for domain in self.listeners.keys().copied().collect::<Vec<_>>() {
            self.close(domain);
        }
    }
}

/// Listens at `path`, open to its user alone. A file left by a server that is gone is replaced.
fn listen(path: &Path) -> io::Result<UnixListener> {
    match UnixStream::connect(path) {
        Ok(_) => return Err(ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
