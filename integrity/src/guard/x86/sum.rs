//! The IP checksum (RFC 1071): the ones-complement sum of 16-bit words.
//!
//! Ones-complement addition is addition modulo 65535, and 65536 is 1 modulo 65535. So the words may be added in any
//! order and any width, and what overflows 16 bits is added back at the end. Nor does the byte order matter: taking the
//! words little-endian exchanges the two bytes of the sum, no more.
//!
//! VPMADDWD multiplies 16-bit words by factors and adds two neighbouring products into a 32-bit lane; VPDPWSSDS (AVX-512
//! with VNNI) also adds what the lane held. With all factors 1 that is the widening addition that is wanted, but for the
//! sign: inverting each word's highest bit makes an unsigned word w the signed word w - 32768, and the sum too small by
//! 32768 per word, which is added back: AVX-512 starts from it, AVX2 adds it before folding.
//!
//! The sums are exact, and so folding keeps the two zeroes of ones-complement apart: only a sum of zero folds to zero.
//! (VPDPWSSDS saturates, which no sum here comes near. The compiler makes two instructions of the one that does not.)
//!
//! ```text
//!   data    line        32 words (AVX-512) or 16 (AVX2)
//!   add     into 32-bit lanes
//!   across  eight intervals' lanes (AVX2: four) are added side by side: as many sums in one vector
//!   fold    high half to low half, twice
//! ```
//!
//! The longest interval has 32768 words, whose sum is below 2^31.
//!
//! What limits it: two instructions per line of 512 bits, on the two ports that execute such, is one line per cycle.
//! The second-level cache gives two lines in three cycles. Below the speed of a scan is what comes after an interval: the
//! sums across lanes are three and a half instructions each, the comparison with a tuple is one.
//!
//! Sources: RFC 1071, section 2, for the arithmetic; Intel's Software Developer's Manual, volume 2, for the
//! instructions.

use std::arch::x86_64::*;

use super::{ymm, zmm};

/// AVX-512 and VNNI. The registers of all intervals; `to` is as long as `from`, or unused.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn run512<const COPY: bool>(interval: usize, from: &[u8], to: &mut [u8], registers: &mut [u64]) {
    let zero = _mm512_setzero_si512();
    // What the words of a lane lack.
    let lack = _mm512_set1_epi32((interval / 32 * 32768) as i32);
    let (mut from, mut to) = (zmm::blocks(from), zmm::blocks_mut(to));
    let (eights, rest) = registers.as_chunks_mut::<8>();
    let blocks = interval / 512;
    if blocks == 1 {
        let (from_eights, from_rest) = from.as_chunks::<8>();
        let (to_eights, to_rest) = to.as_chunks_mut::<8>();
        let mut to_eights = to_eights.iter_mut();
        for (from, registers) in from_eights.iter().zip(&mut *eights) {
            let mut to = if COPY { to_eights.next() } else { None };
            let mut sums = [lack; 8];
            // Additions to one register wait for each other, so four intervals take turns. (With eight the lines come
            // from too many places at a time.)
            for four in 0..2 {
                for i in 0..8 {
                    for j in 4 * four..4 * four + 4 {
                        let data = zmm::take::<COPY>(&from[j][i], to.as_mut().map(|to| &mut to[j][i]));
                        sums[j] = add512(sums[j], data);
                    }
                }
            }
            zmm::store_eight(registers, fold512(sums));
        }
        (from, to) = (from_rest, to_rest);
    }
    let mut from = from.chunks_exact(blocks);
    let mut to = to.iter_mut();
    if blocks > 1 {
        for registers in eights {
            let mut sums = [zero; 8];
            for (sum, from) in sums.iter_mut().zip(from.by_ref()) {
                *sum = sum512::<COPY>(from, &mut to, lack);
            }
            zmm::store_eight(registers, fold512(sums));
        }
    }
    if !rest.is_empty() {
        let mut sums = [zero; 8];
        for (sum, from) in sums.iter_mut().zip(from) {
            *sum = sum512::<COPY>(from, &mut to, lack);
        }
        let mut words = [0; 8];
        zmm::store_eight(&mut words, fold512(sums));
        rest.iter_mut().zip(words).for_each(|(register, word)| *register = word);
    }
}

