//! The null disk: it keeps nothing and answers at once, to measure everything but a medium.
//!
//! `null:SIZE[:GUARD[:INTERVAL]]`, SIZE in bytes or with K, M, G or T (powers of 1024).
//!
//! Without PI a read leaves the buffer as it is, as QEMU's null-co does. With PI a read must verify, for the check is
//! part of what is measured. A device would bring data and PI by DMA, at no cost to the CPU; the cheapest honest
//! stand-in is used here: the data is filled with zeroes (a store stream, no loads) and the tuples of zeroed
//! intervals, made once when the disk is opened, are copied with their reference tags counted on. In intervals of 512
//! bytes that is 33 ns for 4 KiB and 0.2 us for 32 KiB; 128 KiB, beyond the first-level cache, take 5 us, half of what
//! the copy to the guest takes. It also leaves the data in the nearest caches, where DMA leaves it in the last one.
//! Writes and discards cost nothing.
#![forbid(unsafe_code)]

use crate::io::{Doorbell, Ring};
use crate::store::medium::SECTOR;
use crate::store::{Capabilities, Completion, DiscardUnit, Geometry, Io, Op, Store, StoreError, StoreQueue};
use integrity::{Guard, PiType, Profile, ProfileSpec};
use std::io;
use std::sync::Arc;

/// The prefix that makes a path a null disk.
pub(crate) const PREFIX: &str = "null:";
/// Intervals in a run of ready-made tuples.
const RUN: usize = 256;

/// A null disk.
pub(crate) struct NullStore {
    bytes: u64,
    profile: Option<Profile>,
    /// The metadata of `RUN` zeroed intervals, with reference tags from 0 on.
    metadata: Box<[u8]>,
}

impl NullStore {
    /// Reads what follows [`PREFIX`].
    pub(crate) fn parse(text: &str) -> Result<Self, StoreError> {
        let error = |why: String| StoreError::Null { path: format!("{PREFIX}{text}"), why };
        let mut parts = text.split(':');
        let size = parts.next().unwrap_or_default();
        let bytes = parse_size(size).ok_or_else(|| error(format!("{size:?} is no size")))?;
        let guard =
            parts.next().map(|name| name.parse::<Guard>().map_err(|e| error(e.to_string()))).transpose()?;
        let interval = match parts.next() {
            Some(text) => text.parse().map_err(|_| error(format!("{text:?} is no interval")))?,
            None => SECTOR,
        };
        if let Some(more) = parts.next() {
            return Err(error(format!("{more:?} is too much")));
        }
        let profile = match guard {
            None | Some(Guard::None) => None,
            Some(guard) => {
                let size = guard.tuple_size() as u16;
                let pi_type = PiType::Type1;
                let spec =
                    ProfileSpec { guard, interval, metadata_size: size, pi_offset: 0, tag_size: 2, pi_type };
                Some(Profile::new(spec).map_err(|e| error(e.to_string()))?)
            }
        };
        let unit = profile.map_or(SECTOR, |profile| profile.interval() as u32);
        if bytes == 0 || bytes % u64::from(unit) != 0 {
            return Err(error(format!("{bytes} bytes is no whole number of {unit}-byte sectors")));
        }
        let mut metadata = Box::default();
        if let Some(profile) = profile {
            let zeroes = vec![0; RUN * profile.interval()];
            metadata = vec![0; profile.metadata_len(zeroes.len())].into_boxed_slice();
            profile.generate(&zeroes, &mut metadata, 0, 0);
        }
        Ok(Self { bytes, profile, metadata })
    }

    /// The same disk without PI.
    pub(crate) fn without_pi(self) -> Self {
        Self { profile: None, ..self }
    }

    fn fill(&self, io: &mut Io) {
        let (Some(profile), Some(lease)) = (self.profile, &mut io.buffer) else { return };
        let (data, metadata) = lease.parts_mut();
        data.fill(0);
        let mut reference = io.offset / profile.interval() as u64;
        for part in metadata.chunks_mut(self.metadata.len()) {
            part.copy_from_slice(&self.metadata[..part.len()]);
            profile.remap(part, 0, reference);
            reference += RUN as u64;
        }
    }
}

impl Store for NullStore {
    fn geometry(&self) -> Geometry {
        let sector = self.profile.map_or(SECTOR, |profile| profile.interval() as u32);
        Geometry { bytes: self.bytes, logical_block: sector, physical_block: sector.max(4096) }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            profile: self.profile,
            read_only: false,
            discard: Some(DiscardUnit { granularity: self.geometry().logical_block, alignment: 0 }),
            volatile_cache: false,
        }
    }

    fn queue(self: Arc<Self>, _doorbell: Doorbell) -> io::Result<Box<dyn StoreQueue>> {
        Ok(Box::new(NullQueue(self)))
    }

    fn close(&self) -> io::Result<()> {
        Ok(())
    }
}

