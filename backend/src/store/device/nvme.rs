//! An NVMe namespace by passthrough (`/dev/ngXnY`): commands of our own making, and their exact status.
//!
//! ```text
//! identify -> Namespace (format, limits)          command() -> 80 bytes of a wide entry -> status -> decode()
//! ```
//!
//! The kernel's block layer is not there: no splitting, no partitions, no dm, no other path when one fails, no mapping of
//! reference tags. The disk is the whole namespace, so the guest's interval numbers are the device's, and need none.
//!
//! Sources: the NVM command set specification 1.0 (Read, Write, Dataset Management, sections 3.2; identify data, 4.1);
//! `struct nvme_uring_cmd`, linux/nvme_ioctl.h.

use super::format::whole;
use super::ioctl::{identify, nvme_flush, nvme_id};
use crate::io::PAGE;
use crate::store::StoreError;
use crate::store::lock::{Access, lock};
use integrity::{Guard, PiType, Profile, ProfileSpec, Tag};
use rustix::fs::{OFlags, fstat, major, minor};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// `NVME_URING_CMD_IO`: `_IOWR('N', 0x80, struct nvme_uring_cmd)`.
pub(super) const URING_COMMAND: u32 = 0xC048_4E80;

const FLUSH: u8 = 0x00;
const WRITE: u8 = 0x01;
const READ: u8 = 0x02;
const DATASET_MANAGEMENT: u8 = 0x09;

/// Bits of command dword 12: force unit access, and what the controller checks.
const FUA: u32 = 1 << 30;
const CHECK_GUARD: u32 = 1 << 28;
const CHECK_REFERENCE: u32 = 1 << 26;
/// Bit of command dword 11: deallocate.
const DEALLOCATE: u32 = 1 << 2;

/// An open namespace.
#[derive(Debug)]
pub(crate) struct Namespace {
    file: File,
    pub path: PathBuf,
    /// The block device of the same namespace, open so that nobody else uses it.
    _claim: Option<File>,
    id: u32,
    pub profile: Profile,
    /// Size in bytes.
    pub bytes: u64,
    /// Bytes of a block.
    pub block: u32,
    /// Bytes of data of one command, at most.
    pub part: usize,
    /// Whether discards can be sent.
    pub discards: bool,
    /// Bytes of one discard, at most.
    pub discard_most: u64,
    /// Whether a completed write may still be lost.
    pub volatile_cache: bool,
}

/// Whether a path is an NVMe namespace's character device.
pub(crate) fn is_namespace(path: &Path) -> bool {
    let character = std::fs::metadata(path).is_ok_and(|found| found.file_type().is_char_device());
    character && name_of(path).is_some()
}

/// The character device of the namespace that a block device is, where there is one.
pub(crate) fn sibling_of_block(path: &Path) -> Option<PathBuf> {
    let path = std::fs::canonicalize(path).ok()?;
    let name = path.file_name()?.to_str()?.strip_prefix("nvme")?;
    let sibling = path.with_file_name(format!("ng{name}"));
    is_namespace(&sibling).then_some(sibling)
}

/// Its name in sysfs, `ngXnY`.
fn name_of(path: &Path) -> Option<String> {
    let device = std::fs::metadata(path).ok()?;
    let device = std::os::unix::fs::MetadataExt::rdev(&device);
    let link = format!("/sys/dev/char/{}:{}", major(device), minor(device));
    let name = std::fs::canonicalize(link).ok()?.file_name()?.to_str()?.to_owned();
    let (controller, namespace) = name.strip_prefix("ng")?.split_once('n')?;
    let numbers = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    (numbers(controller) && numbers(namespace)).then_some(name)
}

