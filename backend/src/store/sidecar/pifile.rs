//! An open sidecar: its header, and its metadata for tools that read and write it directly.
#![forbid(unsafe_code)]

use crate::store::StoreError;
use crate::store::lock::Access;
use crate::store::medium::{Direct, Medium};
use crate::store::sidecar::header::COPIES;
use crate::store::sidecar::{BLOCK, Header, HeaderError, Layout, OwnerRecord};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A sidecar.
#[derive(Debug)]
pub(crate) struct PiFile {
    pub(crate) medium: Medium,
    pub(crate) header: Header,
    pub(crate) layout: Layout,
    /// Whether one of the header's copies is no good.
    pub(crate) damaged: bool,
}

/// A block where direct I/O wants it.
#[repr(align(4096))]
struct Aligned([u8; BLOCK]);

/// Where the sidecar of a disk is if nobody says otherwise.
pub(crate) fn default_path(data: &Path) -> PathBuf {
    let mut path = data.as_os_str().to_owned();
    path.push(".pi");
    path.into()
}

impl PiFile {
    /// Opens the sidecar of `data`. With `locked`, takes the one-writer lock before the header is read.
    pub(crate) fn open(
        path: &Path,
        data: &Path,
        access: Access,
        direct: Direct,
        locked: bool,
    ) -> Result<Self, StoreError> {
        let medium = open_medium(path, data, access, direct)?;
        if locked {
            medium.lock(access, |process| read_header(&medium).ok().and_then(|(h, _)| user(&h, process)))?;
        }
        let (header, damaged) = read_header(&medium)?;
        let needed = header.sidecar_bytes();
        if medium.bytes < needed {
            let (path, data, found) = (path.to_owned(), data.to_owned(), medium.bytes);
            return Err(StoreError::Truncated { path, data, found, needed });
        }
        let layout = header.layout();
        Ok(Self { medium, header, layout, damaged })
    }

    /// Refuses data that is shorter than the sidecar says.
    pub(crate) fn check_data(&self, data: &Medium) -> Result<(), StoreError> {
        if data.bytes >= self.header.data_bytes {
            return Ok(());
        }
        let (path, sidecar) = (data.path.clone(), self.medium.path.clone());
        Err(StoreError::DataShorter { path, sidecar, found: data.bytes, needed: self.header.data_bytes })
    }

    /// Writes a header durably, in place of the older copy, and gives it as written.
    pub(crate) fn write_header(&self, header: Header) -> Result<Header, StoreError> {
        let header = Header { sequence: header.sequence.wrapping_add(1), ..header };
        write_header(&self.medium, &header)?;
        let sync = self.medium.sync().map_err(|errno| io::Error::from_raw_os_error(errno.0));
        sync.map_err(StoreError::io(&self.medium.path, "cannot make the header durable"))?;
        Ok(header)
    }

    /// Reads the metadata of the intervals from `first` on that `metadata` has room for.
    pub(crate) fn read_metadata(&self, first: u64, metadata: &mut [u8]) -> io::Result<()> {
        debug_assert!(!self.medium.direct);
        let count = (metadata.len() / self.layout.entry()) as u64;
        for piece in self.layout.pieces(first, count) {
            let run = &mut metadata[piece.in_run];
            let at = self.layout.position(piece.block) + piece.in_block.start as u64;
            self.medium.file.read_exact_at(run, at)?;
            invert(run);
        }
        Ok(())
    }

    /// Writes the metadata of the intervals from `first` on. `metadata` is left inverted.
    pub(crate) fn write_metadata(&self, first: u64, metadata: &mut [u8]) -> io::Result<()> {
        debug_assert!(!self.medium.direct);
        let count = (metadata.len() / self.layout.entry()) as u64;
        invert(metadata);
        for piece in self.layout.pieces(first, count) {
            let at = self.layout.position(piece.block) + piece.in_block.start as u64;
            self.medium.write_all_at(&metadata[piece.in_run], at)?;
        }
        Ok(())
    }
}

/// Who is behind a lock on this sidecar or its data, held by `process` if that is known: the header names whoever
/// has the disk open for writing, or had it open last when it was not closed.
pub(crate) fn user(header: &Header, process: Option<u32>) -> Option<String> {
    let OwnerRecord { process: writer, ref host, .. } = header.owner;
    let holds = match process {
        Some(process) => process == writer,
        // Of another host nothing can be told; of this one, whether the process is still there.
        None => *host != host_name() || Path::new("/proc").join(writer.to_string()).exists(),
    };
    (!header.clean && holds).then(|| header.owner.to_string())
}

/// This host's name.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The same, of a sidecar that is not open; for a message, so any failure is none.
pub(crate) fn user_of(path: &Path, process: Option<u32>) -> Option<String> {
    let medium = Medium::open(path, Access::Shared, Direct::Off, BLOCK as u32).ok()?;
    user(&read_header(&medium).ok()?.0, process)
}

fn open_medium(path: &Path, data: &Path, access: Access, direct: Direct) -> Result<Medium, StoreError> {
    Medium::open(path, access, direct, BLOCK as u32).map_err(|error| match error {
        StoreError::Io { ref source, .. } if source.kind() == io::ErrorKind::NotFound => {
            StoreError::NoSidecar { path: path.to_owned(), data: data.to_owned() }
        }
        other => other,
    })
}

/// The newest header, and whether a copy is no good.
pub(crate) fn read_header(medium: &Medium) -> Result<(Header, bool), StoreError> {
    let mut copies = [[0; BLOCK]; 2];
    for (copy, place) in copies.iter_mut().zip(COPIES) {
        let mut block = Aligned([0; BLOCK]);
        match medium.file.read_exact_at(&mut block.0, place) {
            Ok(()) => *copy = block.0,
            // Cut off before the copy: as good as damaged.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            // One copy on a bad sector: that is what the other is for.
            Err(error) => log::warn!("{}: cannot read a copy of the header: {error}", medium.path.display()),
        }
    }
    let header = |source: HeaderError| StoreError::Header { path: medium.path.clone(), source };
    Header::newest(&copies).map_err(header)
}

/// Writes a header to the copy that its sequence number names.
pub(crate) fn write_header(medium: &Medium, header: &Header) -> Result<(), StoreError> {
    let block = Aligned(header.encode());
    let place = COPIES[(header.sequence % 2) as usize];
    medium.write_all_at(&block.0, place).map_err(StoreError::io(&medium.path, "cannot write the header"))
}

/// Turns metadata into its form on disk or back: every byte inverted, so that the zeroes of a hole are escapes.
pub(crate) fn invert(metadata: &mut [u8]) {
    for byte in metadata {
        *byte = !*byte;
    }
}
