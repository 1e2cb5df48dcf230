//! A device's parameters in plain units, and as the kernel has them.
#![forbid(unsafe_code)]

use crate::Error;
use crate::uapi::{self, ParamBasic, ParamDiscard, ParamIntegrity, RawParams};
use zerocopy::IntoBytes;

/// The kind of guard tag, `LBMD_PI_CSUM_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Csum {
    /// No tuple: metadata is carried only.
    None,
    /// The Internet checksum.
    Ip,
    /// CRC-16/T10-DIF.
    Crc16T10Dif,
    /// CRC-64/NVME.
    Crc64Nvme,
}

/// The integrity metadata that a device's requests carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Integrity {
    /// The guard.
    pub csum: Csum,
    /// Bytes of data that one tuple protects: a power of two, 512 to the logical block size.
    pub interval: u32,
    /// Bytes of metadata for each interval, 1 to 255.
    pub metadata_size: u8,
    /// Where the tuple starts within the metadata.
    pub pi_offset: u8,
    /// Bytes of application tag.
    pub tag_size: u8,
    /// Whether the reference tag is the interval's number on the device.
    pub reference: bool,
}

/// How a device discards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discard {
    /// Bytes of the smallest range worth discarding.
    pub granularity: u32,
    /// Offset of the first such range, in bytes.
    pub alignment: u32,
    /// Most bytes of one request.
    pub most: u32,
}

/// A device's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Size in bytes.
    pub bytes: u64,
    /// Bytes of a logical block: a power of two, 512 to a page.
    pub logical_block: u32,
    /// Bytes of a physical block: a power of two, at least a logical one.
    pub physical_block: u32,
    /// Most bytes of a request with data.
    pub largest: u32,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether a completed write may be lost until a flush; then flushes and forced unit access are sent.
    pub volatile_cache: bool,
    /// Whether and how it discards.
    pub discard: Option<Discard>,
    /// Most bytes of one request to write zeroes; 0 for none.
    pub most_zeroes: u32,
    /// The integrity metadata, if requests carry any.
    pub integrity: Option<Integrity>,
}

fn shift(what: &'static str, value: u32) -> Result<u8, Error> {
    let shift = u8::try_from(value.trailing_zeros()).unwrap_or(u8::MAX);
    if value.is_power_of_two() {
        return Ok(shift);
    }
    Err(Error::Value { what, value: value.into(), allowed: "a power of two" })
}

impl Params {
    /// As the kernel has them.
    ///
    /// # Errors
    /// [`Error::Value`]: a size that is no power of two where the interface has only exponents.
    pub fn to_raw(&self) -> Result<RawParams, Error> {
        let mut types = uapi::PARAM_TYPE_BASIC;
        let mut attrs = 0;
        if self.read_only {
            attrs |= uapi::ATTR_READ_ONLY;
        }
        if self.volatile_cache {
            attrs |= uapi::ATTR_VOLATILE_CACHE | uapi::ATTR_FUA;
        }
        let physical = shift("the physical block size", self.physical_block)?;
        let basic = ParamBasic {
            attrs,
            logical_bs_shift: shift("the logical block size", self.logical_block)?,
            physical_bs_shift: physical,
            io_opt_shift: physical,
            io_min_shift: physical,
            max_sectors: self.largest / 512,
            chunk_sectors: 0,
            dev_sectors: self.bytes / 512,
            virt_boundary_mask: 0,
        };
        let mut discard = ParamDiscard::default();
        if self.discard.is_some() || self.most_zeroes > 0 {
            types |= uapi::PARAM_TYPE_DISCARD;
            // The kernel refuses a granularity of zero, also where only zeroes are written.
            discard.discard_granularity = self.logical_block;
            discard.max_write_zeroes_sectors = self.most_zeroes / 512;
        }
        if let Some(Discard { granularity, alignment, most }) = self.discard {
            discard.discard_granularity = granularity;
            discard.discard_alignment = alignment;
            discard.max_discard_sectors = most / 512;
            discard.max_discard_segments = 1;
        }
        let mut integrity = ParamIntegrity::default();
        if let Some(wanted) = &self.integrity {
            types |= uapi::PARAM_TYPE_INTEGRITY;
            let reference = if wanted.reference { uapi::LBMD_PI_CAP_REFTAG } else { 0 };
            integrity = ParamIntegrity {
                flags: uapi::LBMD_PI_CAP_INTEGRITY | reference,
                max_integrity_segments: 0,
                interval_exp: shift("the protection interval", wanted.interval)?,
                metadata_size: wanted.metadata_size,
                pi_offset: wanted.pi_offset,
                csum_type: match wanted.csum {
                    Csum::None => uapi::LBMD_PI_CSUM_NONE,
                    Csum::Ip => uapi::LBMD_PI_CSUM_IP,
                    Csum::Crc16T10Dif => uapi::LBMD_PI_CSUM_CRC16_T10DIF,
                    Csum::Crc64Nvme => uapi::LBMD_PI_CSUM_CRC64_NVME,
                },
                tag_size: wanted.tag_size,
                pad: [0; 5],
            };
        }
        let mut raw = RawParams { types, basic, discard, integrity, ..RawParams::default() };
        raw.len = u32::try_from(raw.as_bytes().len()).unwrap_or(u32::MAX);
        Ok(raw)
    }

