//! The profile: which PI a disk carries, checked once, when it is made.
//!
//! The rules are those by which Linux accepts a profile: `ublk_validate_params` (`drivers/block/ublk_drv.c`) and
//! `blk_validate_integrity_limits` (`block/blk-settings.c`); the tag size, which Linux does not look at, must be one
//! the tuple has room for.

use std::fmt;
use std::str::FromStr;

use crate::guard::Kernel;

/// The kind of guard tag, and with it the layout of the tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    /// No tuple: metadata is carried, nothing is made or checked.
    None,
    /// CRC-16/T10-DIF, polynomial 0x8BB7 (SBC-4, 4.21.3.2).
    Crc16T10Dif,
    /// The Internet checksum (RFC 1071), as some SCSI host adapters offer it.
    Ip,
    /// CRC-64/NVME, polynomial 0xAD93D23594C93659 (NVM command set 1.0, 5.2.1.3.2).
    Crc64Nvme,
}

impl Guard {
    /// All guards.
    pub const ALL: [Guard; 4] = [Guard::None, Guard::Crc16T10Dif, Guard::Ip, Guard::Crc64Nvme];

    /// Bytes of a tuple with this guard.
    pub const fn tuple_size(self) -> usize {
        match self {
            Guard::None => 0,
            Guard::Crc16T10Dif | Guard::Ip => 8,
            Guard::Crc64Nvme => 16,
        }
    }

    /// Bytes of the guard itself.
    pub const fn guard_size(self) -> usize {
        match self {
            Guard::None => 0,
            Guard::Crc16T10Dif | Guard::Ip => 2,
            Guard::Crc64Nvme => 8,
        }
    }

    /// The name, as nodes and configuration spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Guard::None => "none",
            Guard::Crc16T10Dif => "crc16-t10dif",
            Guard::Ip => "ip",
            Guard::Crc64Nvme => "crc64-nvme",
        }
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Guard {
    type Err = ProfileError;

    fn from_str(name: &str) -> Result<Guard, ProfileError> {
        Guard::ALL
            .into_iter()
            .find(|guard| guard.name() == name)
            .ok_or_else(|| ProfileError::GuardName(name.to_owned()))
    }
}

/// What the reference tag means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PiType {
    /// No PI: metadata is carried, nothing is made or checked. Goes with [`Guard::None`] and only with it.
    Type0,
    /// The reference tag is the interval's number. (Type 2 is read as this one, as Linux does.)
    Type1,
    /// The reference tag is the application's and is not checked.
    Type3,
}

impl PiType {
    /// The type's number: 0, 1 or 3.
    pub const fn number(self) -> u8 {
        match self {
            PiType::Type0 => 0,
            PiType::Type1 => 1,
            PiType::Type3 => 3,
        }
    }
}

impl fmt::Display for PiType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

impl TryFrom<u8> for PiType {
    type Error = ProfileError;

    fn try_from(number: u8) -> Result<PiType, ProfileError> {
        match number {
            0 => Ok(PiType::Type0),
            1 => Ok(PiType::Type1),
            3 => Ok(PiType::Type3),
            _ => Err(ProfileError::TypeNumber(number)),
        }
    }
}

/// A profile's plain values, not yet checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProfileSpec {
    /// The guard.
    pub guard: Guard,
    /// Bytes of data that one tuple protects: a power of two from 512 to 65536.
    pub interval: u32,
    /// Bytes of metadata per interval: 1 to 255.
    pub metadata_size: u16,
    /// Where the tuple starts within the metadata. The guard covers the data, then the metadata before the tuple.
    pub pi_offset: u8,
    /// Bytes of application tag: 0, 2, 6 or 8.
    pub tag_size: u8,
    /// The type.
    pub pi_type: PiType,
}

/// Why a profile was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// Not a guard's name.
    #[error("guard {0:?} is none of none, crc16-t10dif, ip, crc64-nvme")]
    GuardName(String),
    /// Not a type's number.
    #[error("PI type {0} is none of 0, 1, 3")]
    TypeNumber(u8),
    /// The interval is no power of two from 512 to 65536.
    #[error("interval of {0} bytes is no power of two from 512 to 65536")]
    Interval(u32),
    /// The metadata size is outside 1 to 255.
    #[error("metadata size of {0} bytes is outside 1 to 255")]
    MetadataSize(u16),
    /// The tuple does not fit into the metadata where it is said to start.
    #[error(
        "a tuple of {tuple_size} bytes at offset {pi_offset} ends beyond {metadata_size} bytes of metadata"
    )]
    TupleOutside {
        /// Where the tuple would start.
        pi_offset: u8,
        /// How long it is.
        tuple_size: usize,
        /// How long the metadata is.
        metadata_size: u16,
    },
    /// Type 0 with a guard, or another type without one: there is nothing to check, or nothing to check it with.
    #[error("guard {guard} does not go with PI type {pi_type}")]
    TypeWithoutGuard {
        /// The guard.
        guard: Guard,
        /// The type.
        pi_type: PiType,
    },
    /// The tuple has no application tag of that size.
    #[error("a tag size of {tag_size} bytes does not go with guard {guard} and PI type {pi_type}")]
    TagSize {
        /// The size.
        tag_size: u8,
        /// The guard.
        guard: Guard,
        /// The type.
        pi_type: PiType,
    },
}

