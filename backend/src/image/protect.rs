//! Protect: makes a sidecar, with PI for the data that is there.
//!
//! ```text
//! lock the data -> SIDECAR.tmp-PID: metadata of every extent, synced -> both headers, synced
//!   -> data unchanged since? -> renamed to SIDECAR -> folder synced
//! ```
//!
//! A sidecar on a device is written in place, its header last, so that a half-made one is none.

use crate::image::extents::Extents;
use crate::image::scan::{Chunk, Visitor, chunks, scan};
use crate::image::{ImageError, Observer};
use crate::store::lock::Access;
use crate::store::medium::{Direct, Medium};
use crate::store::sidecar::{
    BLOCK, Closed, HEADERS, Header, PiFile, default_path, owner_record, read_header, user_of, write_header,
};
use crate::store::{Errno, StoreError};
use integrity::{Guard, PiType, Profile};
use rustix::fs::{CWD, FallocateFlags, RenameFlags, fallocate, fchown, fstat, renameat_with};
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What to protect, and how.
#[derive(Clone, Debug)]
pub struct ProtectOptions {
    /// The data.
    pub disk: PathBuf,
    /// The sidecar to make, a file or a block device; `DISK.pi` if none is named.
    pub sidecar: Option<PathBuf>,
    /// What is kept per interval.
    pub profile: Profile,
    /// The application tag of the data that is there.
    pub app_tag: u16,
    /// Bytes of the log area; by the data's size if none is given.
    pub log: Option<u64>,
    /// Whether a sidecar that exists is replaced.
    pub force: bool,
    /// Whether an interval may be larger than what is written whole when the power fails.
    pub non_atomic: bool,
}

/// A sidecar was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protected {
    /// Where it is.
    pub sidecar: PathBuf,
    /// Intervals of the disk.
    pub intervals: u64,
    /// Those that got PI; the others lie in holes and carry an escape.
    pub sealed: u64,
}

/// Makes a sidecar for a disk that nobody uses.
///
/// # Errors
/// [`ImageError`]: it could not be done; what was there before is unchanged (a device's contents excepted).
pub fn protect(options: &ProtectOptions, observer: &mut dyn Observer) -> Result<Protected, ImageError> {
    let spec = options.profile.spec();
    if options.app_tag != 0 && (spec.guard == Guard::None || spec.tag_size < 2) {
        return Err(ImageError::NoAppTag);
    }
    let sidecar = options.sidecar.clone().unwrap_or_else(|| default_path(&options.disk));
    let data = Medium::open(&options.disk, Access::Shared, Direct::Auto, spec.interval)?;
    data.lock(Access::Exclusive, |process| user_of(&sidecar, process))?;
    data.check_size()?;
    if data.bytes % u64::from(spec.interval) != 0 {
        let (path, bytes) = (options.disk.clone(), data.bytes);
        return Err(StoreError::Size { path, bytes, unit: spec.interval, what: "intervals" }.into());
    }
    let atomic = data.atomic_unit();
    if spec.interval > atomic && !options.non_atomic {
        return Err(ImageError::NonAtomic { path: options.disk.clone(), interval: spec.interval, atomic });
    }
    let before = data.stamp()?;
    let header = Header::new(options.profile, data.bytes, spec.interval > atomic);
    let header = Header {
        clean: true,
        closed: Closed::of(before),
        owner: owner_record("dixback image protect"),
        ..options.log.map_or(header.clone(), |bytes| header.with_log(bytes))
    };
    let target = Target::create(&sidecar, &data, &header, options.force)?;
    let layout = header.layout();
    let pi = PiFile { medium: target.medium()?, header, layout, damaged: false };
    let mut sealer = Sealer { data: &data, pi: &pi, app_tag: options.app_tag, sealed: 0, observer };
    if spec.guard != Guard::None {
        let extents = Extents::new(&data, 0..data.bytes);
        scan(&data, &layout, chunks(layout, extents), &mut sealer)?;
    }
    let sealed = sealer.sealed;
    sealer.observer.progress(data.bytes, data.bytes);
    let io_error = |doing| ImageError::io::<io::Error>(&pi.medium.path, doing);
    pi.medium.file.sync_all().map_err(io_error("cannot make the metadata durable"))?;
    if data.stamp()? != before {
        return Err(ImageError::Changed { path: options.disk.clone() });
    }
    // The older copy first; neither counts before the file has its name.
    for sequence in 0..2 {
        write_header(&pi.medium, &Header { sequence, ..pi.header.clone() })?;
    }
    pi.medium.file.sync_all().map_err(io_error("cannot make the header durable"))?;
    target.publish(options.force)?;
    Ok(Protected { sidecar, intervals: layout.intervals(), sealed })
}

