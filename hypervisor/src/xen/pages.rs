//! Sharing pages: gntalloc.
//!
//! Each page is mapped by itself. gntalloc counts a mapping as one use of all its pages, so one mapping of all would
//! keep every grant until the last page is given up.

use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use super::device::Device;
use super::uapi::{AllocGref, DeallocGref, MAX_PAGES, WRITABLE, call};
use crate::{Access, DomId, Error, GrantRef, PAGE_SIZE, Revoke, Shared};

/// New pages, granted to `with`.
pub(super) fn share(device: Arc<Device>, with: DomId, pages: usize, access: Access) -> Result<Shared, Error> {
    if pages == 0 || pages > MAX_PAGES {
        return Err(Error::Invalid { what: "no pages to share, or too many" });
    }
    let flags = match access {
        Access::ReadOnly => 0,
        Access::ReadWrite => WRITABLE,
    };
    let mut alloc =
        AllocGref { domid: with.0, flags, count: pages as u32, index: 0, gref_ids: [0; MAX_PAGES] };
    // SAFETY: `count` is at most `MAX_PAGES`.
    unsafe { call(&device, &mut alloc) }.map_err(|errno| match errno {
        Errno::NOSPC | Errno::NOMEM => Error::NoSpace {
            what: "grants: gntalloc has a limit, in /sys/module/xen_gntalloc/parameters/limit",
        },
        errno => Error::system("granting pages")(errno),
    })?;
    // From here on dropping it gives the grants back.
    let mut granted = Granted { device, index: alloc.index, live: Mutex::new(vec![true; pages]), base: None };
    let base = granted.map().map_err(Error::system("mapping granted pages"))?;
    let refs = alloc.gref_ids.iter().take(pages).map(|gref| GrantRef(*gref)).collect();
    // SAFETY: `granted` keeps these pages mapped until it is dropped, and nothing makes a reference to them.
    Ok(unsafe { Shared::new(base, refs, Box::new(granted)) })
}

/// Pages of one call.
struct Granted {
    device: Arc<Device>,
    index: u64,
    /// Which are granted still.
    live: Mutex<Vec<bool>>,
    base: Option<NonNull<u8>>,
}

// SAFETY: an owned range of address space, changed under the lock only.
unsafe impl Send for Granted {}
// SAFETY: as for Send.
unsafe impl Sync for Granted {}

impl Granted {
    /// Maps all pages side by side.
    fn map(&mut self) -> rustix::io::Result<NonNull<u8>> {
        let count = self.count();
        let (null, len) = (std::ptr::null_mut(), count * PAGE_SIZE);
        // SAFETY: a fresh range of address space, chosen by the kernel.
        let base = unsafe { mmap_anonymous(null, len, ProtFlags::empty(), MapFlags::PRIVATE) }?;
        let base = NonNull::new(base.cast::<u8>()).expect("the kernel maps nothing at 0");
        self.base = Some(base);
        for page in 0..count {
            let at = base.as_ptr().wrapping_add(page * PAGE_SIZE).cast();
            let access = ProtFlags::READ | ProtFlags::WRITE;
            let flags = MapFlags::SHARED | MapFlags::FIXED;
            // SAFETY: replaces one page of the range reserved above, which nothing uses yet.
            unsafe { mmap(at, PAGE_SIZE, access, flags, &self.device, self.offset(page)) }?;
        }
        Ok(base)
    }

    fn offset(&self, page: usize) -> u64 {
        self.index + (page * PAGE_SIZE) as u64
    }

    fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<bool>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops gntalloc's own hold on a page; its mapping is the other.
    fn deallocate(&self, page: usize) -> rustix::io::Result<()> {
        let mut dealloc = DeallocGref { index: self.offset(page), count: 1 };
        // SAFETY: the count is no length of memory here.
        unsafe { call(&self.device, &mut dealloc) }.map(drop)
    }
}

impl Revoke for Granted {
    fn revoke(&self, index: usize) -> Result<(), Error> {
        let mut live = self.lock();
        let (Some(live), Some(base)) = (live.get_mut(index), self.base) else {
            return Err(Error::Invalid { what: "no such page to revoke" });
        };
        if !*live {
            return Err(Error::Invalid { what: "the page is revoked already" });
        }
        self.deallocate(index).map_err(Error::system("revoking a grant"))?;
        *live = false;
        let at = base.as_ptr().wrapping_add(index * PAGE_SIZE).cast();
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        // SAFETY: replaces a page of the range this owns by an empty one; the bytes stay mapped all the time.
        unsafe { mmap_anonymous(at, PAGE_SIZE, access, flags) }
            .map(drop)
            .map_err(Error::system("giving a revoked page back"))
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        let live = std::mem::take(&mut *self.lock());
        for (page, _) in live.iter().enumerate().filter(|(_, live)| **live) {
            if let Err(errno) = self.deallocate(page) {
                log::warn!("giving a grant back: {errno}");
            }
        }
        if let Some(base) = self.base {
            // SAFETY: the range `map` reserved; whoever had its address has given it up with the owner.
            let unmapped = unsafe { munmap(base.as_ptr().cast(), live.len() * PAGE_SIZE) };
            debug_assert!(unmapped.is_ok(), "an owned range can be unmapped");
        }
    }
}
