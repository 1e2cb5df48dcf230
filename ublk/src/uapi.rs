//! The kernel's structures and numbers (`include/uapi/linux/ublk_cmd.h`, `include/uapi/linux/fs.h`), as they are laid
//! out in memory. Everything is in host byte order.
#![allow(missing_docs)] // Names and meanings are the header's.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `_IOC` of `asm-generic/ioctl.h`, for type 'u'.
const fn ioc(direction: u32, number: u32, size: usize) -> u32 {
    assert!(size < 1 << 14);
    #[expect(clippy::as_conversions, reason = "checked above; a const fn has no From")]
    let size = size as u32;
    direction << 30 | size << 16 | 0x75 << 8 | number
}
const READ: u32 = 2;
const READ_WRITE: u32 = 3;
const fn control(direction: u32, number: u32) -> u32 {
    ioc(direction, number, size_of::<CtrlCmd>())
}

pub const CMD_GET_DEV_INFO: u32 = control(READ, 0x02);
pub const CMD_ADD_DEV: u32 = control(READ_WRITE, 0x04);
pub const CMD_DEL_DEV: u32 = control(READ_WRITE, 0x05);
pub const CMD_START_DEV: u32 = control(READ_WRITE, 0x06);
pub const CMD_STOP_DEV: u32 = control(READ_WRITE, 0x07);
pub const CMD_SET_PARAMS: u32 = control(READ_WRITE, 0x08);
pub const CMD_GET_PARAMS: u32 = control(READ, 0x09);
pub const CMD_START_USER_RECOVERY: u32 = control(READ_WRITE, 0x10);
pub const CMD_END_USER_RECOVERY: u32 = control(READ_WRITE, 0x11);
pub const CMD_GET_FEATURES: u32 = control(READ, 0x13);
pub const CMD_DEL_DEV_ASYNC: u32 = control(READ, 0x14);
pub const CMD_TRY_STOP_DEV: u32 = control(READ_WRITE, 0x17);

pub const IO_FETCH_REQ: u32 = ioc(READ_WRITE, 0x20, size_of::<IoCmd>());
pub const IO_COMMIT_AND_FETCH_REQ: u32 = ioc(READ_WRITE, 0x21, size_of::<IoCmd>());

pub const IO_RES_OK: i32 = 0;
/// No request any more on this tag: the device goes, or another server comes. -ENODEV.
pub const IO_RES_ABORT: i32 = -19;

pub const CMD_BUF_OFFSET: u64 = 0;
pub const IO_BUF_OFFSET: u64 = 0x8000_0000;
pub const MAX_QUEUE_DEPTH: u16 = 4096;
pub const IO_BUF_BITS: u32 = 25;
pub const TAG_OFF: u32 = IO_BUF_BITS;
pub const TAG_BITS: u32 = 16;
pub const QID_OFF: u32 = TAG_OFF + TAG_BITS;
pub const QID_BITS: u32 = 12;
pub const MAX_NR_QUEUES: u16 = 1 << QID_BITS;
pub const IO_INTEGRITY_FLAG: u64 = 1 << 62;

pub const F_USER_RECOVERY: u64 = 1 << 3;
pub const F_USER_RECOVERY_REISSUE: u64 = 1 << 4;
pub const F_CMD_IOCTL_ENCODE: u64 = 1 << 6;
pub const F_USER_COPY: u64 = 1 << 7;
pub const F_INTEGRITY: u64 = 1 << 16;
pub const F_SAFE_STOP_DEV: u64 = 1 << 17;

pub const S_DEV_DEAD: u16 = 0;
pub const S_DEV_LIVE: u16 = 1;
pub const S_DEV_QUIESCED: u16 = 2;
pub const S_DEV_FAIL_IO: u16 = 3;

pub const IO_OP_READ: u8 = 0;
pub const IO_OP_WRITE: u8 = 1;
pub const IO_OP_FLUSH: u8 = 2;
pub const IO_OP_DISCARD: u8 = 3;
pub const IO_OP_WRITE_ZEROES: u8 = 5;