impl Namespace {
    /// Opens a namespace and asks the controller about it. Exclusive access also claims its block device.
    ///
    /// # Errors
    /// Among others that its format is none that can be served, and why.
    pub fn open(path: &Path, access: Access) -> Result<Self, StoreError> {
        let writes = access == Access::Exclusive;
        let file = OpenOptions::new()
            .read(true)
            .write(writes)
            .open(path)
            .map_err(StoreError::io(path, "cannot open"))?;
        let found = fstat(&file).map_err(StoreError::io(path, "cannot stat"))?;
        let same = std::fs::metadata(path).is_ok_and(|now| {
            std::os::unix::fs::MetadataExt::rdev(&now) == found.st_rdev && now.file_type().is_char_device()
        });
        let name = name_of(path).filter(|_| same);
        let name =
            name.ok_or_else(|| StoreError::NotADisk { path: path.to_owned(), found: "a special file" })?;
        let block_name = name.replacen("ng", "nvme", 1);
        // Not beside `path`, which may be a link from elsewhere.
        let claim = if writes { claim(&Path::new("/dev").join(&block_name))? } else { None };
        let ask = |cns, id| identify(&file, id, cns);
        let failed = |what| StoreError::io(path, what);
        let id = nvme_id(&file).map_err(failed("cannot tell its namespace"))?;
        let controller = ask(1, 0).map_err(failed("cannot identify its controller"))?;
        let namespace = ask(0, id).map_err(failed("cannot identify the namespace"))?;
        // Extended formats exist only where the controller says so (CTRATT.ELBAS).
        let extended = if word(&controller[..], 96) & 1 << 15 != 0 { ask(5, id).ok() } else { None };
        let unusable = |why: String| StoreError::DevicePi { path: path.to_owned(), why };
        let format = format(&namespace[..], extended.as_ref().map(|answer| &answer[..])).map_err(unusable)?;
        let limit = |name: &str| {
            let text = std::fs::read_to_string(format!("/sys/class/block/{block_name}/queue/{name}")).ok()?;
            text.trim().parse::<usize>().ok()
        };
        // Pages of the controller are at least those of the machine here.
        let most = match controller[77] {
            0 => 1 << 20,
            exponent => PAGE << exponent.min(16),
        };
        let bytes = limit("max_hw_sectors_kb").map_or(most.min(128 << 10), |kilobytes| kilobytes << 10);
        // The pool's pages need not be neighbours in memory.
        let bytes = bytes.min(limit("max_segments").unwrap_or(32) * PAGE).min(1 << 20);
        // The kernel has asked the controller (DMRSL); 0: it would send none.
        let discard_most = limit("discard_max_bytes").map_or(u64::MAX, |bytes| bytes as u64);
        Ok(Self {
            part: whole(bytes, format.block, &format.profile),
            discards: u16::from_le_bytes([controller[520], controller[521]]) & 1 << 2 != 0
                && discard_most != 0,
            discard_most,
            volatile_cache: controller[525] & 1 != 0,
            path: path.to_owned(),
            _claim: claim,
            id,
            profile: format.profile,
            bytes: format.blocks.saturating_mul(format.block.into()),
            block: format.block,
            file,
        })
    }

    /// Takes the one-writer lock.
    pub fn lock(&self, access: Access) -> Result<(), StoreError> {
        lock(&self.file, &self.path, access, |_| None)
    }

    /// Makes every completed write durable, and waits for it.
    pub fn flush_now(&self) -> io::Result<()> {
        nvme_flush(&self.file, self.id)
    }

