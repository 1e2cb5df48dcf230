//! The device files, and what to say where they are not.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use crate::Error;

/// A device file and the module that makes it.
pub(super) struct Name {
    path: &'static str,
    module: &'static str,
}

/// Maps and copies what others granted.
pub(super) const GNTDEV: Name = Name { path: "/dev/xen/gntdev", module: "load the kernel module xen-gntdev" };
/// Grants.
pub(super) const GNTALLOC: Name =
    Name { path: "/dev/xen/gntalloc", module: "load the kernel module xen-gntalloc" };
/// Event channels; every descriptor has its own.
pub(super) const EVTCHN: Name = Name { path: "/dev/xen/evtchn", module: "load the kernel module xen-evtchn" };

impl Name {
    /// Opens it, non-blocking.
    pub(super) fn open(&self) -> Result<OwnedFd, Error> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        rustix::fs::open(self.path, flags, Mode::empty()).map_err(|source| Error::Device {
            device: self.path,
            hint: self.hint(source),
            source: source.into(),
        })
    }

    fn hint(&self, error: rustix::io::Errno) -> &'static str {
        let xen = std::fs::read_to_string("/sys/hypervisor/type").is_ok_and(|kind| kind.trim() == "xen");
        match error {
            _ if !xen => "the kernel is not running on Xen",
            rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => "this needs root",
            _ if !Path::new(self.path).exists() => self.module,
            _ => "the device is there but cannot be opened",
        }
    }
}

/// An open device, shared by all that is made from it.
pub(super) struct Device(OwnedFd);

impl Device {
    /// Opens it.
    pub(super) fn open(name: &Name) -> Result<Self, Error> {
        name.open().map(Self)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The device opened at the start, or opened now: its module may have been loaded since.
pub(super) fn opened(device: &Option<Arc<Device>>, name: &Name) -> Result<Arc<Device>, Error> {
    match device {
        Some(device) => Ok(Arc::clone(device)),
        None => Device::open(name).map(Arc::new),
    }
}
