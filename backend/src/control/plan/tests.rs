//! What is offered of which store, and what is refused.

use super::*;
use crate::store::{DiscardUnit, Keeper};
use integrity::{Guard, PiType, ProfileSpec};
use std::collections::HashMap;

fn nodes(params: &str, mode: &str) -> DiskNodes {
    let nodes = HashMap::from([("params", params), ("mode", mode)]);
    DiskNodes::parse(&|node| nodes.get(node).map(|value| value.as_bytes().to_vec())).unwrap()
}

fn profile(interval: u32, metadata_size: u16, tag_size: u8) -> Option<Profile> {
    let (guard, pi_type) = (Guard::Crc16T10Dif, PiType::Type1);
    Profile::new(ProfileSpec { guard, interval, metadata_size, pi_offset: 0, tag_size, pi_type }).ok()
}

fn probe(profile: Option<Profile>, logical_block: u32, physical_block: u32, bytes: u64) -> Probe {
    let discard = Some(DiscardUnit { granularity: 512, alignment: 0 });
    Probe {
        geometry: Geometry { bytes, logical_block, physical_block },
        capabilities: Capabilities { profile, read_only: false, discard, volatile_cache: true },
        keeper: Keeper::Sidecar,
    }
}

fn plan(params: &str, mode: &str, probe: &Probe) -> Result<Plan, String> {
    let nodes = nodes(params, mode);
    let spec = store_spec(&nodes);
    Plan::make(&DaemonConfig::default(), nodes, spec, probe)
}

#[test]
fn sector_size_when_interval_and_block_differ_then_is_the_larger() {
    for (interval, block, sector) in
        [(512, 512, 512), (4096, 512, 4096), (512, 4096, 4096), (4096, 4096, 4096)]
    {
        let probe = probe(profile(interval, 8, 2), block, block, 1 << 20);
        let plan = plan("/d", "w", &probe).unwrap();
        assert_eq!(plan.sector_size(), sector);
        assert_eq!(plan.properties(&probe.geometry, &probe.capabilities).sector_size, sector);
    }
}

#[test]
fn sectors_when_no_guest_can_take_them_then_are_refused_with_the_way_out() {
    let refused = plan("/d", "w", &probe(profile(8192, 8, 2), 512, 512, 1 << 20)).unwrap_err();
    assert!(refused.contains("8192") && refused.contains("dixback image protect"), "{refused}");
    let refused = plan("/d", "w", &probe(None, 8192, 8192, 1 << 20)).unwrap_err();
    assert!(refused.contains("logical block"), "{refused}");
    let refused =
        plan("/d?sector-size=512", "w", &probe(profile(4096, 8, 2), 512, 512, 1 << 20)).unwrap_err();
    assert!(refused.contains("sector-size=512") && refused.contains("4096"), "{refused}");
    let refused = plan("/d", "w", &probe(profile(4096, 8, 2), 512, 512, (1 << 20) + 512)).unwrap_err();
    assert!(refused.contains("no whole number of sectors"), "{refused}");
}

#[test]
fn physical_block_when_the_disk_is_not_whole_in_it_then_is_not_told() {
    let whole = probe(None, 512, 4096, 1 << 20);
    let odd = probe(None, 512, 4096, (1 << 20) + 512);
    let plan = plan("/d", "w", &whole).unwrap();
    assert_eq!(plan.properties(&whole.geometry, &whole.capabilities).physical_sector_size, 4096);
    assert_eq!(plan.properties(&odd.geometry, &odd.capabilities).physical_sector_size, 512);
}

#[test]
fn discard_when_offered_then_comes_in_whole_sectors_and_only_to_writers() {
    let probe = probe(profile(4096, 8, 2), 512, 512, 1 << 20);
    let offered = |params, mode| {
        let plan = plan(params, mode, &probe).unwrap();
        plan.properties(&probe.geometry, &probe.capabilities).discard
    };
    assert_eq!(offered("/d", "w").map(|discard| discard.granularity), Some(4096));
    assert_eq!(offered("/d?discard=off", "w"), None);
    assert_eq!(offered("/d", "r"), None);
}

