//! Proof of each kernel by basis, and what a basis does not show.
//!
//! Up to its constant, a CRC of data of one length is linear over GF(2), and so is every kernel by construction: XORs,
//! bit matrices, carry-less products. Two linear maps that agree on a basis, the inputs of one bit, agree on all inputs;
//! the zero input shows the constant. So these tests are exhaustive for the CRCs, once for every place that an interval
//! may have among those computed together. The IP checksum is additive over integers, not over GF(2): for it the one-bit
//! inputs show the weight of every bit, and the extremes show that nothing overflows.

mod common;

use common::{
    GUARDS, INTERVALS, bare, bitwise, cut, library, noise, on_every_kernel, reference_generate, with_metadata,
};
use integrity::{Expected, Guard, Kernel, PiType, Profile, Tag};

/// How many intervals are generated at a time.
const AT_A_TIME: usize = 64;

/// Guards of all inputs of one bit, byte by byte and from bit 0 to bit 7, from the definitions.
///
/// The guard of the last bit comes from the bitwise oracle; a bit further to the front is one more step of the shift
/// register, in which nothing comes in.
fn basis(guard: Guard, interval: usize) -> Vec<u64> {
    let zero = bitwise(guard, &vec![0; interval]);
    let one = |bit: usize| {
        let mut data = vec![0; interval];
        data[bit / 8] = 1 << (bit % 8);
        bitwise(guard, &data)
    };
    let mut guards = vec![0; 8 * interval];
    match guard {
        Guard::Crc16T10Dif => {
            // The last bit to come in is bit 0 of the last byte.
            let mut register = one(8 * (interval - 1)) ^ zero;
            for step in 0..8 * interval {
                guards[8 * (interval - 1 - step / 8) + step % 8] = register ^ zero;
                register = (register << 1) & 0xFFFF ^ if register >> 15 == 1 { 0x8BB7 } else { 0 };
            }
        }
        Guard::Crc64Nvme => {
            // Here it is bit 7.
            let mut register = one(8 * interval - 1) ^ zero;
            for step in 0..8 * interval {
                guards[8 * interval - 1 - step] = register ^ zero;
                register = register >> 1 ^ if register & 1 == 1 { 0x9A6C_9329_AC4B_C9B5 } else { 0 };
            }
        }
        Guard::Ip | Guard::None => {
            for (bit, guard) in guards.iter_mut().enumerate() {
                // Bytes of even places are the high ones of their words.
                *guard = 0xFFFF - (1 << (8 * (1 - bit / 8 % 2) + bit % 8));
            }
        }
    }
    // The short cut itself, against the oracle.
    for bit in [0, 1, 7, 8, 9, 63, 64, 511, 512, 4 * interval, 8 * interval - 9, 8 * interval - 1] {
        assert_eq!(guards[bit], one(bit), "{guard}, {interval} bytes, bit {bit}");
    }
    guards
}

/// The guards that a profile makes of data, `count` intervals per call, the first call `first` long.
fn guards(profile: &Profile, data: &[u8], first: usize, count: usize, copy: bool) -> Vec<u64> {
    let interval = profile.interval();
    let mut metadata = vec![0; profile.metadata_len(data.len())];
    let mut to = vec![0; data.len()];
    let mut start = 0;
    while start * interval < data.len() {
        let end = if start == 0 && first > 0 { first } else { start + count }.min(data.len() / interval);
        let data = &data[start * interval..end * interval];
        let metadata = &mut metadata[start * profile.metadata_size()..end * profile.metadata_size()];
        if copy {
            profile.copy_generate(&[data], &mut to[start * interval..end * interval], metadata, 0, 0);
        } else {
            profile.generate(data, metadata, 0, 0);
        }
        start = end;
    }
    if copy {
        assert_eq!(to, data);
    }
    metadata.chunks_exact(profile.metadata_size()).map(|metadata| profile.tuple(metadata).guard).collect()
}

/// Checks all inputs of one bit, `AT_A_TIME` intervals in one buffer, each with the next bit; every `each`-th bit only.
fn check_basis(profile: &Profile, basis: &[u64], each: usize, first: usize, count: usize, copy: bool) {
    let interval = profile.interval();
    let mut data = vec![0; AT_A_TIME * interval];
    let bits: Vec<usize> = (0..basis.len()).step_by(each).collect();
    for bits in bits.chunks(AT_A_TIME) {
        for (i, bit) in bits.iter().enumerate() {
            data[i * interval + bit / 8] = 1 << (bit % 8);
        }
        let made = guards(profile, &data[..bits.len() * interval], first, count, copy);
        for (i, &bit) in bits.iter().enumerate() {
            assert_eq!(made[i], basis[bit], "{profile}, bit {bit}, {}, {first} {count}", profile.kernel());
            data[i * interval + bit / 8] = 0;
        }
    }
}

