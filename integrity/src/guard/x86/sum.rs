//! The IP checksum (RFC 1071): the ones-complement sum of 16-bit words.
//!
//! Ones-complement addition is addition modulo 65535, and 65536 is 1 modulo 65535. So the words may be added in any
//! order and any width, and what overflows 16 bits is added back at the end. Nor does the byte order matter: taking the
//! words little-endian exchanges the two bytes of the sum, no more.
//!
//! AVX-512: VPDPBUSD multiplies bytes by factors and adds four neighbouring products into a 32-bit lane. With factors
//! 1, 0, 1, 0 it sums the low bytes of words, with 0, 1, 0, 1 the high ones, which count 256.
//!
//! AVX2: VPMADDWD multiplies 16-bit words and adds two neighbouring products into a 32-bit lane. With all factors 1 that
//! is the widening addition that is wanted, but for the sign: inverting each word's highest bit makes an unsigned word w
//! the signed word w - 32768, and the sum too small by 32768 per word, which is added back before folding.
//!
//! Both sums are exact, and so folding keeps the two zeroes of ones-complement apart: only a sum of zero folds to zero.
//!
//! ```text
//!   data    line        32 words (AVX-512) or 16 (AVX2)
//!   add     into 32-bit lanes
//!   across  eight intervals' lanes (AVX2: four) are added side by side: as many sums in one vector
//!   fold    high half to low half, twice
//! ```
//!
//! The longest interval has 32768 words, whose sum is below 2^31.

use std::arch::x86_64::*;

use super::{ymm, zmm};

/// AVX-512 and VNNI. The registers of all intervals; `to` is as long as `from`, or unused.
///
/// Additions to one register wait for each other. Long intervals are spread over four; short ones overlap anyhow, most
/// where eight of them are one piece of code without a branch.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn run512<const COPY: bool>(interval: usize, from: &[u8], to: &mut [u8], registers: &mut [u64]) {
    let zero = _mm512_setzero_si512();
    let mut from = zmm::blocks(from);
    let mut to = zmm::blocks_mut(to).iter_mut();
    let (eights, rest) = registers.as_chunks_mut::<8>();
    let blocks = interval / 512;
    if blocks == 1 {
        let whole;
        (whole, from) = from.as_chunks::<8>();
        for (from, registers) in whole.iter().zip(eights) {
            let mut sums = [zero; 8];
            for j in 0..8 {
                sums[j] = sum512::<COPY, 1>(std::slice::from_ref(&from[j]), &mut to);
            }
            zmm::store_eight(registers, fold512(sums));
        }
    } else {
        let mut whole = from.chunks_exact(8 * blocks);
        for (from, registers) in whole.by_ref().zip(eights) {
            let mut sums = [zero; 8];
            for (sum, from) in sums.iter_mut().zip(from.chunks_exact(blocks)) {
                *sum = sum512::<COPY, 4>(from, &mut to);
            }
            zmm::store_eight(registers, fold512(sums));
        }
        from = whole.remainder();
    }
    if !rest.is_empty() {
        let mut sums = [zero; 8];
        for (sum, from) in sums.iter_mut().zip(from.chunks_exact(blocks)) {
            *sum = sum512::<COPY, 4>(from, &mut to);
        }
        let mut words = [0; 8];
        zmm::store_eight(&mut words, fold512(sums));
        rest.iter_mut().zip(words).for_each(|(register, word)| *register = word);
    }
}

/// One interval's sum, a part of it in every 32-bit lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn sum512<const COPY: bool, const PARTS: usize>(
    from: &[zmm::Block],
    to: &mut std::slice::IterMut<'_, zmm::Block>,
) -> zmm::Vector {
    let (low_ones, high_ones) = (_mm512_set1_epi16(0x0001), _mm512_set1_epi16(0x0100));
    let zero = _mm512_setzero_si512();
    let (mut low, mut high) = ([zero; PARTS], [zero; PARTS]);
    for from in from {
        let mut to = if COPY { to.next() } else { None };
        for i in 0..8 {
            let data = zmm::take::<COPY>(&from[i], to.as_mut().map(|to| &mut to[i]));
            low[i % PARTS] = _mm512_dpbusd_epi32(low[i % PARTS], data, low_ones);
            high[i % PARTS] = _mm512_dpbusd_epi32(high[i % PARTS], data, high_ones);
        }
    }
    let mut sum = zero;
    for (low, high) in low.into_iter().zip(high) {
        sum = _mm512_add_epi32(sum, _mm512_add_epi32(low, _mm512_slli_epi32::<8>(high)));
    }
    sum
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
    // The lanes of both, twice: the first four sums, and the last four.
    let halves = _mm512_add_epi32(
        _mm512_shuffle_i32x4::<0b10_00_10_00>(first, last),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(first, last),
    );
    let eight = _mm512_add_epi32(
        _mm512_shuffle_i32x4::<0b00_00_10_00>(halves, halves),
        _mm512_shuffle_i32x4::<0b00_00_11_01>(halves, halves),
    );
    let sums = _mm512_cvtepu32_epi64(_mm512_castsi512_si256(eight));
    let low = _mm512_set1_epi64(0xFFFF);
    let sums = _mm512_add_epi64(_mm512_and_si512(sums, low), _mm512_srli_epi64::<16>(sums));
    _mm512_add_epi64(_mm512_and_si512(sums, low), _mm512_srli_epi64::<16>(sums))
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