    /// Its size in bytes now.
    pub fn size_now(&self) -> Result<u64, StoreError> {
        let answer = identify(&self.file, self.id, 0)
            .map_err(StoreError::io(&self.path, "cannot identify the namespace"))?;
        Ok(blocks(&answer[..]).saturating_mul(self.block.into()))
    }

    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// A read or write of `bytes` at `offset`, both whole blocks. `data` and `metadata` are where they are in memory.
    pub(super) fn transfer(
        &self,
        write: Option<bool>,
        check: bool,
        offset: u64,
        data: (u64, u32),
        metadata: (u64, u32),
    ) -> Command {
        let block = u64::from(self.block);
        let first = offset / block;
        let blocks = u64::from(data.1) / block;
        let mut control = (blocks.saturating_sub(1) & 0xFFFF) as u32;
        if check && self.profile.guard() != Guard::None {
            control |= CHECK_GUARD;
            if self.profile.pi_type() == PiType::Type1 {
                control |= CHECK_REFERENCE;
            }
        }
        if write == Some(true) {
            control |= FUA;
        }
        Command {
            opcode: if write.is_some() { WRITE } else { READ },
            namespace: self.id,
            data,
            metadata,
            // The reference tag that the controller expects: with a 48-bit tag, dword 3 has the upper bits.
            dword3: if self.profile.guard() == Guard::Crc64Nvme { (first >> 32) as u32 & 0xFFFF } else { 0 },
            dwords: [first as u32, (first >> 32) as u32, control, 0, first as u32, 0],
        }
    }

    /// Makes every completed write durable.
    pub(super) fn flush(&self) -> Command {
        Command {
            opcode: FLUSH,
            namespace: self.id,
            data: (0, 0),
            metadata: (0, 0),
            dword3: 0,
            dwords: [0; 6],
        }
    }

    /// Deallocates the one range at `address` in memory.
    pub(super) fn discard(&self, address: u64) -> Command {
        Command {
            opcode: DATASET_MANAGEMENT,
            namespace: self.id,
            data: (address, 16),
            metadata: (0, 0),
            dword3: 0,
            dwords: [0, DEALLOCATE, 0, 0, 0, 0],
        }
    }

    /// A range to deallocate, as the controller reads it.
    pub(super) fn range(&self, offset: u64, bytes: u64) -> [u8; 16] {
        let block = u64::from(self.block);
        let mut range = [0; 16];
        range[4..8].copy_from_slice(&((bytes / block) as u32).to_le_bytes());
        range[8..].copy_from_slice(&(offset / block).to_le_bytes());
        range
    }
}

/// Opens the block device of a namespace so that neither a mount nor another daemon uses it meanwhile. A namespace need
/// not have one.
fn claim(path: &Path) -> Result<Option<File>, StoreError> {
    if !std::fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device()) {
        return Ok(None);
    }
    let flags = OFlags::EXCL.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|source| {
        if source.raw_os_error() == Some(libc::EBUSY) {
            let by = "by the kernel or another exclusive opener (see lsblk and fuser)".to_owned();
            return StoreError::InUse { path: path.to_owned(), by };
        }
        StoreError::io(path, "cannot open")(source)
    })?;
    lock(&file, path, Access::Exclusive, |_| None)?;
    Ok(Some(file))
}

/// One command, but for who is told of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Command {
    opcode: u8,
    namespace: u32,
    /// Address and length.
    data: (u64, u32),
    metadata: (u64, u32),
    dword3: u32,
    /// Command dwords 10 to 15.
    dwords: [u32; 6],
}

impl Command {
    /// As `struct nvme_uring_cmd`, at the start of an entry's 80 bytes.
    pub fn bytes(&self) -> [u8; 80] {
        let mut bytes = [0; 80];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &[self.opcode]);
        put(4, &self.namespace.to_ne_bytes());
        put(12, &self.dword3.to_ne_bytes());
        put(16, &self.metadata.0.to_ne_bytes());
        put(24, &self.data.0.to_ne_bytes());
        put(32, &self.metadata.1.to_ne_bytes());
        put(36, &self.data.1.to_ne_bytes());
        for (at, dword) in (40..).step_by(4).zip(self.dwords) {
            put(at, &dword.to_ne_bytes());
        }
        bytes
    }
}

/// The tag that a status names, if it is about PI (status code type 2; the two top bits are More and Do Not Retry).
pub(super) fn mismatch(status: i32) -> Option<Tag> {
    match status & 0x7FF {
        0x282 => Some(Tag::Guard),
        0x283 => Some(Tag::Application),
        0x284 => Some(Tag::Reference),
        _ => None,
    }
}

