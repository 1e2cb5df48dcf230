//! The scratch disk's files, changed behind everybody's back.

use crate::simhost::{HostError, system};
use crate::store::lock::Access;
use crate::store::medium::Medium as Opened;
use crate::store::{Direct, StoreError, sidecar};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A data file and its sidecar.
pub(super) struct Medium {
    data: File,
    sidecar: File,
    layout: sidecar::Layout,
}

impl Medium {
    /// Opens both for damage.
    pub fn new(path: &Path) -> Result<Self, HostError> {
        let open = |path: &Path| {
            let what = path.display().to_string();
            File::options().read(true).write(true).open(path).map_err(system(what))
        };
        let pi = sidecar::default_path(path);
        let layout = layout(&pi).map_err(|error| system("the sidecar")(std::io::Error::other(error)))?;
        Ok(Self { data: open(path)?, sidecar: open(&pi)?, layout })
    }

    /// Puts data at a byte offset of the disk, and its PI stays as it is.
    pub fn put_data(&mut self, offset: u64, bytes: &[u8]) -> Result<(), HostError> {
        self.data.write_all_at(bytes, offset).map_err(system("the data file"))?;
        // Past the page cache, so that the daemon's direct reads see it.
        self.data.sync_all().map_err(system("the data file"))
    }

    /// Flips a bit of the byte at `offset`.
    pub fn flip_data(&mut self, offset: u64, bit: u32) -> Result<(), HostError> {
        let mut byte = [0];
        self.data.read_exact_at(&mut byte, offset).map_err(system("the data file"))?;
        self.put_data(offset, &[byte[0] ^ 1 << bit])
    }

    /// The metadata of the `len` bytes of data at `offset`, as it lies in the sidecar; all in one of its blocks.
    pub fn pi(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, HostError> {
        let (at, bytes) = self.place(offset, len as u64);
        let mut pi = vec![0; bytes];
        self.sidecar.read_exact_at(&mut pi, at).map_err(system("the sidecar"))?;
        Ok(pi)
    }

    /// Puts metadata back that [`pi`](Self::pi) gave for the same place.
    pub fn put_pi(&mut self, offset: u64, pi: &[u8]) -> Result<(), HostError> {
        let (at, _) = self.place(offset, self.layout.interval());
        self.sidecar.write_all_at(pi, at).map_err(system("the sidecar"))?;
        self.sidecar.sync_all().map_err(system("the sidecar"))
    }

    /// Flips a bit of the first byte of PI for the interval at `offset`.
    pub fn flip_pi(&mut self, offset: u64, bit: u32) -> Result<(), HostError> {
        let mut pi = self.pi(offset, self.layout.interval() as usize)?;
        pi[0] ^= 1 << bit;
        self.put_pi(offset, &pi)
    }

    /// Where in the sidecar the metadata of `len` bytes of data at `offset` starts, and how long it is.
    fn place(&self, offset: u64, len: u64) -> (u64, usize) {
        let (first, count) = (offset / self.layout.interval(), len / self.layout.interval());
        let block = self.layout.blocks_of(first, count).start;
        let piece = self.layout.piece(first, count, block);
        (self.layout.position(block) + piece.in_block.start as u64, piece.in_block.len())
    }
}

/// Where everything lies in a sidecar.
fn layout(path: &Path) -> Result<sidecar::Layout, StoreError> {
    let opened = Opened::open(path, Access::Shared, Direct::Off, sidecar::BLOCK as u32)?;
    let (header, _) = sidecar::read_header(&opened)?;
    Ok(sidecar::Layout::new(&header.profile, header.data_bytes, header.metadata.0))
}
