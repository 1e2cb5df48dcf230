//! The two ways to a device that keeps PI, and how each tells how a request went.

use super::nvme::{self, Namespace, URING_COMMAND};
use super::scratch::Scratch;
use crate::io::{Lease, PiAttr, Ring, Transfer};
use crate::store::medium::Medium;
use crate::store::{Errno, StoreError};
use integrity::{Guard, PiType, Profile, Tag};
use io_uring::{opcode, squeue, types};
use std::ops::Range;
use std::path::Path;

/// `BLOCK_URING_CMD_DISCARD`: `_IO(0x12, 0)` (linux/blkdev.h, Linux 6.12).
const DISCARD: u32 = 0x1200;
/// A way to a device.
#[derive(Debug)]
pub(super) enum Way {
    /// A block device, by io_uring's PI attribute.
    Block {
        medium: Medium,
        /// See [`Format::base`](super::Format).
        base: Option<u64>,
    },
    /// An NVMe namespace, by commands of our own.
    Nvme(Namespace),
}

/// One part of a request: bytes of its data, and of its PI in the scratch buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Its number.
    pub index: usize,
    /// Of the lease's data.
    pub data: Range<usize>,
    /// Of the scratch buffer.
    pub pi: Range<usize>,
    /// On the device, in bytes.
    pub offset: u64,
    /// The number of its first interval: what its tag is in the buffer, on the disk or, where nothing checks it, on the device.
    pub seed: u64,
    /// A write, durable or not; else a read.
    pub write: Option<bool>,
    /// Whether the device checks.
    pub check: bool,
}

/// How an operation went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// All of it is done.
    Done,
    /// It was interrupted: it is to be started again.
    Again,
    /// The device found PI that does not match, of this tag if it says so.
    Mismatch(Option<Tag>),
    /// It failed.
    Failed(Errno),
}

impl Way {
    /// Starts a part.
    pub fn start(
        &self,
        ring: &mut Ring,
        profile: &Profile,
        part: &Part,
        lease: &Lease,
        scratch: &mut Scratch,
        user_data: u64,
    ) {
        let pi = scratch.pointer(part.pi.start) as u64;
        match self {
            Way::Block { medium, .. } => {
                let mut flags = 0;
                if part.check && profile.guard() != Guard::None {
                    flags |= PiAttr::CHECK_GUARD;
                    // Only where the device counts as we do: elsewhere it would compare with nothing.
                    if profile.pi_type() == PiType::Type1 {
                        flags |= PiAttr::CHECK_REFERENCE;
                    }
                }
                let attr = PiAttr {
                    flags,
                    app_tag: 0,
                    len: part.pi.len() as u32,
                    addr: pi,
                    seed: part.seed,
                    reserved: 0,
                };
                let pi = Some(scratch.put_attr(part.index, attr));
                let write = part.write.map(|fua| if fua { libc::RWF_DSYNC } else { 0 });
                let transfer = Transfer { fd: medium.fd(), offset: part.offset, write, pi };
                // SAFETY: the request owns the scratch buffer, with the attribute in it, until its last part has ended.
                unsafe { ring.transfer(transfer, lease, part.data.clone(), user_data) }
            }
            Way::Nvme(namespace) => {
                let data = (lease.data_ptr().wrapping_add(part.data.start) as u64, part.data.len() as u32);
                let metadata = (pi, part.pi.len() as u32);
                let command = namespace.transfer(part.write, part.check, part.offset, data, metadata);
                self.command(ring, namespace, &command, true, user_data);
            }
        }
    }

    /// Starts a flush.
    pub fn flush(&self, ring: &mut Ring, user_data: u64) {
        match self {
            Way::Block { medium, .. } => {
                let entry =
                    opcode::Fsync::new(types::Fd(medium.fd())).flags(types::FsyncFlags::DATASYNC).build();
                // SAFETY: the entry names no memory.
                unsafe { ring.push(&entry.user_data(user_data)) }
            }
            Way::Nvme(namespace) => self.command(ring, namespace, &namespace.flush(), false, user_data),
        }
    }

    /// Starts a discard of `range` bytes of the device. The scratch buffer holds what the device reads of it.
    pub fn discard(&self, ring: &mut Ring, range: Range<u64>, scratch: &mut Scratch, user_data: u64) {
        let bytes = range.end - range.start;
        match self {
            Way::Block { medium, .. } => {
                let mut command = [0; 16];
                // `addr3`, which is where a command of the block layer has its length.
                command[..8].copy_from_slice(&bytes.to_ne_bytes());
                let entry = opcode::UringCmd16::new(types::Fd(medium.fd()), DISCARD)
                    .addr(Some(range.start))
                    .cmd(command)
                    .build()
                    // From a worker thread of the kernel's: tried without waiting, as it would be first, a device that cannot do
                    // that (an md mirror) says that it knows no discards.
                    .flags(squeue::Flags::ASYNC);
                // SAFETY: the entry names no memory: `addr` is a place on the device.
                unsafe { ring.push(&entry.user_data(user_data)) }
            }
            Way::Nvme(namespace) => {
                scratch.pi_mut(0..16).copy_from_slice(&namespace.range(range.start, bytes));
                let command = namespace.discard(scratch.pointer(0) as u64);
                self.command(ring, namespace, &command, false, user_data);
            }
        }
    }

    fn command(
        &self,
        ring: &mut Ring,
        namespace: &Namespace,
        command: &nvme::Command,
        data: bool,
        user_data: u64,
    ) {
        let fixed = (data && ring.is_fixed()).then_some(0);
        let entry = opcode::UringCmd80::new(types::Fd(namespace.fd()), URING_COMMAND)
            .cmd(command.bytes())
            .buf_index(fixed)
            .build()
            .user_data(user_data);
        // SAFETY: the request owns the lease and the scratch buffer, which the command names, until this has ended.
        let pushed = unsafe { ring.push_wide(&entry) };
        debug_assert!(pushed, "the store asked for a ring of wide entries");
    }

    /// Reads a completion of something that was to move `bytes` of data (0 for what moves none).
    pub fn ended(&self, result: i32, bytes: usize) -> Ended {
        if result == -libc::EINTR || result == -libc::EAGAIN {
            return Ended::Again;
        }
        if result < 0 {
            let errno = result.saturating_neg();
            return if errno == libc::EILSEQ { Ended::Mismatch(None) } else { Ended::Failed(Errno(errno)) };
        }
        match self {
            Way::Block { .. } if result as usize >= bytes => Ended::Done,
            // The device has become smaller than the disk.
            Way::Block { .. } => Ended::Failed(Errno(libc::EIO)),
            Way::Nvme(_) if result == 0 => Ended::Done,
            Way::Nvme(_) => match nvme::mismatch(result) {
                Some(tag) => Ended::Mismatch(Some(tag)),
                None => Ended::Failed(Errno(nvme::errno(result))),
            },
        }
    }

    /// The device's size in bytes now.
    pub fn size_now(&self) -> Result<u64, StoreError> {
        match self {
            Way::Block { medium, .. } => medium.size_now(),
            Way::Nvme(namespace) => namespace.size_now(),
        }
    }

    /// The device's path.
    pub fn path(&self) -> &Path {
        match self {
            Way::Block { medium, .. } => &medium.path,
            Way::Nvme(namespace) => &namespace.path,
        }
    }

    /// The number that interval `index` of the disk has on the device, if that is known.
    pub fn device_interval(&self, index: u64) -> Option<u64> {
        match self {
            Way::Block { base, .. } => base.map(|base| base + index),
            Way::Nvme(_) => Some(index),
        }
    }
}
