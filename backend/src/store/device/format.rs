//! What PI a block device keeps, and how much of it one request may carry.
//!
//! The kernel says the same of a partition, of dm and of md on top of such a device, where all below agree.

use super::cut::Cut;
use super::ioctl::{MetadataCap, metadata_cap};
use super::mirror::mirror;
use crate::io::PAGE;
use crate::store::medium::Medium;
use integrity::{Guard, PiType, Profile, ProfileError, ProfileSpec};

/// LBMD_PI_CAP_INTEGRITY and LBMD_PI_CAP_REFTAG (linux/fs.h).
const ON_MEDIUM: u32 = 1;
const REFERENCE: u32 = 2;
/// Pages of one bio: of data (BIO_MAX_VECS), and of PI.
const BIO_PAGES: usize = 256;

/// A device's PI, and its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    /// The PI.
    pub profile: Profile,
    /// Where requests to the device are cut. Others would leave io_uring's straight way.
    pub cut: Cut,
    /// The first interval's number on the whole device, where it is known (not below dm and md).
    pub base: Option<u64>,
}

/// What of a device's PI there is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It keeps none.
    Nothing,
    /// It keeps this.
    Format(Format),
    /// It has to do with PI, but it cannot be used, because of this.
    Unusable(String),
}

/// Asks the kernel about an open device.
pub(crate) fn look(medium: &Medium) -> Found {
    let integrity = |name: &str| medium.attribute(&format!("integrity/{name}"));
    let kind = integrity("format").filter(|kind| kind != "none");
    if !medium.device || kind.is_none() {
        return Found::Nothing;
    }
    let cap = match metadata_cap(&medium.file) {
        Ok(cap) if cap.size == 0 => return Found::Nothing,
        Ok(cap) => cap,
        // Linux before 6.17: sysfs says all of it but the metadata's size. The trial finds out whether the tuple is all.
        Err(_) => match from_sysfs(kind.as_deref().unwrap_or_default(), integrity) {
            Some(cap) => cap,
            None => {
                return Found::Unusable(
                    "the kernel does not say how the PI is laid out (Linux 6.17 does)".into(),
                );
            }
        },
    };
    if cap.flags & ON_MEDIUM == 0 && cap.guard != 0 {
        let why = "the device's medium is not formatted with PI: what goes to it ends at the host adapter";
        return Found::Unusable(why.into());
    }
    let tag_size = integrity("tag_size").and_then(|text| text.parse().ok()).unwrap_or(cap.application_size);
    match profile(&cap, medium.sector, tag_size) {
        Ok(profile) => {
            let mirror = medium
                .folder()
                .filter(|_| profile.pi_type() == PiType::Type1)
                .and_then(|folder| mirror(&folder));
            if let Some(why) = mirror {
                return Found::Unusable(why);
            }
            let cut = cut(medium, &profile);
            Found::Format(Format { profile, cut, base: base(medium, &profile) })
        }
        Err(error) => Found::Unusable(error.to_string()),
    }
}

/// Reads the kernel's words.
fn profile(cap: &MetadataCap, sector: u32, tag_size: u8) -> Result<Profile, ProfileError> {
    let guard = match cap.guard {
        1 => Guard::Ip,
        2 => Guard::Crc16T10Dif,
        4 => Guard::Crc64Nvme,
        _ => Guard::None,
    };
    let pi_type = match guard {
        Guard::None => PiType::Type0,
        _ if cap.flags & REFERENCE != 0 => PiType::Type1,
        _ => PiType::Type3,
    };
    let spec = ProfileSpec {
        guard,
        interval: if cap.interval == 0 { sector } else { cap.interval.into() },
        metadata_size: cap.size.into(),
        pi_offset: if guard == Guard::None { 0 } else { cap.pi_offset },
        tag_size: if guard == Guard::None { 0 } else { tag_size },
        pi_type,
    };
    Profile::new(spec).or_else(|error| match error {
        // Kernel drivers count the reference tag in for types where it is not the application's.
        ProfileError::TagSize { .. } => Profile::new(ProfileSpec { tag_size: 2, ..spec }),
        error => Err(error),
    })
}

/// The capability, where metadata and tuple are the same.
fn from_sysfs(kind: &str, integrity: impl Fn(&str) -> Option<String>) -> Option<MetadataCap> {
    let (guard, size, reference) = match kind {
        "T10-DIF-TYPE1-CRC" => (2, 8, 4),
        "T10-DIF-TYPE3-CRC" => (2, 8, 0),
        "T10-DIF-TYPE1-IP" => (1, 8, 4),
        "T10-DIF-TYPE3-IP" => (1, 8, 0),
        "EXT-DIF-TYPE1-CRC64" => (4, 16, 6),
        "EXT-DIF-TYPE3-CRC64" => (4, 16, 0),
        _ => return None,
    };
    let interval = integrity("protection_interval_bytes")?.parse().ok()?;
    let medium = if integrity("device_is_integrity_capable")? == "1" { ON_MEDIUM } else { 0 };
    let flags = medium | if reference != 0 { REFERENCE } else { 0 };
    Some(MetadataCap {
        flags,
        interval,
        size,
        pi_size: size,
        guard,
        application_size: 2,
        ..MetadataCap::default()
    })
}