struct NullQueue(Arc<NullStore>);

impl StoreQueue for NullQueue {
    fn submit(&mut self, mut io: Io, _ring: &mut Ring, done: &mut Vec<Completion>) {
        if io.op == Op::Read {
            self.0.fill(&mut io);
        }
        done.push(Completion { id: io.id, buffer: io.buffer, result: Ok(()) });
    }

    fn complete(&mut self, _value: u64, _result: i32, _ring: &mut Ring, _done: &mut Vec<Completion>) {}

    fn resume(&mut self, _ring: &mut Ring, _done: &mut Vec<Completion>) {}
}

/// A size in bytes: digits, then perhaps K, M, G or T.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.char_indices().next_back()? {
        (at, 'K' | 'k') => (&text[..at], 10),
        (at, 'M' | 'm') => (&text[..at], 20),
        (at, 'G' | 'g') => (&text[..at], 30),
        (at, 'T' | 't') => (&text[..at], 40),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{PAGE, Pool};
    use integrity::Expected;

    #[test]
    fn parse_when_well_formed_gives_size_and_profile() {
        let plain = NullStore::parse("10G").unwrap();
        assert_eq!((plain.bytes, plain.profile), (10 << 30, None));
        let tagged = NullStore::parse("8k:crc64-nvme:4096").unwrap();
        let spec = tagged.profile.unwrap().spec();
        assert_eq!(
            (tagged.bytes, spec.guard, spec.interval, spec.metadata_size),
            (8192, Guard::Crc64Nvme, 4096, 16)
        );
        assert_eq!(tagged.geometry().logical_block, 4096);
        assert_eq!(NullStore::parse("1M:none").unwrap().profile, None);
    }

    #[test]
    fn parse_when_malformed_says_what_is_wrong() {
        for bad in
            ["", "x", "1.5G", "513", "0", "20000000T", "1G:crc32", "1G:ip:100", "1G:ip:x", "1G:ip:512:x", "é"]
        {
            let text = NullStore::parse(bad).err().unwrap().to_string();
            assert!(text.contains("null:SIZE"), "{bad}: {text}");
        }
    }

    #[test]
    fn read_when_the_disk_has_pi_verifies_with_its_own_references() {
        for guard in ["crc16-t10dif", "ip", "crc64-nvme"] {
            let store = Arc::new(NullStore::parse(&format!("1T:{guard}")).unwrap());
            let profile = store.profile.unwrap();
            let bytes = 300 * 512;
            let mut pool = Pool::new(bytes, profile.metadata_len(PAGE)).unwrap();
            let mut lease = pool.take(bytes, profile.metadata_len(bytes)).unwrap();
            lease.parts_mut().0.fill(7);
            let offset = (1 << 40) - bytes as u64;
            let mut io = Io { id: 1, op: Op::Read, offset, bytes: bytes as u64, buffer: Some(lease) };
            store.fill(&mut io);
            let lease = io.buffer.take().unwrap();
            let (data, metadata) = lease.parts();
            assert!(profile.verify(data, metadata, &Expected::new(offset / 512)).is_ok());
            assert!(profile.verify(data, metadata, &Expected::new(offset / 512 - 1)).is_err());
            pool.give_back(lease);
        }
    }

    /// `cargo test -p dixback --release --lib null -- --ignored --nocapture`
    #[test]
    #[ignore = "a measurement"]
    fn cost_of_a_read_with_pi() {
        let store = NullStore::parse("1T:crc16-t10dif").unwrap();
        let profile = store.profile.unwrap();
        let mut pool = Pool::new(1 << 20, profile.metadata_len(PAGE)).unwrap();
        for bytes in [4096, 32 << 10, 128 << 10] {
            let lease = pool.take(bytes, profile.metadata_len(bytes)).unwrap();
            let mut io = Io { id: 1, op: Op::Read, offset: 0, bytes: bytes as u64, buffer: Some(lease) };
            let mut times: Vec<_> = (0..15)
                .map(|_| {
                    let start = std::time::Instant::now();
                    for n in 0..20_000u64 {
                        io.offset = n * 512;
                        store.fill(std::hint::black_box(&mut io));
                    }
                    start.elapsed().as_nanos() / 20_000
                })
                .collect();
            times.sort_unstable();
            println!("{bytes} bytes: ns (best, median) {:?}", (times[0], times[7]));
            pool.give_back(io.buffer.take().unwrap());
        }
    }
}
