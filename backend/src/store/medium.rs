//! What data or metadata lies on: a regular file or a block device, its shape, and whether I/O can be direct.

use crate::limit::Limit;
use crate::store::lock::{Access, lock};
use crate::store::{DiscardUnit, Errno, StoreError};
use memmap2::MmapOptions;
use rustix::fs::{
    AtFlags, FileType, FlockOperation, OFlags, StatxFlags, fcntl_getfl, fcntl_setfl, fstat, ioctl_blkpbszget,
    ioctl_blksszget, major, minor, statx,
};
use rustix::io::Errno as Kernel;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Whether data bypasses the page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direct {
    /// Where the file system can do it in sectors as small as the disk needs.
    #[default]
    Auto,
    /// Always; a disk where it is impossible is refused.
    On,
    /// Never.
    Off,
}

/// A disk's smallest sector, whatever its medium: the block protocol counts in it.
pub(crate) const SECTOR: u32 = 512;
/// STATX_WRITE_ATOMIC (linux/stat.h, Linux 6.11).
const STATX_WRITE_ATOMIC: u32 = 0x0001_0000;

/// An open file or device.
#[derive(Debug)]
pub(crate) struct Medium {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    /// Whether it is a block device.
    pub(crate) device: bool,
    /// Size in bytes.
    pub(crate) bytes: u64,
    /// Smallest unit of I/O.
    pub(crate) sector: u32,
    /// The unit the medium writes in.
    pub(crate) physical: u32,
    /// Whether the page cache is bypassed.
    pub(crate) direct: bool,
    /// Whether a write that has completed may still be lost until a flush.
    pub(crate) volatile: bool,
    /// The errno after which nothing here can be called durable any more, or 0.
    broken: Mutex<i32>,
}

/// Size and time of last modification, as the sidecar records them at a clean close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) bytes: u64,
    /// Seconds and nanoseconds; zeroes on a block device, which keeps none that means anything.
    pub(crate) modified: (i64, u32),
}

impl Medium {
    /// Opens a file or device for I/O in whole `unit`s (a power of two, in bytes).
    pub(crate) fn open(path: &Path, access: Access, direct: Direct, unit: u32) -> Result<Self, StoreError> {
        // Looked at before it is opened, for opening a FIFO would wait and opening a terminal would act on it.
        let kind = std::fs::metadata(path).map_err(StoreError::io(path, "cannot open"))?.file_type();
        let device = kind.is_block_device();
        if !device && !kind.is_file() {
            let found = if kind.is_dir() { "a directory" } else { "a special file" };
            return Err(StoreError::NotADisk { path: path.to_owned(), found });
        }
        let writes = access == Access::Exclusive;
        // On a block device O_EXCL keeps mounts and other exclusive openers out (open(2)).
        let flags = if device && writes { OFlags::EXCL } else { OFlags::empty() };
        let mut options = OpenOptions::new();
        options.read(true).write(writes).custom_flags(flags.bits().cast_signed());
        let open = || {
            options.open(path).map_err(|source| match Kernel::from_io_error(&source) {
                Some(Kernel::BUSY) => StoreError::InUse {
                    path: path.to_owned(),
                    by: "by the kernel or another exclusive opener (see lsblk and fuser)".to_owned(),
                },
                _ => StoreError::io(path, "cannot open")(source),
            })
        };
        let mut file = if device { patiently(open)? } else { open()? };
        let stat = fstat(&file).map_err(StoreError::io(path, "cannot stat"))?;
        if (FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice) != device {
            return Err(StoreError::NotADisk { path: path.to_owned(), found: "changing while it is opened" });
        }
        let bytes = file.seek(SeekFrom::End(0)).map_err(StoreError::io(path, "cannot tell its size"))?;
        let (sector, physical) = if device {
            let sector =
                ioctl_blksszget(&file).map_err(StoreError::io(path, "cannot tell its sector size"))?;
            (sector, ioctl_blkpbszget(&file).unwrap_or(sector).max(sector))
        } else {
            (SECTOR, u32::try_from(stat.st_blksize).unwrap_or(4096).clamp(SECTOR, 4096).next_power_of_two())
        };
        let direct = choose_direct(&file, path, direct, unit.max(sector))?;
        let (path, physical) = (path.to_owned(), physical.max(unit));
        let mut medium = Self {
            file,
            path,
            device,
            bytes,
            sector,
            physical,
            direct,
            volatile: true,
            broken: Mutex::new(0),
        };
        // A file's blocks may have to be allocated durably, and cached pages have to be written, whatever the device.
        let write_through = medium.attribute("queue/write_cache").is_some_and(|text| text == "write through");
        medium.volatile = !(device && direct && write_through);
        Ok(medium)
    }