/// What one request may carry so that the kernel neither splits it nor puts it off.
fn cut(medium: &Medium, profile: &Profile) -> Cut {
    let limit =
        |name: &str| medium.attribute(&format!("queue/{name}")).and_then(|text| text.parse::<usize>().ok());
    let mut bytes = BIO_PAGES * PAGE;
    if let Some(kilobytes) = limit("max_sectors_kb") {
        bytes = bytes.min(kilobytes << 10);
    }
    if let Some(segments) = limit("max_segments") {
        // The pool's pages need not be neighbours in memory.
        bytes = bytes.min(segments * PAGE);
    }
    // A boundary counts in the whole disk's sectors. What below dm or md has boundaries where these have none is not known.
    let every = limit("chunk_sectors").unwrap_or(0) as u64;
    Cut::after(whole(bytes, medium.sector, profile)).at_boundaries(every.saturating_mul(512), start(medium))
}

/// `bytes` as a whole number of blocks and intervals, at least one, whose PI is no more than a bio takes.
pub(super) fn whole(bytes: usize, sector: u32, profile: &Profile) -> usize {
    let unit = profile.interval().max(sector as usize);
    // One page less: the PI of a part need not start where a page does.
    let intervals = (BIO_PAGES - 1) * PAGE / profile.metadata_size();
    (bytes.min(intervals * profile.interval()) / unit).max(1) * unit
}

/// The number of a disk's or partition's first interval.
fn base(medium: &Medium, profile: &Profile) -> Option<u64> {
    if medium.attribute("dm/name").is_some() || medium.attribute("md/level").is_some() {
        return None;
    }
    Some(start(medium) / profile.interval() as u64)
}

/// The byte of its disk at which a partition starts; of everything else 0.
fn start(medium: &Medium) -> u64 {
    let sectors = medium.own_attribute("start").and_then(|text| text.parse::<u64>().ok());
    sectors.unwrap_or(0).saturating_mul(512)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cap(guard: u8, size: u8, pi_offset: u8, flags: u32) -> MetadataCap {
        MetadataCap { flags, interval: 4096, size, pi_offset, guard, ..MetadataCap::default() }
    }

    #[test]
    fn profile_when_read_from_the_kernels_words_is_what_they_say() {
        for (cap, tag_size, expected) in [
            (cap(2, 8, 0, 3), 2, (Guard::Crc16T10Dif, PiType::Type1, 8, 0, 2)),
            (cap(1, 8, 0, 1), 6, (Guard::Ip, PiType::Type3, 8, 0, 6)),
            (cap(4, 64, 48, 3), 2, (Guard::Crc64Nvme, PiType::Type1, 64, 48, 2)),
            (cap(4, 16, 0, 1), 8, (Guard::Crc64Nvme, PiType::Type3, 16, 0, 8)),
            (cap(2, 8, 0, 3), 6, (Guard::Crc16T10Dif, PiType::Type1, 8, 0, 2)),
            (cap(2, 8, 0, 3), 0, (Guard::Crc16T10Dif, PiType::Type1, 8, 0, 0)),
            (cap(0, 64, 5, 0), 2, (Guard::None, PiType::Type0, 64, 0, 0)),
        ] {
            let spec = profile(&cap, 4096, tag_size).unwrap().spec();
            let found = (spec.guard, spec.pi_type, spec.metadata_size, spec.pi_offset, spec.tag_size);
            assert_eq!((found, spec.interval), (expected, 4096), "{cap:?}");
        }
        // 65536 does not fit the kernel's field.
        assert_eq!(
            profile(&MetadataCap { interval: 0, ..cap(2, 8, 0, 3) }, 65536, 2).unwrap().interval(),
            65536
        );
        assert!(profile(&cap(2, 4, 0, 3), 4096, 2).is_err());
    }

    #[test]
    fn profile_when_the_kernel_is_older_comes_from_sysfs_where_the_tuple_is_all() {
        let sysfs =
            |name: &str| Some(if name == "protection_interval_bytes" { "512" } else { "1" }.to_owned());
        let cap = from_sysfs("EXT-DIF-TYPE1-CRC64", sysfs).unwrap();
        assert_eq!((cap.flags, cap.interval, cap.size, cap.guard), (3, 512, 16, 4));
        assert_eq!(from_sysfs("T10-DIF-TYPE3-IP", sysfs).unwrap().flags, 1);
        assert_eq!(from_sysfs("nop", sysfs), None);
    }

    #[test]
    fn part_when_cut_is_whole_blocks_and_its_pi_fits_a_bio() {
        let profile = profile(&cap(4, 64, 0, 3), 4096, 2).unwrap();
        assert_eq!(whole(1 << 20, 4096, &profile), 1 << 20);
        assert_eq!(whole(5000, 4096, &profile), 4096);
        assert_eq!(whole(1, 8192, &profile), 8192);
        let small =
            Profile::new(ProfileSpec { interval: 512, metadata_size: 255, ..profile.spec() }).unwrap();
        let part = whole(1 << 22, 4096, &small);
        assert!(small.metadata_len(part) <= 255 * PAGE && part.is_multiple_of(4096), "{part}");
    }
}
