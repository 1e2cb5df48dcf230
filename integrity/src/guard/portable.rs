//! The kernel for every machine: the crc-fast crate for the CRCs, a plain loop for the IP checksum.
#![forbid(unsafe_code)]

use crc_fast::{CrcAlgorithm, Digest, checksum};

use super::Guard;

/// The registers of whole intervals.
pub(super) fn scan(guard: Guard, interval: usize, data: &[u8], registers: &mut [u64]) {
    for (data, register) in data.chunks_exact(interval).zip(registers) {
        *register = match guard {
            // In one call, which takes less time than a digest that could go on.
            Guard::Crc16T10Dif => checksum(CrcAlgorithm::Crc16T10Dif, data),
            Guard::Crc64Nvme => !checksum(CrcAlgorithm::Crc64Nvme, data),
            Guard::Ip => fold(sum(data)),
            Guard::None => 0,
        };
    }
}

/// The register after `bytes`. For the IP checksum an even number of bytes must have gone before.
pub(super) fn extend(guard: Guard, register: u64, bytes: &[u8]) -> u64 {
    match guard {
        Guard::None => 0,
        Guard::Crc16T10Dif => crc(CrcAlgorithm::Crc16T10Dif, register, bytes),
        Guard::Crc64Nvme => crc(CrcAlgorithm::Crc64Nvme, register, bytes),
        Guard::Ip => fold(register + sum(bytes)),
    }
}

fn crc(algorithm: CrcAlgorithm, register: u64, bytes: &[u8]) -> u64 {
    let mut digest = Digest::new_with_init_state(algorithm, register);
    digest.update(bytes);
    digest.get_state()
}

/// The sum of the little-endian 16-bit words of `bytes`, an odd last byte being a word of its own.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(2);
    let last = words.remainder().iter().map(|&byte| u64::from(byte)).sum::<u64>();
    // 32-bit lanes: 65536 words of at most 65535 are below 2^32, and a u64 takes every block's sum.
    bytes
        .chunks(131_072)
        .map(|block| {
            let words = block.chunks_exact(2).map(|word| u32::from(u16::from_le_bytes([word[0], word[1]])));
            u64::from(words.sum::<u32>())
        })
        .sum::<u64>()
        + last
}

/// Folds a ones-complement sum to 16 bits. Only a sum of zero gives zero: any other multiple of 65535 gives 65535,
/// and so the two zeroes of ones-complement arithmetic are told apart as everybody else's folding does.
pub(super) fn fold(mut sum: u64) -> u64 {
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    sum
}