#[test]
fn largest_request_when_its_payload_is_large_then_is_lowered_in_the_offer() {
    let plan = plan("/d", "w", &probe(profile(512, 128, 2), 512, 512, 1 << 20)).unwrap();
    // 11 pages of payload, 128 bytes for each 512: 176 KiB of data, 44 pages.
    assert_eq!(plan.transport.limits(true).max_indirect, 44);
}

#[test]
fn application_tag_when_the_profile_has_no_room_then_is_refused() {
    let probe = probe(profile(512, 8, 0), 512, 512, 1 << 20);
    assert!(plan("/d?app-tag=7", "w", &probe).unwrap_err().contains("app-tag="));
}

#[test]
fn store_when_it_is_not_what_was_announced_then_is_refused() {
    let then = probe(profile(512, 8, 2), 512, 512, 1 << 20);
    let plan = plan("/d", "w", &then).unwrap();
    assert_eq!(plan.holds(&then.geometry, &then.capabilities), Ok(()));
    let larger = probe(profile(512, 8, 2), 512, 512, 1 << 21);
    assert_eq!(plan.holds(&larger.geometry, &larger.capabilities), Ok(()), "a disk may grow");
    for now in [
        probe(None, 512, 512, 1 << 20),
        probe(profile(4096, 8, 2), 512, 512, 1 << 20),
        probe(profile(512, 8, 2), 4096, 4096, 1 << 20),
        probe(profile(512, 8, 2), 512, 512, 0),
    ] {
        assert!(plan.holds(&now.geometry, &now.capabilities).is_err());
    }
    let capabilities = Capabilities { read_only: true, ..then.capabilities };
    assert!(plan.holds(&then.geometry, &capabilities).is_err());
}

#[test]
fn store_when_it_can_only_be_read_then_mode_w_is_refused() {
    let mut probe = probe(None, 512, 512, 1 << 20);
    probe.capabilities.read_only = true;
    assert!(plan("/d", "w", &probe).unwrap_err().contains("mode is w"));
    assert!(plan("/d", "r", &probe).is_ok());
}

#[test]
fn buffers_when_the_disk_has_pi_then_are_counted_with_it() {
    let bytes = |profile| {
        plan("/d?pool=8MiB&indirect=0", "w", &probe(profile, 512, 512, 1 << 20)).unwrap().queue_bytes()
    };
    let (without, with) = (bytes(None), bytes(profile(512, 8, 2)));
    assert!(without >= 8 << 20);
    assert_eq!(with - without, (8 << 20) / 512 * 8);
}

#[test]
fn pi_of_a_device_when_it_is_to_be_served_without_is_left_to_the_kernel() {
    let sidecar = probe(profile(512, 8, 2), 512, 512, 1 << 20);
    let refused = plan("/d?integrity=off", "w", &sidecar).unwrap_err();
    assert!(refused.contains("integrity=off"), "{refused}");
    let device = Probe { keeper: Keeper::Device, ..sidecar };
    let plan = plan("/d?integrity=off", "w", &device).unwrap();
    assert_eq!((plan.profile, plan.store.pi), (None, PiSource::None));
}

#[test]
fn keys_that_describe_pi_when_given_then_are_the_wish_and_what_is_found_must_be_it() {
    let found = probe(profile(4096, 64, 2), 4096, 4096, 1 << 20);
    let plan = |params| plan(params, "w", &found);
    let kept = plan("/d?pi=device&guard=crc16-t10dif&interval=4096&metadata-size=64").unwrap();
    let wish = Wish { guard: Some(Guard::Crc16T10Dif), interval: Some(4096), metadata_size: Some(64) };
    assert_eq!((kept.store.wish, kept.store.pi), (wish, PiSource::Device));
    assert!(plan("/d?metadata-size=8").unwrap_err().contains("metadata-size=8"));
}
