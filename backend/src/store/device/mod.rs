//! A device that keeps PI itself: an NVMe namespace, a SCSI disk, a ublk device, and partitions, dm and md on top; data
//! and PI go to it in one request, and it checks them.
//!
//! ```text
//! look -> Found::Format -> trial read -> DeviceStore            /dev/ngXnY: identify -> Namespace -> DeviceStore
//!
//!  guest's PI (checked or made by the queue, type 1 tags of the virtual disk)
//!     | same kind: copied            | other kind: device's made, guest's checked (Convert)
//!     +------------> Scratch <-------+
//!                       |  parts of whole blocks that go straight through
//!                       v
//!  block device: io_uring read or write with the PI attribute; the kernel maps tags by the seed
//!  passthrough:  NVMe command with a metadata pointer; the disk is the namespace, tags are the same
//!                       |
//!      mismatch? -> Diagnosis: which tag, of which interval
//! ```
//!
//! Overlapping requests are ordered by the disk's table of ranges (`queue.rs` says why).

mod convert;
mod cut;
mod diagnose;
mod format;
mod ioctl;
mod mirror;
mod nvme;
mod queue;
mod scratch;
mod trial;
mod way;

pub(crate) use convert::Convert;
pub use convert::Wish;
pub(crate) use format::{Format, Found, look};
pub(crate) use nvme::{Namespace, is_namespace, sibling_of_block};
pub(crate) use trial::{Unusable, trial};

use crate::io::Doorbell;
use crate::store::file::plain_capabilities;
use crate::store::inbox::Waiter;
use crate::store::medium::Medium;
use crate::store::ranges::Ranges;
use crate::store::{Capabilities, DiscardUnit, Geometry, Store, StoreError, StoreQueue};
use cut::Cut;
use queue::at_once;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use way::Way;

/// What has happened so far, told as the store's statistics.
#[derive(Debug, Default)]
struct Counters {
    /// Requests that the device refused because of PI, at first.
    refusals: AtomicU64,
    /// Of these, those that a second attempt carried through.
    recovered: AtomicU64,
    /// Requests cut into parts.
    split: AtomicU64,
}

/// A device that keeps PI.
pub(crate) struct DeviceStore {
    way: Way,
    geometry: Geometry,
    /// Its size, which may grow.
    bytes: AtomicU64,
    capabilities: Capabilities,
    convert: Convert,
    /// Where requests are cut; whole units.
    cut: Cut,
    /// Bytes of one discard, at most; whole blocks.
    discard: u64,
    ranges: Ranges<Waiter>,
    counters: Counters,
}

impl DeviceStore {
    /// Serves an open, locked block device.
    pub fn block(medium: Medium, format: Format, convert: Convert, read_only: bool, discard: bool) -> Self {
        let (geometry, capabilities) = block_shape(&medium, &convert, read_only, discard);
        let way = Way::Block { medium, base: format.base };
        // Discards the block layer cuts by itself.
        Self::new(way, geometry, capabilities, convert, format.cut, u64::MAX)
    }

    /// Serves an open, locked namespace.
    pub fn namespace(namespace: Namespace, convert: Convert, read_only: bool, discard: bool) -> Self {
        let (geometry, capabilities) = namespace_shape(&namespace, &convert, read_only, discard);
        let (cut, most) = (Cut::after(namespace.part), namespace.discard_most);
        Self::new(Way::Nvme(namespace), geometry, capabilities, convert, cut, most)
    }

    fn new(
        way: Way,
        geometry: Geometry,
        capabilities: Capabilities,
        convert: Convert,
        cut: Cut,
        discard: u64,
    ) -> Self {
        let cut = cut.whole_units(geometry.logical_block as usize);
        let discard = at_once(discard, geometry.logical_block);
        let bytes = AtomicU64::new(geometry.bytes);
        let ranges = Ranges::new(geometry.logical_block.max(4096));
        let counters = Counters::default();
        Self { way, geometry, bytes, capabilities, convert, cut, discard, ranges, counters }
    }
}

/// The shape of a disk on a block device with PI.
pub(crate) fn block_shape(
    medium: &Medium,
    convert: &Convert,
    read_only: bool,
    discard: bool,
) -> (Geometry, Capabilities) {
    let logical_block = medium.sector.max(convert.unit() as u32);
    let geometry = shape(medium.bytes, logical_block, medium.physical);
    let discard = if discard && !read_only { medium.unmap_unit() } else { None };
    let plain = plain_capabilities(medium, read_only, false);
    (geometry, Capabilities { profile: Some(convert.guest), discard, ..plain })
}

/// The shape of a disk that is a namespace.
pub(crate) fn namespace_shape(
    namespace: &Namespace,
    convert: &Convert,
    read_only: bool,
    discard: bool,
) -> (Geometry, Capabilities) {
    let logical_block = namespace.block.max(convert.unit() as u32);
    let geometry = shape(namespace.bytes, logical_block, namespace.block);
    let unit = DiscardUnit { granularity: logical_block, alignment: 0 };
    let capabilities = Capabilities {
        profile: Some(convert.guest),
        read_only,
        discard: (discard && !read_only && namespace.discards).then_some(unit),
        volatile_cache: namespace.volatile_cache,
    };
    (geometry, capabilities)
}

fn shape(bytes: u64, logical_block: u32, physical: u32) -> Geometry {
    let block = u64::from(logical_block);
    Geometry { bytes: bytes / block * block, logical_block, physical_block: physical.max(logical_block) }
}

impl Store for DeviceStore {
    fn geometry(&self) -> Geometry {
        // Relaxed: the device was so long before anybody could read it here.
        Geometry { bytes: self.bytes.load(Ordering::Relaxed), ..self.geometry }
    }

    fn grow(&self) -> Result<u64, StoreError> {
        let served = self.bytes.load(Ordering::Relaxed);
        let block = u64::from(self.geometry.logical_block);
        let found = self.way.size_now()? / block * block;
        if found < served {
            return Err(StoreError::Shrunk { path: self.way.path().to_owned(), found, served });
        }
        self.bytes.store(found, Ordering::Relaxed);
        Ok(found)
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn wide_ring(&self) -> bool {
        matches!(self.way, Way::Nvme(_))
    }

    fn queue(self: Arc<Self>, doorbell: Doorbell) -> io::Result<Box<dyn StoreQueue>> {
        Ok(Box::new(queue::DeviceQueue::new(self, doorbell)))
    }

    fn close(&self) -> io::Result<()> {
        match &self.way {
            Way::Block { medium, .. } if !self.capabilities.read_only => medium.file.sync_all(),
            Way::Nvme(namespace) if !self.capabilities.read_only => namespace.flush_now(),
            _ => Ok(()),
        }
    }

    fn statistics(&self) -> Vec<(&'static str, u64)> {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        vec![
            ("device_pi_refusals", count(&self.counters.refusals)),
            ("device_pi_recovered", count(&self.counters.recovered)),
            ("device_split_requests", count(&self.counters.split)),
            ("range_waits", self.ranges.waits()),
        ]
    }
}
