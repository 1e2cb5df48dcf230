//! Between the PI that a guest is given and the PI that a device keeps, where the two differ.
//!
//! ```text
//! write   data + guest's PI  ->  1. device's PI made   2. guest's PI checked, on the same bytes  ->  data + device's PI
//! read    data + device's PI ->  1. guest's PI made    2. device's PI checked, on the same bytes ->  data + guest's PI
//! ```
//!
//! The new is made before the old is checked: bytes that change in between are wrong for one of the two, and so never
//! pass. A *unit* is the larger of the two intervals; requests are whole units, so nothing is read to be written.
//!
//! Application tags go along where both count the same intervals; else the guest has none (tag size 0). An escape is the
//! whole unit's: what is unchecked on one side is not claimed to be checked on the other.
#![forbid(unsafe_code)]

use integrity::{Expected, Guard, Mismatch, PiType, Profile, ProfileSpec, Tuple};

/// What the operator wants a guest's PI to be; the device's own where nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The guard.
    pub guard: Option<Guard>,
    /// Bytes that one tuple protects.
    pub interval: Option<u32>,
    /// Bytes of metadata for each interval.
    pub metadata_size: Option<u16>,
}

/// The application tag of an escape.
const ESCAPE: u16 = 0xFFFF;

/// The two kinds of PI of one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Convert {
    /// The guest's.
    pub guest: Profile,
    /// The device's.
    pub device: Profile,
}

impl Convert {
    /// What a guest gets of a `device`'s PI under a wish.
    ///
    /// # Errors
    /// Why that cannot be, naming the keys.
    pub fn new(device: Profile, wish: &Wish) -> Result<Self, String> {
        let is = device.spec();
        let guard = wish.guard.unwrap_or(is.guard);
        let interval = wish.interval.unwrap_or(is.interval);
        let same_kind = guard == is.guard;
        let tuple = guard.tuple_size() as u16;
        let metadata_size = wish.metadata_size.unwrap_or(if same_kind { is.metadata_size } else { tuple });
        let whole = same_kind && metadata_size == is.metadata_size;
        if whole && interval == is.interval {
            return Ok(Self { guest: device, device });
        }
        if is.guard == Guard::None || guard == Guard::None {
            return Err(format!(
                "guard={guard}, but the device's guard is {}: there is nothing to make the one from the other; pi=none \
                 serves the disk without PI",
                is.guard
            ));
        }
        if metadata_size != tuple && !whole {
            return Err(format!(
                "metadata-size={metadata_size}, but metadata of {} bytes can be given as it is, or as the tuple alone \
                 ({tuple} bytes)",
                is.metadata_size
            ));
        }
        if !(512..=4096).contains(&interval) || !interval.is_power_of_two() {
            return Err(format!("interval={interval} is none of 512, 1024, 2048 and 4096"));
        }
        let aligned = interval == is.interval;
        if is.pi_type == PiType::Type3 {
            // The reference tag is the guest's own: it must fit, and there must be one for each of the guest's.
            if !aligned {
                return Err(format!(
                    "interval={interval}, but the device's is {}: PI of type 3 carries the guest's own reference tags, \
                     which cannot be made anew",
                    is.interval
                ));
            }
            if guard == Guard::Crc64Nvme && is.guard != Guard::Crc64Nvme {
                return Err(format!(
                    "guard={guard}: PI of type 3 carries the guest's own reference tags, and 48 bits do not fit the \
                     device's 32"
                ));
            }
        }
        let room = match is.pi_type {
            PiType::Type3 if guard != Guard::Crc64Nvme => is.tag_size.min(6),
            _ => is.tag_size,
        };
        let guest = Profile::new(ProfileSpec {
            guard,
            interval,
            metadata_size,
            pi_offset: if whole { is.pi_offset } else { 0 },
            tag_size: if aligned { room } else { 0 },
            pi_type: is.pi_type,
        });
        Ok(Self { guest: guest.map_err(|error| error.to_string())?, device })
    }

    /// Whether there is nothing to convert.
    pub fn is_identity(&self) -> bool {
        self.guest == self.device
    }

    /// The larger interval, in bytes.
    pub fn unit(&self) -> usize {
        self.guest.interval().max(self.device.interval())
    }

    /// Makes the device's PI of data at `offset`, then checks the guest's.
    ///
    /// # Errors
    /// The guest's first tag that does not match; `to` is then not to be used.
    pub fn for_device(&self, data: &[u8], from: &[u8], to: &mut [u8], offset: u64) -> Result<(), Mismatch> {
        make(&self.guest, &self.device, data, from, to, offset);
        check(&self.guest, data, from, offset)
    }

    /// Makes the guest's PI of data at `offset`, then checks the device's.
    ///
    /// # Errors
    /// The device's first tag that does not match; `to` is then not to be used.
    pub fn for_guest(&self, data: &[u8], from: &[u8], to: &mut [u8], offset: u64) -> Result<(), Mismatch> {
        make(&self.device, &self.guest, data, from, to, offset);
        check(&self.device, data, from, offset)
    }
}

/// Checks one kind.
fn check(profile: &Profile, data: &[u8], metadata: &[u8], offset: u64) -> Result<(), Mismatch> {
    let first = offset / profile.interval() as u64;
    profile.verify(data, metadata, &Expected::new(first)).map(|_| ())
}

/// Gives escapes the guard, and the place, that their data has: a device that looks at them all the same has no complaint.
pub(super) fn complete_escapes(profile: &Profile, data: &[u8], metadata: &mut [u8], offset: u64) {
    let intervals =
        data.chunks_exact(profile.interval()).zip(metadata.chunks_exact_mut(profile.metadata_size()));
    for (number, (data, metadata)) in (offset / profile.interval() as u64..).zip(intervals) {
        if profile.is_escaped(metadata) {
            // Of type 3 the reference tag is part of the escape.
            let escape = profile.pi_type() == PiType::Type3;
            let reference = if escape { profile.reference_mask() } else { number };
            profile.generate(data, metadata, reference, ESCAPE);
        }
    }
}

/// Makes `new` metadata for what `old` metadata says of the same data.
fn make(old: &Profile, new: &Profile, data: &[u8], from: &[u8], to: &mut [u8], offset: u64) {
    // What surrounds the tuple is nobody's, and covered by the guard where it comes before.
    to.fill(0);
    new.generate(data, to, offset / new.interval() as u64, 0);
    let unit = old.interval().max(new.interval());
    let (from_unit, to_unit) = (old.metadata_len(unit), new.metadata_len(unit));
    let aligned = old.interval() == new.interval();
    for (from, to) in from.chunks_exact(from_unit).zip(to.chunks_exact_mut(to_unit)) {
        let escaped = from.chunks_exact(old.metadata_size()).any(|metadata| old.is_escaped(metadata));
        if !escaped && !aligned {
            continue;
        }
        for metadata in to.chunks_exact_mut(new.metadata_size()) {
            let made = new.tuple(metadata);
            let given = old.tuple(&from[..old.metadata_size()]);
            let tuple = match (escaped, new.pi_type()) {
                (true, PiType::Type3) => {
                    Tuple { application: ESCAPE, reference: new.reference_mask(), ..made }
                }
                // The guard and the place are right all the same: a device that looks at them has no complaint.
                (true, _) => Tuple { application: ESCAPE, ..made },
                (false, PiType::Type3) => {
                    let reference = given.reference & new.reference_mask();
                    Tuple { application: given.application, reference, ..made }
                }
                (false, _) => Tuple { application: given.application, ..made },
            };
            new.set_tuple(metadata, tuple);
        }
    }
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