/// What a namespace is formatted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NamespaceFormat {
    profile: Profile,
    blocks: u64,
    block: u32,
}

/// Reads the answers to identify: the namespace (CNS 0), and its extended formats (CNS 5) where there are any.
fn format(namespace: &[u8], extended: Option<&[u8]>) -> Result<NamespaceFormat, String> {
    let byte = |at: usize| namespace.get(at).copied().unwrap_or(0);
    let flbas = usize::from(byte(26));
    let index = (flbas & 0xF) | (flbas & 0x60) >> 1;
    let (metadata_size, shift) =
        (u16::from_le_bytes([byte(128 + 4 * index), byte(129 + 4 * index)]), byte(130 + 4 * index));
    if !(9..=16).contains(&shift) {
        return Err(format!("blocks of 2^{shift} bytes are none that can be served"));
    }
    if metadata_size == 0 {
        return Err("the namespace is formatted without metadata".to_owned());
    }
    if flbas & 1 << 4 != 0 {
        return Err(
            "its metadata is transferred as part of the data (extended blocks); format it with separate \
                    metadata (nvme format --ms=0)"
                .to_owned(),
        );
    }
    let extended = extended.map_or(0, |answer| word(answer, 12 + 4 * index));
    let (storage_bits, kind) = (extended & 0x7F, extended >> 7 & 3);
    let pi_type = byte(29) & 7;
    let (guard, pi_type) = match (pi_type, kind) {
        (0, _) => (Guard::None, PiType::Type0),
        (2, _) => return Err("its PI is of type 2, whose reference tags are no block numbers".to_owned()),
        (_, 1 | 3) => {
            return Err("its guard is of 32 bits, or qualified; 16 and 64 bits can be served".to_owned());
        }
        _ if storage_bits != 0 => return Err(format!("its PI has a storage tag ({storage_bits} bits)")),
        (3, kind) => (if kind == 2 { Guard::Crc64Nvme } else { Guard::Crc16T10Dif }, PiType::Type3),
        (1, kind) => (if kind == 2 { Guard::Crc64Nvme } else { Guard::Crc16T10Dif }, PiType::Type1),
        (other, _) => return Err(format!("its PI is of type {other}, which is unknown")),
    };
    let first = byte(29) & 1 << 3 != 0;
    let offset = if first || guard == Guard::None {
        0
    } else {
        usize::from(metadata_size) - guard.tuple_size().min(usize::from(metadata_size))
    };
    let tag_size = match pi_type {
        PiType::Type0 => 0,
        PiType::Type1 => 2,
        PiType::Type3 if guard == Guard::Crc64Nvme => 8,
        PiType::Type3 => 6,
    };
    let profile = Profile::new(ProfileSpec {
        guard,
        interval: 1 << shift,
        metadata_size,
        pi_offset: u8::try_from(offset)
            .map_err(|_| format!("{metadata_size} bytes of metadata are too many"))?,
        tag_size,
        pi_type,
    });
    let profile = profile.map_err(|error| error.to_string())?;
    Ok(NamespaceFormat { profile, blocks: blocks(namespace), block: 1 << shift })
}

/// The namespace's size in blocks.
fn blocks(namespace: &[u8]) -> u64 {
    namespace.get(..8).and_then(|size| size.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// What a status says to somebody who wants an errno.
pub(super) fn errno(status: i32) -> i32 {
    match status & 0x7FF {
        // Invalid field, invalid opcode.
        0x001 | 0x002 => libc::EOPNOTSUPP,
        // LBA out of range.
        0x080 => libc::ERANGE,
        // Write to read-only range, namespace is write protected.
        0x182 | 0x020 => libc::EROFS,
        _ => libc::EIO,
    }
}

#[cfg(test)]
#[path = "nvme_tests.rs"]
mod tests;