pub const IO_F_FUA: u32 = 1 << 13;
pub const IO_F_INTEGRITY: u32 = 1 << 18;

pub const ATTR_READ_ONLY: u32 = 1 << 0;
pub const ATTR_VOLATILE_CACHE: u32 = 1 << 2;
pub const ATTR_FUA: u32 = 1 << 3;

pub const PARAM_TYPE_BASIC: u32 = 1 << 0;
pub const PARAM_TYPE_DISCARD: u32 = 1 << 1;
pub const PARAM_TYPE_INTEGRITY: u32 = 1 << 6;

// linux/fs.h
pub const LBMD_PI_CAP_INTEGRITY: u32 = 1 << 0;
pub const LBMD_PI_CAP_REFTAG: u32 = 1 << 1;
pub const LBMD_PI_CSUM_NONE: u8 = 0;
pub const LBMD_PI_CSUM_IP: u8 = 1;
pub const LBMD_PI_CSUM_CRC16_T10DIF: u8 = 2;
pub const LBMD_PI_CSUM_CRC64_NVME: u8 = 4;

/// `struct ublksrv_ctrl_cmd`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CtrlCmd {
    pub dev_id: u32,
    /// All ones where the command is not about a queue.
    pub queue_id: u16,
    pub len: u16,
    pub addr: u64,
    pub data: u64,
    pub dev_path_len: u16,
    pub pad: u16,
    pub reserved: u32,
}

/// `struct ublksrv_ctrl_dev_info`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CtrlDevInfo {
    pub nr_hw_queues: u16,
    pub queue_depth: u16,
    pub state: u16,
    pub pad0: u16,
    pub max_io_buf_bytes: u32,
    pub dev_id: u32,
    pub ublksrv_pid: i32,
    pub pad1: u32,
    pub flags: u64,
    pub ublksrv_flags: u64,
    pub owner_uid: u32,
    pub owner_gid: u32,
    pub reserved1: u64,
    pub reserved2: u64,
}

/// `struct ublksrv_io_desc`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IoDesc {
    /// Bits 0 to 7: the operation; above: flags.
    pub op_flags: u32,
    pub nr_sectors: u32,
    pub start_sector: u64,
    pub addr: u64,
}

/// `struct ublksrv_io_cmd`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IoCmd {
    pub q_id: u16,
    pub tag: u16,
    pub result: i32,
    /// Zero with user copy.
    pub addr: u64,
}

/// `struct ublk_param_basic`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ParamBasic {
    pub attrs: u32,
    pub logical_bs_shift: u8,
    pub physical_bs_shift: u8,
    pub io_opt_shift: u8,
    pub io_min_shift: u8,
    pub max_sectors: u32,
    pub chunk_sectors: u32,
    pub dev_sectors: u64,
    pub virt_boundary_mask: u64,
}

/// `struct ublk_param_discard`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ParamDiscard {
    pub discard_alignment: u32,
    pub discard_granularity: u32,
    pub max_discard_sectors: u32,
    pub max_write_zeroes_sectors: u32,
    pub max_discard_segments: u16,
    pub reserved0: u16,
}

/// `struct ublk_param_integrity`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ParamIntegrity {
    pub flags: u32,
    pub max_integrity_segments: u16,
    pub interval_exp: u8,
    pub metadata_size: u8,
    pub pi_offset: u8,
    pub csum_type: u8,
    pub tag_size: u8,
    pub pad: [u8; 5],
}

/// `struct ublk_params`. What this library does not use is there as bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RawParams {
    pub len: u32,
    pub types: u32,
    pub basic: ParamBasic,
    pub discard: ParamDiscard,
    /// `struct ublk_param_devt`, written by the kernel.
    pub devt: [u32; 4],
    /// `struct ublk_param_zoned`
    pub zoned: [u32; 8],
    /// `struct ublk_param_dma_align`, and the hole behind it.
    pub dma: [u32; 3],
    /// `struct ublk_param_segment`
    pub seg: [u64; 2],
    pub integrity: ParamIntegrity,
}