    /// Reads all of it, wherever it lies: direct I/O wants whole sectors, of which an interval may be a part.
    pub(crate) fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let sector = u64::from(self.sector);
        let start = offset / sector * sector;
        let end = (offset + bytes.len() as u64).next_multiple_of(sector);
        let aligned = (bytes.as_ptr().addr() as u64).is_multiple_of(sector)
            && (start, end) == (offset, offset + bytes.len() as u64);
        if !self.direct || aligned {
            return self.file.read_exact_at(bytes, offset);
        }
        // Both are bounded by a buffer's length and a sector's.
        let mut whole = MmapOptions::new().len((end - start) as usize).map_anon()?;
        self.file.read_exact_at(&mut whole, start)?;
        bytes.copy_from_slice(&whole[(offset - start) as usize..][..bytes.len()]);
        Ok(())
    }

    /// Writes all of it, not durably.
    pub(crate) fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        #[cfg(test)]
        let _written = crate::io::tap::writing(&self.file, offset, bytes)?;
        self.file.write_all_at(bytes, offset)
    }

    /// Makes every write that has completed durable. After a failure every later call fails, too: the kernel may have
    /// dropped what it could not write, and tells so once.
    pub(crate) fn sync(&self) -> Result<(), Errno> {
        if !self.volatile {
            return Ok(());
        }
        // Held over the call: a failure is told to one caller only, and no other may believe in success meanwhile.
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if *broken == 0 {
            match self.sync_data() {
                Ok(()) => return Ok(()),
                Err(error) => *broken = error.raw_os_error().unwrap_or(libc::EIO),
            }
        }
        Err(Errno(*broken))
    }

    /// The same for a tool, which asks once.
    pub(crate) fn sync_data(&self) -> io::Result<()> {
        #[cfg(test)]
        let _synced = crate::io::tap::syncing(&self.file)?;
        self.file.sync_data()
    }

    /// Has what is read from now on come from the medium. What was written is durable.
    pub(crate) fn forget_cached(&self) {
        // Advice, which nobody has to take; direct I/O needs none.
        let _ = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed);
    }

    /// Refuses a size that no disk can have: none, or no whole number of sectors.
    pub(crate) fn check_size(&self) -> Result<(), StoreError> {
        let (path, bytes, unit) = (self.path.clone(), self.bytes, self.sector);
        match bytes {
            0 => Err(StoreError::Empty { path }),
            _ if bytes % u64::from(unit) != 0 => Err(StoreError::Size { path, bytes, unit, what: "sectors" }),
            _ => Ok(()),
        }
    }

    /// Its size in bytes now.
    pub(crate) fn size_now(&self) -> Result<u64, StoreError> {
        (&self.file).seek(SeekFrom::End(0)).map_err(StoreError::io(&self.path, "cannot tell its size"))
    }

    /// Takes the one-writer lock; see [`lock`].
    pub(crate) fn lock(
        &self,
        access: Access,
        owner: impl Fn(Option<u32>) -> Option<String>,
    ) -> Result<(), StoreError> {
        let lock = || lock(&self.file, &self.path, access, &owner);
        if self.device { patiently(lock) } else { lock() }
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// How it discards, if it can.
    ///
    /// On a device, fallocate's hole is a write of zeroes that the device must do by itself, so both limits count.
    pub(crate) fn discard_unit(&self) -> Option<DiscardUnit> {
        if !self.device {
            // Smaller holes are zeroed instead of freed.
            return Some(DiscardUnit { granularity: self.physical, alignment: 0 });
        }
        let limit = |name: &str| self.queue_limit(name).filter(|value| *value > 0);
        limit("queue/discard_max_bytes")?;
        limit("queue/write_zeroes_max_bytes")?;
        Some(DiscardUnit {
            granularity: limit("queue/discard_granularity").unwrap_or(self.sector).max(self.sector),
            alignment: self.queue_limit("discard_alignment").unwrap_or(0),
        })
    }

    /// How a device forgets blocks, if it can. Unlike [`discard_unit`](Self::discard_unit) this promises no zeroes.
    pub(crate) fn unmap_unit(&self) -> Option<DiscardUnit> {
        self.queue_limit("queue/discard_max_bytes").filter(|bytes| self.device && *bytes > 0)?;
        Some(DiscardUnit {
            granularity: self
                .queue_limit("queue/discard_granularity")
                .unwrap_or(self.sector)
                .max(self.sector),
            alignment: self.queue_limit("discard_alignment").unwrap_or(0),
        })
    }

    /// Whether it is a device that takes no writes, whoever asks.
    pub(crate) fn is_read_only_device(&self) -> bool {
        self.device && self.queue_limit("ro") == Some(1)
    }

    /// A number from the device's folder in sysfs.
    fn queue_limit(&self, name: &str) -> Option<u32> {
        Some(u32::try_from(self.attribute(name)?.parse::<u64>().ok()?).unwrap_or(u32::MAX))
    }

    /// What the device's folder in sysfs has by this name; what a partition lacks is its disk's.
    pub(crate) fn attribute(&self, name: &str) -> Option<String> {
        self.own_attribute(name).or_else(|| self.own_attribute(&format!("../{name}")))
    }

    /// The same of the device itself, even if it is a partition.
    pub(crate) fn own_attribute(&self, name: &str) -> Option<String> {
        Some(std::fs::read_to_string(self.folder()?.join(name)).ok()?.trim().to_owned())
    }

    /// The device's folder in sysfs.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        let device = fstat(&self.file).ok()?.st_rdev;
        Some(PathBuf::from(format!("/sys/dev/block/{}:{}", major(device), minor(device))))
    }

    /// The largest aligned write that a power cut leaves either done or not done: the sector of the medium, or
    /// more where the kernel promises more (statx, `atomic_write_unit_max`).
    pub(crate) fn atomic_unit(&self) -> u32 {
        let mut unit = self.sector;
        let mask = StatxFlags::DIOALIGN | StatxFlags::from_bits_retain(STATX_WRITE_ATOMIC);
        if let Ok(found) = statx(&self.file, c"", AtFlags::EMPTY_PATH, mask) {
            if found.stx_mask & StatxFlags::DIOALIGN.bits() != 0 {
                unit = unit.max(found.stx_dio_offset_align);
            }
            if found.stx_mask & STATX_WRITE_ATOMIC != 0 {
                unit = unit.max(found.stx_atomic_write_unit_max);
            }
        }
        unit
    }

    /// Size and time of last modification now.
    pub(crate) fn stamp(&self) -> Result<Stamp, StoreError> {
        let stat = fstat(&self.file).map_err(StoreError::io(&self.path, "cannot stat"))?;
        if self.device {
            return Ok(Stamp { bytes: self.size_now()?, modified: (0, 0) });
        }
        let bytes = u64::try_from(stat.st_size).unwrap_or(0);
        Ok(Stamp { bytes, modified: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)) })
    }
}