#[test]
fn kernel_when_given_every_bit_of_512_bytes_then_as_the_oracle_in_every_place() {
    let name = "kernel_when_given_every_bit_of_512_bytes_then_as_the_oracle_in_every_place";
    on_every_kernel(name, |kernel| {
        for guard in GUARDS {
            let basis = basis(guard, 512);
            let profile = bare(guard, 512).with_kernel(kernel).unwrap();
            // Shifted by 0 to 7 every bit meets every place in a group of up to eight; one to seven per call are the tails.
            for (first, count) in (0..8).map(|first| (first, 64)).chain((1..8).map(|count| (0, count))) {
                check_basis(&profile, &basis, 1, first, count, false);
            }
            check_basis(&profile, &basis, 1, 1, 7, true);
        }
    });
}

#[test]
fn kernel_when_given_every_bit_of_1024_to_4096_bytes_then_as_the_oracle() {
    let name = "kernel_when_given_every_bit_of_1024_to_4096_bytes_then_as_the_oracle";
    on_every_kernel(name, |kernel| {
        for guard in GUARDS {
            for interval in [1024, 2048, 4096] {
                let profile = bare(guard, interval).with_kernel(kernel).unwrap();
                let basis = basis(guard, profile.interval());
                // The portable kernel is another project's, proven there; without optimisation it takes minutes.
                let each = if kernel == Kernel::Portable && cfg!(debug_assertions) { 97 } else { 1 };
                check_basis(&profile, &basis, each, 0, 5, false);
                // The other ways through the same products: a step that meets all bytes, words and bits.
                check_basis(&profile, &basis, 61, 0, 1, false);
                check_basis(&profile, &basis, 53, 3, 64, true);
            }
        }
    });
}

#[test]
fn kernel_when_given_bits_of_8192_to_65536_bytes_then_as_the_oracle() {
    let name = "kernel_when_given_bits_of_8192_to_65536_bytes_then_as_the_oracle";
    on_every_kernel(name, |kernel| {
        for guard in GUARDS {
            for interval in [8192, 16384, 32768, 65536] {
                let profile = bare(guard, interval).with_kernel(kernel).unwrap();
                let basis = basis(guard, profile.interval());
                // A few hundred bits, whose distance is coprime to all the kernels' strides.
                check_basis(&profile, &basis, profile.interval() / 32 - 1, 1, 3, false);
            }
        }
    });
}

#[test]
fn generate_when_metadata_before_the_tuple_has_any_bit_then_as_the_oracle() {
    // Every place of a bit for lengths around a lane's 16 bytes; noise for every other length there is.
    let profile = |guard: Guard, length: u8| {
        let size = u16::from(length) + guard.tuple_size() as u16;
        with_metadata(guard, 512, size, length, PiType::Type1)
    };
    let mut cases = Vec::new();
    for guard in GUARDS {
        for length in 1..=(255 - guard.tuple_size()) {
            let profile = profile(guard, length as u8);
            let size = profile.metadata_size();
            let mut metadata = noise(5 * size, length as u64);
            if matches!(length, 1..=2 | 7..=9 | 15..=17 | 48 | 56 | 239) {
                let mut bits = vec![0; 8 * length * size];
                (0..8 * length).for_each(|bit| bits[bit * size + bit / 8] = 1 << (bit % 8));
                metadata.extend(bits);
            }
            let data = noise(metadata.len() / size * 512, 3);
            let mut expected = metadata.clone();
            reference_generate(&profile, &data, &mut expected, 7, 0);
            cases.push((profile, data, metadata, expected));
        }
    }
    let name = "generate_when_metadata_before_the_tuple_has_any_bit_then_as_the_oracle";
    on_every_kernel(name, |kernel| {
        for (profile, data, metadata, expected) in &cases {
            let profile = profile.with_kernel(kernel).unwrap();
            let mut made = metadata.clone();
            profile.generate(data, &mut made, 7, 0);
            assert!(made == *expected, "{profile}, {kernel}");
        }
    });
}

/// Data that is likely to go wrong: carries, signs, zeroes.
fn adversarial(interval: usize) -> Vec<Vec<u8>> {
    let words = |word: u16| word.to_be_bytes().repeat(interval / 2);
    let mut all: Vec<Vec<u8>> =
        [0, 0xFFFF, 0x8000, 0x0080, 0x7FFF, 0xFF7F, 0x00FF, 0xFF00, 1, 0x0100, 0xFFFE, 0x5555]
            .map(words)
            .to_vec();
    // Sums of exactly 65535, and one more and less.
    for last in [0x0000u16, 0x0001, 0xFFFE, 0xFFFF] {
        let mut data = vec![0; interval];
        data[interval - 2..].copy_from_slice(&last.to_be_bytes());
        all.push(data.clone());
        data[0] = 0x80;
        all.push(data.clone());
        data[..2].copy_from_slice(&[0xFF, 0xFF]);
        all.push(data);
    }
    // The generators themselves, at places that the kernels treat differently.
    for place in [0, 1, 15, 31, 63, 64, interval / 2, interval - 16] {
        let mut data = vec![0; interval];
        data[place..place + 3].copy_from_slice(&[0x01, 0x8B, 0xB7]);
        all.push(data.clone());
        data[place..place + 8].copy_from_slice(&0x9A6C_9329_AC4B_C9B5u64.to_le_bytes());
        all.push(data);
    }
    all
}