/// A profile that has been checked. All the work on PI is done by its methods.
///
/// Two profiles are equal if their values are: the [`Kernel`] that computes the guards is no part of it.
#[derive(Clone, Copy)]
pub struct Profile {
    spec: ProfileSpec,
    kernel: Kernel,
}

impl Profile {
    /// Checks the values.
    ///
    /// # Errors
    /// [`ProfileError`] says which rule they break.
    pub fn new(spec: ProfileSpec) -> Result<Profile, ProfileError> {
        let ProfileSpec { guard, interval, metadata_size, pi_offset, tag_size, pi_type } = spec;
        if !(512..=65536).contains(&interval) || !interval.is_power_of_two() {
            return Err(ProfileError::Interval(interval));
        }
        if !(1..=255).contains(&metadata_size) {
            return Err(ProfileError::MetadataSize(metadata_size));
        }
        if (guard == Guard::None) != (pi_type == PiType::Type0) {
            return Err(ProfileError::TypeWithoutGuard { guard, pi_type });
        }
        let tuple_size = guard.tuple_size();
        if usize::from(pi_offset) + tuple_size > usize::from(metadata_size) {
            return Err(ProfileError::TupleOutside { pi_offset, tuple_size, metadata_size });
        }
        // What the type leaves to the application: in type 1 the reference tag is taken, in type 3 it is free, and
        // metadata without a tuple is all the application's.
        let room = match pi_type {
            PiType::Type0 => usize::from(metadata_size),
            PiType::Type1 => 2,
            PiType::Type3 => tuple_size - guard.guard_size(),
        };
        if !matches!(tag_size, 0 | 2 | 6 | 8) || usize::from(tag_size) > room {
            return Err(ProfileError::TagSize { tag_size, guard, pi_type });
        }
        Ok(Profile { spec, kernel: Kernel::selected() })
    }

    /// The same profile with its guards computed by another kernel, for tests and benches.
    ///
    /// `None` if this machine lacks it.
    pub fn with_kernel(self, kernel: Kernel) -> Option<Profile> {
        Kernel::available().contains(&kernel).then_some(Profile { kernel, ..self })
    }

    /// The kernel that computes the guards.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// The values the profile was made of.
    pub fn spec(&self) -> ProfileSpec {
        self.spec
    }

    /// The guard.
    pub fn guard(&self) -> Guard {
        self.spec.guard
    }

    /// Bytes of data that one tuple protects.
    pub fn interval(&self) -> usize {
        self.spec.interval as usize
    }

    /// Bytes of metadata per interval.
    pub fn metadata_size(&self) -> usize {
        usize::from(self.spec.metadata_size)
    }

    /// Where the tuple starts within the metadata.
    pub fn pi_offset(&self) -> usize {
        usize::from(self.spec.pi_offset)
    }

    /// Bytes of the tuple: 0, 8 or 16.
    pub fn tuple_size(&self) -> usize {
        self.spec.guard.tuple_size()
    }

    /// Bytes of application tag.
    pub fn tag_size(&self) -> usize {
        usize::from(self.spec.tag_size)
    }

    /// The type.
    pub fn pi_type(&self) -> PiType {
        self.spec.pi_type
    }

    /// Whether guests may be given this profile: the interval is one of 512, 1024, 2048 and 4096 bytes.
    pub fn is_for_guests(&self) -> bool {
        self.interval() <= 4096
    }

    /// How many whole intervals `data_len` bytes hold.
    pub fn intervals(&self, data_len: usize) -> usize {
        // An interval is a power of two; dividing takes as long as checking one.
        data_len >> self.spec.interval.trailing_zeros()
    }

    /// Bytes of metadata that belong to the whole intervals of `data_len` bytes. It is less than `data_len`.
    pub fn metadata_len(&self, data_len: usize) -> usize {
        self.intervals(data_len) * self.metadata_size()
    }

    /// The bits that a reference tag has: 32, 48 with CRC-64, none in type 0.
    pub fn reference_mask(&self) -> u64 {
        match self.spec.guard {
            Guard::None => 0,
            Guard::Crc16T10Dif | Guard::Ip => 0xFFFF_FFFF,
            Guard::Crc64Nvme => 0xFFFF_FFFF_FFFF,
        }
    }
}

impl PartialEq for Profile {
    fn eq(&self, other: &Profile) -> bool {
        self.spec == other.spec
    }
}

impl Eq for Profile {}

impl std::hash::Hash for Profile {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.spec.hash(state);
    }
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spec.fmt(f)
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ProfileSpec { guard, interval, metadata_size, pi_offset, tag_size, pi_type } = self.spec;
        write!(
            f,
            "{guard} type {pi_type}, interval {interval}, metadata {metadata_size}, PI at {pi_offset}, tag {tag_size}"
        )
    }
}
