//! CRCs that go on over the metadata before the tuple: every processor with AVX2.
//!
//! These are 1 to 247 bytes per interval, too few for chains, so each interval is one sum of products as in
//! [`carryless`](super::carryless), counted from the end of the bytes: a part of a lane in front is filled up with zeroes,
//! which count nothing. The register so far, the remainder of all that went before, counts x^(8 bytes).

use super::carryless::{nvme_powers, t10dif_powers};
use super::xmm::{
    Line, Vector, first_word, high_product, low_product, pairs, reduce_nvme, reduce_t10dif, reverse, take,
    xor3,
};
use crate::guard::polynomial::{nvme_power, t10dif_power};

/// The powers by which 16 lanes count, the last one at the end.
static T10DIF_LANES: [[[u64; 2]; 2]; 8] = t10dif_powers();
static NVME_LANES: [[[u64; 2]; 2]; 8] = nvme_powers();

/// The powers by which the register counts, by the number of bytes that follow it. (A reflected product
/// gains one x.)
static T10DIF_REGISTER: [u64; 256] = registers(false);
static NVME_REGISTER: [u64; 256] = registers(true);

const fn registers(nvme: bool) -> [u64; 256] {
    let mut powers = [0; 256];
    let mut bytes = 1;
    while bytes < 256 {
        powers[bytes] = if nvme { nvme_power(8 * bytes - 1) } else { t10dif_power(8 * bytes) };
        bytes += 1;
    }
    powers
}

/// The registers after the first `length` bytes of the metadata of each interval, which is `size` bytes: those of
/// CRC-64/`NVME`, or else of CRC-16/T10-DIF.
#[target_feature(enable = "avx2,pclmulqdq")]
pub(super) fn run<const NVME: bool>(registers: &mut [u64], metadata: &[u8], size: usize, length: usize) {
    let (lanes, power) = match NVME {
        true => (NVME_LANES.as_flattened(), NVME_REGISTER[length]),
        false => (T10DIF_LANES.as_flattened(), T10DIF_REGISTER[length]),
    };
    let power = first_word(power);
    let front = length % 16;
    let (front_lane, lanes) = lanes[lanes.len() - 1 - length / 16..].split_at(1);
    for (register, metadata) in registers.iter_mut().zip(metadata.chunks_exact(size)) {
        let mut sum = low_product(first_word(*register), power);
        if front > 0 {
            let filled = match metadata.first_chunk::<16>() {
                // The zeroes are shifted in; filling a buffer by so many bytes takes longer than all the rest.
                Some(line) => (u128::from_le_bytes(*line) << (8 * (16 - front))).to_le_bytes(),
                None => {
                    let mut line = [0; 16];
                    line[16 - front..].copy_from_slice(&metadata[..front]);
                    line
                }
            };
            sum = add_product::<NVME>(sum, &filled, &front_lane[0]);
        }
        for (line, lane) in metadata[front..length].as_chunks().0.iter().zip(lanes) {
            sum = add_product::<NVME>(sum, line, lane);
        }
        *register = if NVME { reduce_nvme(sum) } else { reduce_t10dif(sum) };
    }
}

/// `sum` plus each of a line's two words times its power.
#[inline]
#[target_feature(enable = "avx2,pclmulqdq")]
fn add_product<const NVME: bool>(sum: Vector, line: &Line, powers: &[u64; 2]) -> Vector {
    let line = take::<false>(line, None);
    let line = if NVME { line } else { reverse(line) };
    let powers = pairs(std::array::from_ref(powers));
    xor3(sum, low_product(line, powers), high_product(line, powers))
}