struct Sealer<'a> {
    data: &'a Medium,
    pi: &'a PiFile,
    app_tag: u16,
    sealed: u64,
    observer: &'a mut dyn Observer,
}

impl Visitor for Sealer<'_> {
    fn prepare(&mut self, _chunk: Chunk, _metadata: &mut [u8]) -> Result<bool, ImageError> {
        Ok(true)
    }

    fn visit(
        &mut self,
        chunk: Chunk,
        data: Result<&[u8], Errno>,
        metadata: &mut [u8],
    ) -> Result<(), ImageError> {
        let (profile, layout) = (self.pi.header.profile, self.pi.layout);
        let data = data.map_err(|Errno(errno)| {
            ImageError::io(&self.data.path, "cannot be read in full")(io::Error::from_raw_os_error(errno))
        })?;
        // What lies before the tuple is covered by the guard, and starts as zeroes.
        metadata.fill(0);
        let reference = if profile.pi_type() == PiType::Type1 { chunk.first } else { 0 };
        profile.generate(data, metadata, reference, self.app_tag);
        let written = self.pi.write_metadata(chunk.first, metadata);
        written.map_err(ImageError::io(&self.pi.medium.path, "cannot write the metadata"))?;
        self.sealed += chunk.count;
        let done = (chunk.first + chunk.count) * layout.interval();
        self.observer.progress(done, self.pi.header.data_bytes);
        Ok(())
    }
}

/// Where the sidecar is made.
enum Target {
    /// In a new file, to be renamed; removed if that never happens.
    File { temporary: PathBuf, path: PathBuf },
    /// On a device.
    Device { path: PathBuf },
}

impl Target {
    fn create(path: &Path, data: &Medium, header: &Header, force: bool) -> Result<Self, ImageError> {
        let exists = || ImageError::Exists { path: path.to_owned() };
        if let Ok(present) = Medium::open(path, Access::Shared, Direct::Off, BLOCK as u32) {
            present.lock(Access::Exclusive, |process| user_of(path, process))?;
            if present.device {
                if !force && (read_header(&present).is_ok() || !is_blank(&present)) {
                    return Err(exists());
                }
                drop(present);
                return Self::device(path, header);
            }
        }
        if !force && path.symlink_metadata().is_ok() {
            return Err(exists());
        }
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".tmp-{}", std::process::id()));
        let target = Self::File { temporary: temporary.into(), path: path.to_owned() };
        target.file(data, header).map_err(ImageError::io(path, "cannot make the sidecar"))?;
        Ok(target)
    }

    /// A file as long as the sidecar, all holes, that belongs to whom the data belongs to.
    fn file(&self, data: &Medium, header: &Header) -> io::Result<()> {
        let stat = fstat(&data.file)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.work_path())?;
        file.set_len(header.sidecar_bytes())?;
        if !data.device {
            // Only root can give files away; then the maker's is the best there is.
            let _ = fchown(
                &file,
                Some(rustix::fs::Uid::from_raw(stat.st_uid)),
                Some(rustix::fs::Gid::from_raw(stat.st_gid)),
            );
            file.set_permissions(Permissions::from_mode(stat.st_mode & 0o666))?;
        }
        Ok(())
    }

    /// A device, zeroed where the sidecar will be.
    fn device(path: &Path, header: &Header) -> Result<Self, ImageError> {
        let medium = Medium::open(path, Access::Exclusive, Direct::Off, BLOCK as u32)?;
        let needed = header.sidecar_bytes();
        if medium.bytes < needed {
            return Err(ImageError::Small { path: path.to_owned(), found: medium.bytes, needed });
        }
        let durable = || {
            medium.sync_data().map_err(ImageError::io::<io::Error>(path, "cannot make the zeroes durable"))
        };
        // An older sidecar's headers go first, and for good: over a log and metadata of zeroes they would say that nothing
        // was ever protected.
        medium
            .write_all_at(&vec![0; HEADERS as usize], 0)
            .map_err(ImageError::io(path, "cannot zero the device"))?;
        durable()?;
        let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        fallocate(&medium.file, flags, HEADERS, needed - HEADERS)
            .map_err(ImageError::io(path, "cannot zero the device"))?;
        durable()?;
        Ok(Self::Device { path: path.to_owned() })
    }

    fn work_path(&self) -> &Path {
        match self {
            Self::File { temporary, .. } => temporary,
            Self::Device { path } => path,
        }
    }

    fn medium(&self) -> Result<Medium, StoreError> {
        Medium::open(self.work_path(), Access::Exclusive, Direct::Off, BLOCK as u32)
    }

    /// Gives a file its name, durably.
    fn publish(self, force: bool) -> Result<(), ImageError> {
        let Self::File { temporary, path } = &self else { return Ok(()) };
        let renamed = match force {
            true => std::fs::rename(temporary, path),
            false => {
                match renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE) {
                    // A file system without it; that nothing was there was seen when the work began.
                    Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                        std::fs::rename(temporary, path)
                    }
                    other => other.map_err(io::Error::from),
                }
            }
        };
        renamed.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => ImageError::Exists { path: path.clone() },
            _ => ImageError::io(path, "cannot give the sidecar its name")(error),
        })?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(ImageError::io(folder, "cannot make the sidecar's name durable"))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Self::File { temporary, .. } = self {
            // Renamed by now if all went well.
            let _ = std::fs::remove_file(temporary);
        }
    }
}

