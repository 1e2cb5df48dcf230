//! Admission: whether this disk takes a request that is well-formed.
//!
//! Checked for every request, whatever the guest negotiated (CVE-2013-2140, XSA-142): range, alignment, the disk's
//! mode, and what the operator demands of PI. What is refused here has touched nothing.

use crate::queue::{Disk, Integrity};
use blkif::{Sectors, Status};

/// What a request asks of the disk, without its buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
    /// A write that earlier requests of the ring precede and later ones follow, durable when answered.
    Barrier,
    /// With data: flush, write, flush.
    Flush,
    Discard {
        /// What was there must not be recoverable.
        secure: bool,
    },
}

impl Kind {
    /// Whether the request changes the disk, once it carries `bytes` of data.
    fn modifies(self, bytes: u64) -> bool {
        match self {
            Kind::Read => false,
            Kind::Write | Kind::Barrier | Kind::Flush => bytes > 0,
            Kind::Discard { .. } => true,
        }
    }

    /// Whether it is a discard of either kind.
    pub fn is_discard(self) -> bool {
        matches!(self, Kind::Discard { .. })
    }
}

/// Why a disk does not take a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("it ends beyond the disk's {0} bytes")]
    Range(u64),
    #[error("its start or length is no multiple of the disk's {0}-byte blocks")]
    Alignment(u32),
    #[error("the disk is read-only")]
    ReadOnly,
    #[error("discards were not offered")]
    NoDiscard,
    /// `discard-secure` is never offered: a hole in a file, or a trim, promises nothing of the kind.
    #[error("secure discards were not offered")]
    NoSecureDiscard,
    #[error("integrity=require: a request without the guest's PI")]
    PlainRequest,
}

impl Refused {
    /// What the guest is told.
    pub fn status(self) -> Status {
        match self {
            Refused::NoDiscard | Refused::NoSecureDiscard => Status::Unsupported,
            _ => Status::Error,
        }
    }
}

/// The byte offset of an admitted request.
///
/// # Errors
/// [`Refused`], with what the guest is told beside it.
pub(crate) fn admit(
    disk: &Disk,
    kind: Kind,
    flagged: bool,
    sector: Sectors,
    bytes: u64,
) -> Result<u64, Refused> {
    if matches!(kind, Kind::Flush | Kind::Barrier) && bytes == 0 {
        // Without data the sector number means nothing, and guests leave garbage in it.
        return Ok(0);
    }
    let geometry = disk.store.geometry();
    if kind.modifies(bytes) && disk.read_only {
        return Err(Refused::ReadOnly);
    }
    if kind.is_discard() && !disk.discard {
        return Err(Refused::NoDiscard);
    }
    if kind == (Kind::Discard { secure: true }) {
        return Err(Refused::NoSecureDiscard);
    }
    if disk.integrity == Integrity::Require && !flagged && !kind.is_discard() {
        return Err(Refused::PlainRequest);
    }
    let beyond = Refused::Range(geometry.bytes);
    let offset = sector.bytes().ok_or(beyond)?;
    if offset.checked_add(bytes).is_none_or(|end| end > geometry.bytes) {
        return Err(beyond);
    }
    let block = u64::from(disk.block());
    // A discard may start anywhere: only the whole blocks inside it are discarded.
    let aligned = offset.is_multiple_of(block) && bytes.is_multiple_of(block);
    if !aligned && !kind.is_discard() {
        return Err(Refused::Alignment(disk.block()));
    }
    Ok(offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{AppTagRule, Lost};
    use crate::store::{Capabilities, DiscardUnit, Geometry, Store, StoreQueue};
    use std::sync::Arc;

    struct Shape(Geometry);

    impl Store for Shape {
        fn geometry(&self) -> Geometry {
            self.0
        }
        fn capabilities(&self) -> Capabilities {
            let discard = Some(DiscardUnit { granularity: 512, alignment: 0 });
            Capabilities { profile: None, read_only: false, discard, volatile_cache: true }
        }
        fn queue(self: Arc<Self>, _: crate::io::Doorbell) -> std::io::Result<Box<dyn StoreQueue>> {
            Err(std::io::ErrorKind::Unsupported.into())
        }
        fn close(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    const DISCARD: Kind = Kind::Discard { secure: false };

    fn disk() -> Disk {
        Disk {
            name: "test".into(),
            store: Arc::new(Shape(Geometry { bytes: 1 << 20, logical_block: 4096, physical_block: 4096 })),
            profile: None,
            integrity: Integrity::Auto,
            app_tag: AppTagRule::Guest,
            allow_escape: false,
            read_only: false,
            discard: true,
            lost: Lost::default(),
        }
    }

    #[test]
    fn admit_when_the_end_overflows_or_passes_the_disk_refuses() {
        let disk = disk();
        let last = (1 << 20) / 512 - 8;
        assert_eq!(admit(&disk, Kind::Read, false, Sectors(last), 4096), Ok(last * 512));
        for sector in [last + 8, u64::MAX, u64::MAX / 512, u64::MAX / 512 - 7, i64::MAX as u64 / 512] {
            assert_eq!(
                admit(&disk, Kind::Write, false, Sectors(sector), 4096),
                Err(Refused::Range(1 << 20)),
                "{sector}"
            );
        }
        assert_eq!(admit(&disk, DISCARD, false, Sectors(1), u64::MAX), Err(Refused::Range(1 << 20)));
    }

    #[test]
    fn admit_when_unaligned_refuses_but_discards_may_be() {
        let disk = disk();
        assert_eq!(admit(&disk, Kind::Read, false, Sectors(1), 4096), Err(Refused::Alignment(4096)));
        assert_eq!(admit(&disk, Kind::Write, false, Sectors(0), 512), Err(Refused::Alignment(4096)));
        assert_eq!(admit(&disk, DISCARD, false, Sectors(1), 512), Ok(512));
    }

    #[test]
    fn admit_when_read_only_refuses_every_change() {
        let disk = Disk { read_only: true, ..disk() };
        for kind in [Kind::Write, Kind::Barrier, Kind::Flush, DISCARD] {
            assert_eq!(admit(&disk, kind, false, Sectors(0), 4096), Err(Refused::ReadOnly), "{kind:?}");
        }
        assert_eq!(admit(&disk, Kind::Flush, false, Sectors(u64::MAX), 0), Ok(0));
        assert_eq!(admit(&disk, Kind::Read, false, Sectors(0), 4096), Ok(0));
    }

    #[test]
    fn admit_when_pi_is_required_refuses_plain_reads_and_writes_only() {
        let disk = Disk { integrity: Integrity::Require, ..disk() };
        for kind in [Kind::Read, Kind::Write, Kind::Barrier] {
            assert_eq!(admit(&disk, kind, false, Sectors(0), 4096), Err(Refused::PlainRequest), "{kind:?}");
            assert_eq!(admit(&disk, kind, true, Sectors(0), 4096), Ok(0));
        }
        assert_eq!(admit(&disk, DISCARD, false, Sectors(0), 4096), Ok(0));
        assert_eq!(admit(&disk, Kind::Flush, false, Sectors(0), 0), Ok(0));
    }
}
