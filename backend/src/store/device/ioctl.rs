//! The questions that are asked of devices by ioctl.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `FS_IOC_GETLBMD_CAP`: `_IOWR(0x15, 2, struct logical_block_metadata_cap)` (linux/fs.h, Linux 6.17).
const GET_LBMD_CAP: libc::Ioctl = 0xC010_1502u32 as libc::Ioctl;
/// `NVME_IOCTL_ID`: `_IO('N', 0x40)` (linux/nvme_ioctl.h).
const NVME_ID: libc::Ioctl = 0x4E40;
/// `NVME_IOCTL_ADMIN_CMD`: `_IOWR('N', 0x41, struct nvme_admin_cmd)`.
const NVME_ADMIN: libc::Ioctl = 0xC048_4E41u32 as libc::Ioctl;

/// `NVME_IOCTL_IO_CMD`: `_IOWR('N', 0x43, struct nvme_passthru_cmd)`.
const NVME_IO: libc::Ioctl = 0xC048_4E43u32 as libc::Ioctl;

/// `struct logical_block_metadata_cap`: what a block device keeps beside each interval of data. All zero where it keeps
/// nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MetadataCap {
    /// 1: the medium is formatted with PI. 2: reference tags are the block's number.
    pub flags: u32,
    /// Bytes of data; 65536 does not fit and is 0.
    pub interval: u16,
    pub size: u8,
    pub opaque_size: u8,
    pub opaque_offset: u8,
    pub pi_size: u8,
    pub pi_offset: u8,
    /// 0 none, 1 IP, 2 CRC-16, 4 CRC-64.
    pub guard: u8,
    pub application_size: u8,
    pub reference_size: u8,
    pub storage_size: u8,
    pub reserved: u8,
}

/// What a block device keeps; an error (ENOTTY) on kernels before 6.17.
pub(super) fn metadata_cap(device: &File) -> io::Result<MetadataCap> {
    let mut cap = MetadataCap::default();
    // SAFETY: the kernel writes at most the 16 bytes that the request's number says, which `cap` has.
    match unsafe { libc::ioctl(device.as_raw_fd(), GET_LBMD_CAP, &raw mut cap) } {
        0.. => Ok(cap),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The namespace that an NVMe device is.
pub(super) fn nvme_id(device: &File) -> io::Result<u32> {
    // SAFETY: this request takes no argument.
    let id = unsafe { libc::ioctl(device.as_raw_fd(), NVME_ID) };
    u32::try_from(id).map_err(|_| io::Error::last_os_error())
}

/// `struct nvme_passthru_cmd`, which is `struct nvme_admin_cmd` too.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct NvmeCommand {
    opcode: u8,
    flags: u8,
    reserved: u16,
    namespace: u32,
    cdw2: u32,
    cdw3: u32,
    metadata: u64,
    address: u64,
    metadata_length: u32,
    data_length: u32,
    cdw10: u32,
    cdw11: u32,
    cdw12: u32,
    cdw13: u32,
    cdw14: u32,
    cdw15: u32,
    timeout_ms: u32,
    result: u32,
}

const _: () = assert!(size_of::<MetadataCap>() == 16);
const _: () = assert!(size_of::<NvmeCommand>() == 72);

/// Identify (NVMe base specification, 5.17): the structure `cns` of a namespace, for the NVM command set.
pub(super) fn identify(device: &File, namespace: u32, cns: u8) -> io::Result<Box<[u8; 4096]>> {
    let mut answer = Box::new([0; 4096]);
    let mut command = NvmeCommand {
        opcode: 0x06,
        namespace,
        address: std::ptr::from_mut(answer.as_mut()) as u64,
        data_length: 4096,
        cdw10: cns.into(),
        ..NvmeCommand::default()
    };
    // SAFETY: the kernel reads and writes the 72 bytes of `command`, and writes the 4096 of `answer`, during the call.
    match unsafe { libc::ioctl(device.as_raw_fd(), NVME_ADMIN, &raw mut command) } {
        0 => Ok(answer),
        status @ 1.. => Err(io::Error::other(format!("NVMe status {status:#x}"))),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Flush (NVM command set, 3.2): every completed write of the namespace becomes durable.
pub(super) fn nvme_flush(device: &File, namespace: u32) -> io::Result<()> {
    let mut command = NvmeCommand { opcode: 0x00, namespace, ..NvmeCommand::default() };
    // SAFETY: the kernel reads and writes the 72 bytes of `command`, which names no other memory.
    match unsafe { libc::ioctl(device.as_raw_fd(), NVME_IO, &raw mut command) } {
        0 => Ok(()),
        status @ 1.. => Err(io::Error::other(format!("NVMe status {status:#x}"))),
        _ => Err(io::Error::last_os_error()),
    }
}