#[test]
fn kernel_when_given_adversarial_data_then_as_the_oracle() {
    on_every_kernel("kernel_when_given_adversarial_data_then_as_the_oracle", |kernel| {
        for guard in GUARDS {
            for interval in INTERVALS {
                let profile = bare(guard, interval).with_kernel(kernel).unwrap();
                for data in adversarial(profile.interval()) {
                    let made = guards(&profile, &data, 0, 1, false);
                    assert_eq!(made, [bitwise(guard, &data)], "{profile}, {kernel}, {:?}", &data[..16]);
                }
                let all = adversarial(profile.interval());
                let expected: Vec<u64> = all.iter().map(|data| library(guard, data)).collect();
                assert_eq!(guards(&profile, &all.concat(), 0, 64, true), expected, "{profile}, {kernel}");
            }
        }
    });
}

#[test]
fn kernel_when_data_has_any_alignment_and_count_then_as_the_oracle() {
    on_every_kernel("kernel_when_data_has_any_alignment_and_count_then_as_the_oracle", |kernel| {
        for guard in GUARDS {
            for interval in [512, 1024, 4096] {
                let profile = bare(guard, interval).with_kernel(kernel).unwrap();
                let interval = profile.interval();
                let bytes = noise(9 * interval + 128, 21);
                for alignment in 0..64 {
                    let data = &bytes[alignment..][..5 * interval];
                    let expected: Vec<u64> =
                        data.chunks_exact(interval).map(|data| library(guard, data)).collect();
                    assert_eq!(guards(&profile, data, 0, 5, false), expected);
                    let mut to = vec![0; data.len() + 64];
                    let mut metadata = vec![0; profile.metadata_len(data.len())];
                    // Each with each; without optimisation, where this takes minutes, each once.
                    let starts = if cfg!(debug_assertions) {
                        alignment * 37 % 64..=alignment * 37 % 64
                    } else {
                        0..=63
                    };
                    for start in starts {
                        metadata.fill(0);
                        profile.copy_generate(
                            &[data],
                            &mut to[start..start + data.len()],
                            &mut metadata,
                            0,
                            0,
                        );
                        assert_eq!(&to[start..start + data.len()], data);
                        let made = metadata.chunks_exact(profile.metadata_size());
                        assert!(made.map(|tuple| profile.tuple(tuple).guard).eq(expected.iter().copied()));
                    }
                }
                for count in 0..=9 {
                    let data = &bytes[7..][..count * interval];
                    let expected: Vec<u64> =
                        data.chunks_exact(interval).map(|data| library(guard, data)).collect();
                    assert_eq!(guards(&profile, data, 0, 64, false), expected);
                    assert_eq!(guards(&profile, data, 0, 64, true), expected);
                }
            }
        }
    });
}

#[test]
fn verify_when_any_interval_of_a_long_buffer_is_wrong_then_that_one_is_named() {
    on_every_kernel("verify_when_any_interval_of_a_long_buffer_is_wrong_then_that_one_is_named", |kernel| {
        for guard in GUARDS {
            let profile = bare(guard, 512).with_kernel(kernel).unwrap();
            let mut data = noise(512 * 141, 5);
            let mut metadata = vec![0; profile.metadata_len(data.len())];
            profile.generate(&data, &mut metadata, 9, 0);
            let cuts = [5000, 10_240, 40_960, 50_001];
            for interval in 0..141 {
                let byte = 512 * interval + interval * 11 % 512;
                data[byte] ^= 0x10;
                // A later one that is wrong as well is not the first.
                data[512 * 140 + 511] ^= 0x01;
                let mut to = vec![0; data.len()];
                let expected = Expected::new(9);
                let found = profile.verify(&data, &metadata, &expected).unwrap_err();
                assert_eq!((found.interval, found.tag), (interval, Tag::Guard));
                assert_eq!(profile.verify_segments(&cut(&data, &cuts), &metadata, &expected), Err(found));
                assert_eq!(
                    profile.copy_verify(&cut(&data, &cuts), &mut to, &metadata, &expected),
                    Err(found)
                );
                data[byte] ^= 0x10;
                data[512 * 140 + 511] ^= 0x01;
                metadata[interval * profile.metadata_size() + profile.tuple_size() - 1] ^= 0x80;
                let found = profile.verify(&data, &metadata, &expected).unwrap_err();
                assert_eq!((found.interval, found.tag), (interval, Tag::Reference));
                assert_eq!(found.expected ^ found.actual, 0x80);
                metadata[interval * profile.metadata_size() + profile.tuple_size() - 1] ^= 0x80;
            }
        }
    });
}