/// Whether a device starts and ends with nothing, as one that was never used does. File systems, partition tables and
/// arrays have their marks there, VMFS as far in as 2 MiB.
fn is_blank(medium: &Medium) -> bool {
    let mut part = vec![0; medium.bytes.min(4 << 20) as usize];
    [0, medium.bytes - part.len() as u64]
        .into_iter()
        .all(|at| medium.file.read_exact_at(&mut part, at).is_ok() && part.iter().all(|byte| *byte == 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::tap::{Deed, Fault, Tape};
    use integrity::ProfileSpec;
    use tempfile::NamedTempFile;

    fn header() -> Header {
        let spec = ProfileSpec {
            guard: Guard::Crc16T10Dif,
            interval: 512,
            metadata_size: 8,
            pi_offset: 0,
            tag_size: 2,
            pi_type: PiType::Type1,
        };
        Header::new(Profile::new(spec).unwrap(), 1 << 20, false)
    }

    /// A file that a device is played by, full of this.
    fn device(bytes: u64, byte: u8) -> NamedTempFile {
        // Beside the program: ZERO_RANGE is not for every file system.
        let folder = std::env::current_exe().unwrap();
        let file = NamedTempFile::new_in(folder.parent().unwrap()).unwrap();
        file.as_file().write_all_at(&vec![byte; bytes as usize], 0).unwrap();
        file
    }

    #[test]
    fn old_headers_when_they_may_come_back_are_followed_by_what_they_spoke_of() {
        let file = device(header().sidecar_bytes(), 0xAA);
        let tape = Tape::start(&[file.as_file()]);
        tape.fail(Fault { file: 0, deed: Deed::Sync, after: 0, times: 1 });
        assert!(Target::device(file.path(), &header()).is_err());
        tape.stop();
        let left = std::fs::read(file.path()).unwrap();
        assert!(left[HEADERS as usize..].iter().all(|byte| *byte == 0xAA));
        assert!(left[..HEADERS as usize].iter().all(|byte| *byte == 0));
        match Target::device(file.path(), &header()) {
            Ok(_) => assert!(std::fs::read(file.path()).unwrap().iter().all(|byte| *byte == 0)),
            // Of this file system.
            Err(ImageError::Io { source, .. }) => assert_eq!(source.raw_os_error(), Some(libc::EOPNOTSUPP)),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn device_when_a_byte_near_its_start_or_end_is_set_is_not_blank() {
        let bytes = 16 << 20;
        let file = device(bytes, 0);
        let blank =
            || is_blank(&Medium::open(file.path(), Access::Shared, Direct::Off, BLOCK as u32).unwrap());
        assert!(blank());
        // btrfs and reiserfs; VMFS; md.
        for at in [0, 65_600, 2 << 20, bytes - 65_536, bytes - 1] {
            file.as_file().write_all_at(&[1], at).unwrap();
            assert!(!blank(), "{at}");
            file.as_file().write_all_at(&[0], at).unwrap();
        }
        assert!(blank());
    }
}
