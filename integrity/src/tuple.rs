//! The tuple within one interval's metadata: three tags, big-endian, packed.
//!
//! ```text
//!   8 bytes (CRC-16, IP):   guard 2 | application 2 | reference 4
//!   16 bytes (CRC-64):      guard 8 | application 2 | reference 6
//! ```

use crate::profile::{Guard, PiType, Profile};

/// The application tag that says "unchecked".
pub(crate) const ESCAPE_APPLICATION: u16 = 0xFFFF;

/// The three tags of one tuple, as numbers.
///
/// The IP guard's number is that of its two bytes read big-endian, as the checksum of a TCP header would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Tuple {
    /// The checksum: 16 or 64 bits.
    pub guard: u64,
    /// The application tag.
    pub application: u16,
    /// The reference tag: 32 or 48 bits.
    pub reference: u64,
}

impl Tuple {
    /// Reads a tuple of the layout that `guard` has from the start of `bytes`.
    pub(crate) fn read(guard: Guard, bytes: &[u8]) -> Tuple {
        match guard {
            Guard::None => Tuple::default(),
            Guard::Crc16T10Dif | Guard::Ip => Tuple {
                guard: number(&bytes[..2]),
                application: number(&bytes[2..4]) as u16,
                reference: number(&bytes[4..8]),
            },
            Guard::Crc64Nvme => Tuple {
                guard: number(&bytes[..8]),
                application: number(&bytes[8..10]) as u16,
                reference: number(&bytes[10..16]),
            },
        }
    }

    /// Writes the tuple to the start of `bytes`; bits that do not fit their field are dropped.
    pub(crate) fn write(&self, guard: Guard, bytes: &mut [u8]) {
        let reference = self.reference.to_be_bytes();
        match guard {
            Guard::None => {}
            Guard::Crc16T10Dif | Guard::Ip => {
                bytes[..2].copy_from_slice(&(self.guard as u16).to_be_bytes());
                bytes[2..4].copy_from_slice(&self.application.to_be_bytes());
                bytes[4..8].copy_from_slice(&reference[4..]);
            }
            Guard::Crc64Nvme => {
                bytes[..8].copy_from_slice(&self.guard.to_be_bytes());
                bytes[8..10].copy_from_slice(&self.application.to_be_bytes());
                bytes[10..16].copy_from_slice(&reference[2..]);
            }
        }
    }
}

/// A big-endian number of up to eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

impl Profile {
    /// Reads the tuple of one interval. Type 0 has none and gives zeroes.
    ///
    /// # Panics
    /// If `metadata` is not exactly [`metadata_size`](Profile::metadata_size) bytes.
    pub fn tuple(&self, metadata: &[u8]) -> Tuple {
        assert_eq!(metadata.len(), self.metadata_size(), "metadata of one interval");
        Tuple::read(self.guard(), &metadata[self.pi_offset()..])
    }

    /// Writes the tuple of one interval and leaves the metadata around it. In type 0 nothing is written. Bits of
    /// `tuple` that do not fit their field are dropped.
    ///
    /// # Panics
    /// If `metadata` is not exactly [`metadata_size`](Profile::metadata_size) bytes.
    pub fn set_tuple(&self, metadata: &mut [u8], tuple: Tuple) {
        assert_eq!(metadata.len(), self.metadata_size(), "metadata of one interval");
        tuple.write(self.guard(), &mut metadata[self.pi_offset()..]);
    }

    /// Makes every byte of `metadata` 0xFF, which escapes every interval it belongs to, in every type.
    ///
    /// # Panics
    /// If `metadata` is not that of a whole number of intervals.
    pub fn escape(&self, metadata: &mut [u8]) {
        assert_eq!(metadata.len() % self.metadata_size(), 0, "metadata of whole intervals");
        metadata.fill(0xFF);
    }

    /// Whether one interval's tuple is escaped: application tag 0xFFFF and, in type 3, an all-ones reference tag.
    /// Never so in type 0, where nothing is checked anyway.
    ///
    /// # Panics
    /// If `metadata` is not exactly [`metadata_size`](Profile::metadata_size) bytes.
    pub fn is_escaped(&self, metadata: &[u8]) -> bool {
        self.is_escape(&self.tuple(metadata))
    }

    /// [`is_escaped`](Profile::is_escaped) for a tuple already read.
    pub(crate) fn is_escape(&self, tuple: &Tuple) -> bool {
        match self.pi_type() {
            PiType::Type0 => false,
            PiType::Type1 => tuple.application == ESCAPE_APPLICATION,
            PiType::Type3 => {
                tuple.application == ESCAPE_APPLICATION && tuple.reference == self.reference_mask()
            }
        }
    }
}
