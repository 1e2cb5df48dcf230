//! T10 protection information (PI): what protects each interval of a disk's data on its way.
//!
//! Beside every *interval* of data (512 to 65536 bytes) lies *metadata* (1 to 255 bytes), and in the metadata a
//! *tuple*: a guard (a checksum of the interval), an application tag, and a reference tag (where the interval
//! belongs). A [`Profile`] says of which kind and where; everything else is a method of it:
//!
//! ```text
//!   data     [ interval 0 ][ interval 1 ][ interval 2 ] ..      contiguous, or segments whose borders cut intervals
//!                 |              |              |
//!   metadata [..tuple..]    [..tuple..]    [..tuple..]          contiguous, metadata_size() bytes each
//!
//!   generate / verify / remap; copy_generate / copy_verify load each source byte once: what is checked is
//!   what is stored
//! ```
//!
//! One pass works through batches of intervals: the guard kernel gives the registers of a batch ([`Kernel`] says
//! which kernel this machine runs), the metadata before the tuple is added, then the tuples are written or
//! compared. There is no I/O here, and no thread. `docs/performance.md` says how fast that is, beside what, and what the
//! processor allows.
//!
//! Sources: SBC-4 section 4.21 (protection information model), the NVMe NVM command set specification 1.0
//! section 5.2 (end-to-end data protection), and the behaviour of Linux's `block/t10-pi.c`.
//!
//! ```
//! use integrity::{Expected, Guard, PiType, Profile, ProfileSpec, Tag};
//!
//! let profile = Profile::new(ProfileSpec {
//!     guard: Guard::Crc16T10Dif,
//!     interval: 512,
//!     metadata_size: 8,
//!     pi_offset: 0,
//!     tag_size: 2,
//!     pi_type: PiType::Type1,
//! })?;
//! let mut data = vec![7; 4096];
//! let mut metadata = vec![0; profile.metadata_len(data.len())];
//! profile.generate(&data, &mut metadata, 100, 0);
//! assert!(profile.verify(&data, &metadata, &Expected::new(100)).is_ok());
//!
//! data[1000] ^= 1;
//! let mismatch = profile.verify(&data, &metadata, &Expected::new(100)).unwrap_err();
//! assert_eq!((mismatch.interval, mismatch.tag), (1, Tag::Guard));
//! # Ok::<(), integrity::ProfileError>(())
//! ```

mod bulk;
mod check;
mod guard;
mod pass;
mod profile;
mod segments;
mod tags;
mod tuple;

pub use check::{AppTag, Checked, Escape, Expected, Mismatch, Tag};
pub use guard::{Kernel, UnknownKernel};
pub use profile::{Guard, PiType, Profile, ProfileError, ProfileSpec};
pub use tuple::Tuple;
