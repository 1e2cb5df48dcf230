//! A disk as a ublk device: what the operator says of it, against what it is, as the driver's parameters.
#![forbid(unsafe_code)]

use crate::config::{DaemonConfig, DiskNodes, DiskSpec};
use crate::control::{Plan, store_spec};
use crate::store::{self, Capabilities, Geometry};
use ::ublk::{Csum, Discard, Integrity, Params};
use integrity::{Guard, PiType, Profile};

/// Most bytes of a request. Larger ones are split by the block layer.
pub(super) const LARGEST: u32 = 512 << 10;
/// Most bytes of a discard: a store may lock what it discards, piece by piece.
const MOST_DISCARDED: u32 = 1 << 30;

/// A target as `dixback run` takes it, where a path may be relative too.
pub(super) fn absolute(target: &str) -> Result<String, String> {
    if target.starts_with('/') || target.starts_with("null:") || target.is_empty() {
        return Ok(target.to_owned());
    }
    let folder = std::env::current_dir().map_err(|error| format!("the current directory: {error}"))?;
    let folder = folder.to_str().ok_or("the current directory's name is no UTF-8; give an absolute path")?;
    Ok(format!("{}/{target}", crate::config::escape::encode(folder.trim_end_matches('/'))))
}

/// Looks at a disk and decides what it will be.
///
/// # Errors
/// The disk as it is cannot be what is wanted of it; the text says what to do.
pub(super) fn plan(target: &str, read_only: bool) -> Result<Plan, String> {
    let spec = DiskSpec::parse(target).map_err(|error| error.to_string())?;
    let nodes = DiskNodes { spec, read_only, discard: None, cdrom: false, removable: false };
    let store = store_spec(&nodes);
    let probe = store::probe(&store).map_err(|error| error.to_string())?;
    Plan::make(&DaemonConfig::default(), nodes, store, &probe)
}

/// The device's parameters.
pub(super) fn params(plan: &Plan, geometry: &Geometry, capabilities: &Capabilities) -> Params {
    let block = plan.sector_size();
    let discard = capabilities.discard.filter(|_| plan.nodes.offers_discard());
    Params {
        bytes: geometry.bytes,
        logical_block: block,
        physical_block: geometry.physical_block.max(block),
        largest: LARGEST,
        read_only: plan.nodes.read_only,
        volatile_cache: capabilities.volatile_cache,
        discard: discard.map(|unit| {
            let granularity = unit.granularity.max(block);
            Discard { granularity, alignment: unit.alignment, most: MOST_DISCARDED.max(granularity) }
        }),
        // Each is written from a buffer, like any other write.
        most_zeroes: if plan.nodes.read_only { 0 } else { LARGEST },
        integrity: plan.profile.as_ref().map(metadata),
    }
}

/// The profile as the driver says it.
fn metadata(profile: &Profile) -> Integrity {
    let spec = profile.spec();
    Integrity {
        csum: match spec.guard {
            Guard::None => Csum::None,
            Guard::Ip => Csum::Ip,
            Guard::Crc16T10Dif => Csum::Crc16T10Dif,
            Guard::Crc64Nvme => Csum::Crc64Nvme,
        },
        interval: spec.interval,
        // A profile's is 1 to 255.
        metadata_size: u8::try_from(spec.metadata_size).unwrap_or(u8::MAX),
        pi_offset: spec.pi_offset,
        tag_size: spec.tag_size,
        reference: spec.pi_type == PiType::Type1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params_of(target: &str, read_only: bool) -> Params {
        let plan = plan(target, read_only).unwrap();
        let probe = store::probe(&plan.store).unwrap();
        params(&plan, &probe.geometry, &probe.capabilities)
    }

    #[test]
    fn params_when_the_disk_has_pi_carry_its_profile() {
        let params = params_of("null:1G:crc64-nvme:4096", false);
        let integrity = Integrity {
            csum: Csum::Crc64Nvme,
            interval: 4096,
            metadata_size: 16,
            pi_offset: 0,
            tag_size: 2,
            reference: true,
        };
        assert_eq!(params.integrity, Some(integrity));
        assert_eq!((params.logical_block, params.bytes), (4096, 1 << 30));
        assert_eq!(params.most_zeroes, LARGEST);
        assert!(params.to_raw().is_ok());
    }

    #[test]
    fn params_when_read_only_offer_neither_discards_nor_zeroes() {
        let params = params_of("null:1G", true);
        assert!(params.read_only);
        assert_eq!((params.discard, params.most_zeroes, params.integrity), (None, 0, None));
    }

    #[test]
    fn plan_when_a_key_cannot_be_says_why() {
        let refused = plan("null:1G?integrity=require", false).unwrap_err();
        assert!(refused.contains("integrity=require needs PI"), "{refused}");
        assert!(plan("null:1G?queues=0", false).is_err());
    }

    #[test]
    fn absolute_when_the_path_is_relative_puts_the_directory_in_front() {
        let folder = std::env::current_dir().unwrap();
        let encoded = crate::config::escape::encode(folder.to_str().unwrap());
        assert_eq!(absolute("a.img?queues=1").unwrap(), format!("{encoded}/a.img?queues=1"));
        assert_eq!(absolute("/a.img").unwrap(), "/a.img");
        assert_eq!(absolute("null:1G").unwrap(), "null:1G");
    }
}
