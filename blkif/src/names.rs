//! The names of all XenStore nodes of a block device that this protocol knows, as blkif.h and libxl
//! write them; those that start with `DATA_INTEGRITY` are DIX's (`docs/protocol.md`).

/// Both sides: where each is in its life ([`crate::XenbusState`]).
pub const STATE: &str = "state";

// The backend's, from the toolstack.

/// The frontend's directory.
pub const FRONTEND: &str = "frontend";
/// The frontend's domain.
pub const FRONTEND_ID: &str = "frontend-id";
/// 0 once the device is to be removed.
pub const ONLINE: &str = "online";
/// What to serve.
pub const PARAMS: &str = "params";
/// The script that attaches it.
pub const SCRIPT: &str = "script";
/// The kind of image.
pub const TYPE: &str = "type";
/// `r` or `w`.
pub const MODE: &str = "mode";
/// The device's name in the guest.
pub const DEV: &str = "dev";
/// `disk`, `cdrom`, ...
pub const DEVICE_TYPE: &str = "device-type";
/// Whether the medium can be removed.
pub const REMOVABLE: &str = "removable";
/// Whether the guest boots from it.
pub const BOOTABLE: &str = "bootable";
/// Whether direct I/O outlives no buffer.
pub const DIRECT_IO_SAFE: &str = "direct-io-safe";
/// 0: do not offer discard.
pub const DISCARD_ENABLE: &str = "discard-enable";
/// `MAJOR:MINOR` of a block device.
pub const PHYSICAL_DEVICE: &str = "physical-device";
/// A path to what is served.
pub const PHYSICAL_DEVICE_PATH: &str = "physical-device-path";
/// Why the device could not be attached, for xl to show.
pub const HOTPLUG_ERROR: &str = "hotplug-error";
/// `connected` or `error`: the attaching script's outcome.
pub const HOTPLUG_STATUS: &str = "hotplug-status";

// The backend's, of its own.

/// Largest ring, as a power of two of pages.
pub const MAX_RING_PAGE_ORDER: &str = "max-ring-page-order";
/// Most rings.
pub const MULTI_QUEUE_MAX_QUEUES: &str = "multi-queue-max-queues";
/// Most segments of an indirect request.
pub const FEATURE_MAX_INDIRECT_SEGMENTS: &str = "feature-max-indirect-segments";
/// Both sides: grants that stay mapped.
pub const FEATURE_PERSISTENT: &str = "feature-persistent";
/// WRITE_BARRIER is understood.
pub const FEATURE_BARRIER: &str = "feature-barrier";
/// FLUSH_DISKCACHE is understood.
pub const FEATURE_FLUSH_CACHE: &str = "feature-flush-cache";
/// DISCARD is understood.
pub const FEATURE_DISCARD: &str = "feature-discard";
/// Bytes of a discard extent.
pub const DISCARD_GRANULARITY: &str = "discard-granularity";
/// Bytes before the first discard extent.
pub const DISCARD_ALIGNMENT: &str = "discard-alignment";
/// Secure discard is understood.
pub const DISCARD_SECURE: &str = "discard-secure";
/// The disk's size in sectors of 512 bytes.
pub const SECTORS: &str = "sectors";
/// Bytes of a logical block.
pub const SECTOR_SIZE: &str = "sector-size";
/// Bytes of a physical block.
pub const PHYSICAL_SECTOR_SIZE: &str = "physical-sector-size";
/// VDISK_* bits.
pub const INFO: &str = "info";

// The frontend's.

/// The backend's directory.
pub const BACKEND: &str = "backend";
/// The backend's domain.
pub const BACKEND_ID: &str = "backend-id";
/// The device's number in the guest.
pub const VIRTUAL_DEVICE: &str = "virtual-device";
/// The ABI of ring entries.
pub const PROTOCOL: &str = "protocol";
/// Pages of each ring, as a power of two.
pub const RING_PAGE_ORDER: &str = "ring-page-order";
/// The grant of a ring of one page; of larger ones with the page's number appended.
pub const RING_REF: &str = "ring-ref";
/// The event channel of a ring.
pub const EVENT_CHANNEL: &str = "event-channel";
/// Rings in use.
pub const MULTI_QUEUE_NUM_QUEUES: &str = "multi-queue-num-queues";
/// Directory of one of several rings, its number appended.
pub const QUEUE: &str = "queue-";
/// Sector quantities are in units of sector-size: ambiguous, and deprecated by blkif.h.
pub const FEATURE_LARGE_SECTOR_SIZE: &str = "feature-large-sector-size";

// DIX.

/// Both sides: protection information is carried.
pub const FEATURE_DATA_INTEGRITY: &str = "feature-data-integrity";
/// Both sides: the version of the extension.
pub const DATA_INTEGRITY_VERSION: &str = "data-integrity-version";
/// The guard's algorithm.
pub const DATA_INTEGRITY_GUARD: &str = "data-integrity-guard";
/// Bytes of data that one tuple protects.
pub const DATA_INTEGRITY_INTERVAL: &str = "data-integrity-interval";
/// Bytes of metadata for each interval.
pub const DATA_INTEGRITY_METADATA_SIZE: &str = "data-integrity-metadata-size";
/// Where in the metadata the tuple starts.
pub const DATA_INTEGRITY_PI_OFFSET: &str = "data-integrity-pi-offset";
/// Bytes of the application tag.
pub const DATA_INTEGRITY_TAG_SIZE: &str = "data-integrity-tag-size";
/// Type of protection: 0, 1 or 3.
pub const DATA_INTEGRITY_TYPE: &str = "data-integrity-type";
