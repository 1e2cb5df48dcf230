//! What the tests share: oracles that look nothing like the kernels, profiles, data, and the kernels to run.
#![allow(dead_code, reason = "each test file uses its part")]

use integrity::{Guard, Kernel, PiType, Profile, ProfileSpec};

/// The guards that check anything.
pub const GUARDS: [Guard; 3] = [Guard::Crc16T10Dif, Guard::Ip, Guard::Crc64Nvme];

/// The intervals there are.
pub const INTERVALS: [u32; 8] = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];

/// Runs `test` on every kernel of this machine, and says aloud which ones it lacks.
pub fn on_every_kernel(name: &str, mut test: impl FnMut(Kernel)) {
    for kernel in Kernel::ALL {
        if Kernel::available().contains(&kernel) {
            test(kernel);
        } else {
            skipped(&format!("{name} on kernel {kernel}"), "this machine lacks the processor features");
        }
    }
}

/// Says that a test did not run.
pub fn skipped(name: &str, reason: &str) {
    use std::io::Write;
    let line = format!("SKIPPED {name}: {reason}");
    eprintln!("{line}");
    if let Some(log) = std::env::var_os("DIXBACK_SKIP_LOG") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log);
        file.and_then(|mut file| writeln!(file, "{line}")).expect("the skip log can be written");
    }
}

/// A profile of type 1 with metadata that is the tuple alone.
pub fn bare(guard: Guard, interval: u32) -> Profile {
    with_metadata(guard, interval, guard.tuple_size() as u16, 0, PiType::Type1)
}

/// A profile with metadata around the tuple.
pub fn with_metadata(guard: Guard, interval: u32, size: u16, pi_offset: u8, pi_type: PiType) -> Profile {
    let spec = ProfileSpec { guard, interval, metadata_size: size, pi_offset, tag_size: 0, pi_type };
    Profile::new(spec).expect("a valid profile")
}

/// The guard of `bytes`, one bit at a time from the definitions.
pub fn bitwise(guard: Guard, bytes: &[u8]) -> u64 {
    match guard {
        Guard::None => 0,
        Guard::Crc16T10Dif => {
            let mut crc = 0u16;
            for byte in bytes {
                for bit in (0..8).rev() {
                    let out = crc >> 15 ^ u16::from(byte >> bit & 1);
                    crc = crc << 1 ^ if out == 1 { 0x8BB7 } else { 0 };
                }
            }
            u64::from(crc)
        }
        Guard::Crc64Nvme => {
            let mut crc = u64::MAX;
            for byte in bytes {
                for bit in 0..8 {
                    let out = crc & 1 ^ u64::from(byte >> bit & 1);
                    crc = crc >> 1 ^ if out == 1 { 0x9A6C_9329_AC4B_C9B5 } else { 0 };
                }
            }
            !crc
        }
        Guard::Ip => {
            // RFC 1071, taken literally: big-endian words, the end-around carry after each addition.
            let mut sum = 0u32;
            for word in bytes.chunks(2) {
                sum += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
                sum = (sum & 0xFFFF) + (sum >> 16);
            }
            u64::from(!sum as u16)
        }
    }
}

/// The guard of `bytes` from a library that the kernels do not use, where it has it.
pub fn library(guard: Guard, bytes: &[u8]) -> u64 {
    match guard {
        Guard::Crc16T10Dif => u64::from(crc::Crc::<u16>::new(&crc::CRC_16_T10_DIF).checksum(bytes)),
        Guard::Crc64Nvme => crc::Crc::<u64>::new(&crc::CRC_64_NVME).checksum(bytes),
        Guard::None | Guard::Ip => bitwise(guard, bytes),
    }
}

/// Bytes without pattern, the same at every run.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    // SplitMix64 (Steele, Lea, Flood 2014).
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    };
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| next().to_le_bytes()).collect();
    bytes.truncate(length);
    bytes
}

/// Metadata made the slow way: each tuple from the bitwise oracle over data and the metadata before the tuple.
pub fn reference_generate(
    profile: &Profile,
    data: &[u8],
    metadata: &mut [u8],
    reference: u64,
    application: u16,
) {
    for (i, (data, metadata)) in data
        .chunks_exact(profile.interval())
        .zip(metadata.chunks_exact_mut(profile.metadata_size()))
        .enumerate()
    {
        let covered = [data, &metadata[..profile.pi_offset()]].concat();
        let guard = library(profile.guard(), &covered);
        let step = if profile.pi_type() == PiType::Type1 { i as u64 } else { 0 };
        let reference = reference.wrapping_add(step) & profile.reference_mask();
        profile.set_tuple(metadata, integrity::Tuple { guard, application, reference });
    }
}

/// `data` cut into segments at the given places.
pub fn cut<'a>(data: &'a [u8], places: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places.iter().map(|place| place % (data.len() + 1)).collect();
    places.sort_unstable();
    let mut segments = Vec::new();
    let mut start = 0;
    for place in places {
        segments.push(&data[start..place]);
        start = place;
    }
    segments.push(&data[start..]);
    segments
}
