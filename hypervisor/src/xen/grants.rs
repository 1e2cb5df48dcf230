//! Mapping what another domain granted: gntdev.

use std::ptr::NonNull;
use std::sync::Arc;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::copier::probe;
use super::device::Device;
use super::uapi::{ForeignRef, MAX_REFS, MapGrantRef, UnmapGrantRef, call};
use crate::counters::Counters;
use crate::{DomId, Error, GrantRef, GrantStatus, Mapping, PAGE_SIZE};

/// Maps grants side by side.
pub(super) fn map(
    device: Arc<Device>,
    domain: DomId,
    refs: &[GrantRef],
    counters: &Arc<Counters>,
) -> Result<Mapping, Error> {
    if refs.is_empty() || refs.len() > MAX_REFS {
        return Err(Error::Invalid { what: "no pages to map, or too many" });
    }
    let pages = Pages::new(Arc::clone(&device), domain, refs).map_err(|source| {
        refusal(&device, domain, refs).unwrap_or_else(|| Error::system("mapping grants")(source))
    })?;
    counters.mapped.add(refs.len() as u64);
    let (base, len) = (pages.base, pages.len());
    let owner = Counting { pages, counters: Arc::clone(counters) };
    // SAFETY: `pages` keeps just these bytes mapped, as a mapping nothing makes a reference to.
    Ok(unsafe { Mapping::new(base, len, owner) })
}

/// Which grant was refused, and why. gntdev tells neither, so each is tried alone: a copy of one byte gives Xen's
/// status, and one that may be read but not mapped is read-only.
fn refusal(device: &Arc<Device>, domain: DomId, refs: &[GrantRef]) -> Option<Error> {
    for &gref in refs {
        let status = match probe(device, domain, gref) {
            Some(GrantStatus::OKAY) | None => match Pages::new(Arc::clone(device), domain, &[gref]) {
                Ok(_) => continue,
                Err(_) => GrantStatus::GENERAL_ERROR,
            },
            Some(GrantStatus::BAD_DOMAIN) => return Some(Error::NoDomain { domain }),
            Some(status) => status,
        };
        return Some(Error::Grant { domain, gref, status });
    }
    None
}

/// Mapped grants.
struct Pages {
    device: Arc<Device>,
    index: u64,
    count: usize,
    base: NonNull<u8>,
}

// SAFETY: an owned range of address space; unmapping works from any thread.
unsafe impl Send for Pages {}

impl Pages {
    fn new(device: Arc<Device>, domain: DomId, refs: &[GrantRef]) -> rustix::io::Result<Self> {
        let mut map = MapGrantRef {
            count: refs.len() as u32,
            pad: 0,
            index: 0,
            refs: [ForeignRef::default(); MAX_REFS],
        };
        for (entry, gref) in map.refs.iter_mut().zip(refs) {
            *entry = ForeignRef { domid: domain.0.into(), gref: gref.0 };
        }
        // SAFETY: `count` is at most `MAX_REFS`, as `map` checked.
        unsafe { call(&device, &mut map) }?;
        let (null, len) = (std::ptr::null_mut(), refs.len() * PAGE_SIZE);
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh range of address space, chosen by the kernel.
        let base = unsafe { mmap(null, len, access, MapFlags::SHARED, &device, map.index) };
        match base {
            Ok(base) => {
                let base = NonNull::new(base.cast()).expect("the kernel maps nothing at 0");
                Ok(Self { device, index: map.index, count: refs.len(), base })
            }
            Err(errno) => {
                forget(&device, map.index, refs.len());
                Err(errno)
            }
        }
    }

    fn len(&self) -> usize {
        self.count * PAGE_SIZE
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the range `new` mapped; whoever had its address has given it up with the owner.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.len()) };
        debug_assert!(unmapped.is_ok(), "an owned range can be unmapped");
        forget(&self.device, self.index, self.count);
    }
}

/// Makes gntdev forget an offset. It gives the grants back when neither it nor a mapping holds them.
fn forget(device: &Device, index: u64, count: usize) {
    let mut unmap = UnmapGrantRef { index, count: count as u32, pad: 0 };
    // SAFETY: the count is no length of memory here.
    let outcome = unsafe { call(device, &mut unmap) };
    if let Err(errno) = outcome {
        log::warn!("unmapping {count} grants: {errno}");
    }
}

/// Pages that are counted as unmapped once they are.
struct Counting {
    pages: Pages,
    counters: Arc<Counters>,
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.counters.unmapped.add(self.pages.count as u64);
    }
}