    /// From what the kernel has. None where it has what this library never sets.
    pub fn from_raw(raw: &RawParams) -> Option<Self> {
        let has = |bit| raw.types & bit != 0;
        let size = |shift: u8| 1u32.checked_shl(shift.into());
        if !has(uapi::PARAM_TYPE_BASIC) {
            return None;
        }
        let basic = &raw.basic;
        let discards = has(uapi::PARAM_TYPE_DISCARD) && raw.discard.max_discard_sectors > 0;
        let integrity = if has(uapi::PARAM_TYPE_INTEGRITY) {
            let raw = &raw.integrity;
            Some(Integrity {
                csum: match raw.csum_type {
                    uapi::LBMD_PI_CSUM_NONE => Csum::None,
                    uapi::LBMD_PI_CSUM_IP => Csum::Ip,
                    uapi::LBMD_PI_CSUM_CRC16_T10DIF => Csum::Crc16T10Dif,
                    uapi::LBMD_PI_CSUM_CRC64_NVME => Csum::Crc64Nvme,
                    _ => return None,
                },
                interval: size(raw.interval_exp)?,
                metadata_size: raw.metadata_size,
                pi_offset: raw.pi_offset,
                tag_size: raw.tag_size,
                reference: raw.flags & uapi::LBMD_PI_CAP_REFTAG != 0,
            })
        } else {
            None
        };
        Some(Self {
            bytes: basic.dev_sectors.checked_mul(512)?,
            logical_block: size(basic.logical_bs_shift)?,
            physical_block: size(basic.physical_bs_shift)?,
            largest: basic.max_sectors.checked_mul(512)?,
            read_only: basic.attrs & uapi::ATTR_READ_ONLY != 0,
            volatile_cache: basic.attrs & uapi::ATTR_VOLATILE_CACHE != 0,
            discard: discards.then_some(Discard {
                granularity: raw.discard.discard_granularity,
                alignment: raw.discard.discard_alignment,
                most: raw.discard.max_discard_sectors.saturating_mul(512),
            }),
            most_zeroes: if has(uapi::PARAM_TYPE_DISCARD) {
                raw.discard.max_write_zeroes_sectors.saturating_mul(512)
            } else {
                0
            },
            integrity,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params() -> Params {
        Params {
            bytes: 1 << 30,
            logical_block: 4096,
            physical_block: 8192,
            largest: 512 << 10,
            read_only: false,
            volatile_cache: true,
            discard: Some(Discard { granularity: 4096, alignment: 512, most: 1 << 30 }),
            most_zeroes: 512 << 10,
            integrity: Some(Integrity {
                csum: Csum::Crc64Nvme,
                interval: 512,
                metadata_size: 64,
                pi_offset: 48,
                tag_size: 2,
                reference: true,
            }),
        }
    }

    #[test]
    fn params_when_made_raw_and_read_back_are_the_same() {
        let full = params();
        let plain = Params { read_only: true, volatile_cache: false, discard: None, integrity: None, ..full };
        let bare = Params { most_zeroes: 0, ..plain };
        for params in [full, plain, bare] {
            let raw = params.to_raw().unwrap();
            assert_eq!(raw.len, 152);
            assert_eq!(Params::from_raw(&raw), Some(params));
        }
    }

    #[test]
    fn raw_params_when_only_zeroes_are_written_have_a_granularity_and_no_discard() {
        let raw = Params { discard: None, ..params() }.to_raw().unwrap();
        assert_eq!((raw.discard.discard_granularity, raw.discard.max_discard_sectors), (4096, 0));
        assert_eq!(raw.discard.max_write_zeroes_sectors, 1024);
    }

    #[test]
    fn params_when_a_size_has_no_exponent_are_refused() {
        let odd = Params { physical_block: 12288, ..params() };
        assert!(matches!(odd.to_raw(), Err(Error::Value { value: 12288, .. })));
    }

    #[test]
    fn from_raw_when_the_kernel_gives_an_exponent_out_of_range_is_none() {
        let mut raw = params().to_raw().unwrap();
        raw.basic.logical_bs_shift = 200;
        assert_eq!(Params::from_raw(&raw), None);
        raw = params().to_raw().unwrap();
        raw.integrity.csum_type = 3;
        assert_eq!(Params::from_raw(&raw), None);
    }
}
