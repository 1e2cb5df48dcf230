//! The numbers of blkif.h, under its names without the `BLKIF_` prefix.

/// Transfer from the disk to the guest.
pub const OP_READ: u8 = 0;
/// Transfer from the guest to the disk.
pub const OP_WRITE: u8 = 1;
/// A write ordered against all others of its ring; may be empty.
pub const OP_WRITE_BARRIER: u8 = 2;
/// Make earlier writes durable; may carry data.
pub const OP_FLUSH_DISKCACHE: u8 = 3;
/// Kept free by blkif.h for a vendor's use.
pub const OP_RESERVED_1: u8 = 4;
/// Give up a range of sectors.
pub const OP_DISCARD: u8 = 5;
/// A read or write whose segments are in pages of their own.
pub const OP_INDIRECT: u8 = 6;
/// DIX: the slot that holds the protection information of the slot before it.
pub const OP_INTEGRITY: u8 = 7;
/// DIX: set in `operation` of a data slot that an [`OP_INTEGRITY`] slot follows.
pub const OP_DIX_FLAG: u8 = 0x80;

/// In `flag` of a discard: the range must become unrecoverable.
pub const DISCARD_SECURE: u8 = 1;

/// Done.
pub const RSP_OKAY: i16 = 0;
/// Failed, for a reason blkif has no name for.
pub const RSP_ERROR: i16 = -1;
/// The operation is not supported.
pub const RSP_EOPNOTSUPP: i16 = -2;
/// DIX, payload slot only: a guard tag does not match the data.
pub const RSP_DIX_GUARD: i16 = -3;
/// DIX, payload slot only: an application tag is not the expected one.
pub const RSP_DIX_APPLICATION: i16 = -4;
/// DIX, payload slot only: a reference tag is not the expected one.
pub const RSP_DIX_REFERENCE: i16 = -5;

/// Bit of the `info` node: the disk is a CD-ROM.
pub const VDISK_CDROM: u32 = 1;
/// Bit of the `info` node: the medium can be removed.
pub const VDISK_REMOVABLE: u32 = 2;
/// Bit of the `info` node: the disk cannot be written.
pub const VDISK_READONLY: u32 = 4;