/// One interval's sum, a part of it in every 32-bit lane, in eight chains of additions that do not wait for each other.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn sum512<const COPY: bool>(
    from: &[zmm::Block],
    to: &mut std::slice::IterMut<'_, zmm::Block>,
    lack: zmm::Vector,
) -> zmm::Vector {
    let mut parts = [_mm512_setzero_si512(); 8];
    parts[0] = lack;
    for from in from {
        let mut to = if COPY { to.next() } else { None };
        for i in 0..8 {
            let data = zmm::take::<COPY>(&from[i], to.as_mut().map(|to| &mut to[i]));
            parts[i] = add512(parts[i], data);
        }
    }
    let [a, b, c, d, e, f, g, h] = parts;
    let add = |a, b| _mm512_add_epi32(a, b);
    add(add(add(a, b), add(c, d)), add(add(e, f), add(g, h)))
}

/// Adds the words of a line, each too small by 32768, to the lanes they are in.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn add512(sum: zmm::Vector, data: zmm::Vector) -> zmm::Vector {
    let (bias, ones) = (_mm512_set1_epi16(i16::MIN), _mm512_set1_epi16(1));
    _mm512_dpwssds_epi32(sum, _mm512_xor_si512(data, bias), ones)
}

/// Eight intervals' sums from their lanes, folded to 16 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn fold512([a, b, c, d, e, f, g, h]: [zmm::Vector; 8]) -> zmm::Vector {
    // Neighbours within the lanes of 128 bits, twice: each then holds a part of four sums, in order.
    let pairs = |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let fours = |a, b| _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    let first = fours(pairs(a, b), pairs(c, d));
    let last = fours(pairs(e, f), pairs(g, h));
    // The lanes of both, by turns, of which the upper half is then added to the lower: the first four sums, the last four.
    let low = _mm512_permutex2var_epi64(first, _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0), last);
    let high = _mm512_permutex2var_epi64(first, _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4), last);
    let halves = _mm512_add_epi32(low, high);
    let eight = _mm256_add_epi32(_mm512_castsi512_si256(halves), _mm512_extracti64x4_epi64::<1>(halves));
    // Each half to the other one: the upper one is then folded twice, by the carry that came from the lower one.
    let both = _mm256_add_epi32(eight, _mm256_rol_epi32::<16>(eight));
    _mm512_cvtepu32_epi64(_mm256_srli_epi32::<16>(both))
}

/// AVX2. The registers of all intervals; `to` is as long as `from`, or unused.
#[target_feature(enable = "avx2")]
pub(super) fn run256<const COPY: bool>(interval: usize, from: &[u8], to: &mut [u8], registers: &mut [u64]) {
    let (bias, ones) = (_mm256_set1_epi16(i16::MIN), _mm256_set1_epi16(1));
    let from: &[[ymm::Line; 16]] = from.as_chunks().0.as_chunks().0;
    let to: &mut [[ymm::Line; 16]] = to.as_chunks_mut().0.as_chunks_mut().0;
    let (mut from, mut to) = (from.chunks_exact(interval / 512), to.iter_mut());
    for registers in registers.chunks_mut(4) {
        let mut sums = [_mm256_setzero_si256(); 4];
        for (sum, from) in sums.iter_mut().zip(from.by_ref().take(registers.len())) {
            for from in from {
                let mut to = to.next();
                for i in 0..16 {
                    let data = ymm::take::<COPY>(&from[i], to.as_mut().map(|to| &mut to[i]));
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_xor_si256(data, bias), ones));
                }
            }
        }
        // Pairs within the lanes, twice: each lane then holds a half of all four sums, in order.
        let [a, b, c, d] = sums;
        let halves = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
        finish(interval / 2 * 32768, halves, registers);
    }
}

/// Adds the halves of four sums and what they lack, folds, and stores up to four registers.
#[inline]
#[target_feature(enable = "avx2")]
fn finish(lack: usize, halves: __m256i, registers: &mut [u64]) {
    let sums = _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves));
    let sums = _mm_add_epi32(sums, _mm_set1_epi32(lack as i32));
    let low = _mm_set1_epi32(0xFFFF);
    let sums = _mm_add_epi32(_mm_and_si128(sums, low), _mm_srli_epi32::<16>(sums));
    let sums = _mm_add_epi32(_mm_and_si128(sums, low), _mm_srli_epi32::<16>(sums));
    let mut words = [0; 4];
    ymm::store_four(&mut words, _mm256_cvtepu32_epi64(sums));
    match registers.first_chunk_mut::<4>() {
        Some(registers) => *registers = words,
        None => registers.iter_mut().zip(words).for_each(|(register, word)| *register = word),
    }
}
