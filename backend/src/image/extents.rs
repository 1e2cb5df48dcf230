//! Where a file has data and where it has holes.
#![forbid(unsafe_code)]

use crate::store::medium::Medium;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::io;
use std::ops::Range;

/// The ranges of bytes within `start..end` that hold data, in order. A medium that cannot tell has data everywhere.
pub(crate) struct Extents<'a> {
    medium: &'a Medium,
    at: u64,
    end: u64,
}

impl<'a> Extents<'a> {
    pub(crate) fn new(medium: &'a Medium, range: Range<u64>) -> Self {
        Self { medium, at: range.start, end: range.end }
    }

    fn find(&mut self) -> io::Result<Option<Range<u64>>> {
        if self.at >= self.end {
            return Ok(None);
        }
        let everything = self.at..self.end;
        // Where a device cannot tell, lseek says EINVAL.
        let start = match seek(&self.medium.file, SeekFrom::Data(self.at)) {
            Err(Errno::NXIO) => self.end,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                self.at = self.end;
                return Ok(Some(everything));
            }
            start => start?,
        };
        if start >= self.end {
            self.at = self.end;
            return Ok(None);
        }
        let end = seek(&self.medium.file, SeekFrom::Hole(start))?.clamp(start + 1, self.end);
        self.at = end;
        Ok(Some(start..end))
    }
}

impl Iterator for Extents<'_> {
    type Item = io::Result<Range<u64>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.find().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::lock::Access;
    use crate::store::medium::Direct;
    use std::os::unix::fs::FileExt;

    #[test]
    fn extents_when_a_file_has_holes_cover_its_data_and_little_else() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(16 << 20).unwrap();
        file.as_file().write_all_at(&[1; 4096], 1 << 20).unwrap();
        file.as_file().write_all_at(&[1; 4096], 8 << 20).unwrap();
        let medium = Medium::open(file.path(), Access::Shared, Direct::Off, 512).unwrap();
        let extents: Vec<_> = Extents::new(&medium, 0..16 << 20).map(Result::unwrap).collect();
        let covered = |at: u64| extents.iter().any(|extent| extent.contains(&at));
        assert!(covered(1 << 20) && covered((8 << 20) + 4095));
        if covered(0) && covered(4 << 20) {
            // A file system that keeps no holes; nothing more to see.
            return;
        }
        assert!(!covered(0) && !covered(4 << 20) && !covered((16 << 20) - 1));
        let part: Vec<_> =
            Extents::new(&medium, (1 << 20) + 512..(1 << 20) + 1024).map(Result::unwrap).collect();
        assert_eq!(part, vec![(1 << 20) + 512..(1 << 20) + 1024]);
    }
}