impl Drop for Medium {
    /// The kernel may hold the open file for a moment longer (an io_uring that is being torn down, a child between
    /// fork and exec); the lock is given back now.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

/// Tries for a second. A device may be in use for a moment without being used: udev locks it while it looks at it,
/// and the kernel may hold a closed one for a little longer.
fn patiently<T>(attempt: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    for _ in 0..20 {
        match attempt() {
            Err(StoreError::InUse { .. }) => std::thread::sleep(Duration::from_millis(50)),
            result => return result,
        }
    }
    attempt()
}

/// Sets O_DIRECT where it is wanted and possible for aligned I/O of `unit` bytes.
fn choose_direct(file: &File, path: &Path, direct: Direct, unit: u32) -> Result<bool, StoreError> {
    if direct == Direct::Off {
        return Ok(false);
    }
    let why = match direct_alignment(file, unit) {
        Ok(align) if align <= unit => return Ok(true),
        Ok(align) => {
            format!("it would need requests of {align} bytes, and the disk's sectors are {unit} bytes")
        }
        Err(error) => format!("the file system says {}", std::io::Error::from(error)),
    };
    clear_direct(file).map_err(StoreError::io(path, "cannot leave direct I/O"))?;
    if direct == Direct::On {
        return Err(StoreError::Direct { path: path.to_owned(), why });
    }
    let name = path.display().to_string();
    // A guest decides how often its disk is opened.
    Limit::of(&name, "direct", module_path!())
        .log(log::Level::Info, || format!("{name}: buffered, as direct I/O is not possible: {why}"));
    Ok(false)
}

/// Sets O_DIRECT and says which alignment it needs.
fn direct_alignment(file: &File, unit: u32) -> Result<u32, Kernel> {
    fcntl_setfl(file, fcntl_getfl(file)? | OFlags::DIRECT)?;
    if let Ok(found) = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        && found.stx_mask & StatxFlags::DIOALIGN.bits() != 0
    {
        // Zero: not on this file. Buffers start on pages, which every memory alignment divides.
        return match found.stx_dio_offset_align {
            0 => Err(Kernel::INVAL),
            align => Ok(align),
        };
    }
    // Linux before 6.1, or a file system that does not say: try.
    #[repr(align(4096))]
    struct Aligned([u8; 4096]);
    let mut buffer = Aligned([0; 4096]);
    let length = usize::try_from(unit).unwrap_or(4096).min(4096);
    match rustix::io::pread(file, &mut buffer.0[..length], 0) {
        Ok(_) => Ok(unit),
        Err(error) => Err(error),
    }
}

fn clear_direct(file: &File) -> Result<(), Kernel> {
    fcntl_setfl(file, fcntl_getfl(file)?.difference(OFlags::DIRECT))
}
