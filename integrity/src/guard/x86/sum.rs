//! The IP checksum (RFC 1071): the ones-complement sum of 16-bit words.
//!
//! Ones-complement addition is addition modulo 65535, and 65536 is 1 modulo 65535. So the words may be added in any
//! order and any width, and what overflows 16 bits is added back at the end. Nor does the byte order matter: taking the
//! words little-endian exchanges the two bytes of the sum, no more.
//!
//! The multiply-and-add instructions add two neighbouring products of 16-bit words into 32-bit lanes: with all factors 1
//! that is the widening addition that is wanted, but for the sign. Inverting each word's highest bit makes an unsigned
//! word w the signed word w - 32768, and the sum too small by 32768 per word, which is added back, exactly, before
//! folding. (Folding an exact sum keeps the two zeroes of ones-complement apart: only a sum of zero folds to zero.)
//!
//! ```text
//!   data    line        32 words (AVX-512) or 16 (AVX2)
//!   bias    w ^ 0x8000
//!   add     VPDPWSSD, or VPMADDWD and VPADDD, by ones: pairs of words into 32-bit lanes
//!   across  four intervals' lanes are added side by side: four sums in one vector of 128 bits
//!   fold    add 32768 per word, then high half to low half, twice
//! ```
//!
//! A lane takes at most 2 x 2048 words of an interval of 65536 bytes, each at most 32768 in size: 2^27, far from
//! overflow; the whole sum with its bias is at most 32768 x 65535, below 2^31.

use std::arch::x86_64::*;

use super::{ymm, zmm};

/// AVX-512 and VNNI. The registers of all intervals; `to` is as long as `from`, or unused.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn run512<const COPY: bool>(interval: usize, from: &[u8], to: &mut [u8], registers: &mut [u64]) {
    let (bias, ones) = (_mm512_set1_epi16(i16::MIN), _mm512_set1_epi16(1));
    let mut from = zmm::blocks(from).chunks_exact(interval / 512);
    let mut to = zmm::blocks_mut(to).iter_mut();
    for registers in registers.chunks_mut(4) {
        let mut sums = [_mm256_setzero_si256(); 4];
        for (sum, from) in sums.iter_mut().zip(from.by_ref().take(registers.len())) {
            let mut parts = [_mm512_setzero_si512(); 2];
            for from in from {
                let mut to = to.next();
                for i in 0..8 {
                    let data = zmm::load(&from[i]);
                    if COPY && let Some(to) = &mut to {
                        zmm::store(&mut to[i], data);
                    }
                    parts[i % 2] = _mm512_dpwssd_epi32(parts[i % 2], _mm512_xor_si512(data, bias), ones);
                }
            }
            let part = _mm512_add_epi32(parts[0], parts[1]);
            *sum = _mm256_add_epi32(_mm512_castsi512_si256(part), _mm512_extracti64x4_epi64::<1>(part));
        }
        finish(interval, sums, registers);
    }
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
                    let data = ymm::load(&from[i]);
                    if COPY && let Some(to) = &mut to {
                        ymm::store(&mut to[i], data);
                    }
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_xor_si256(data, bias), ones));
                }
            }
        }
        finish(interval, sums, registers);
    }
}

/// Adds across each vector, takes the bias back, folds, and stores up to four registers.
#[inline]
#[target_feature(enable = "avx2")]
fn finish(interval: usize, [a, b, c, d]: [__m256i; 4], registers: &mut [u64]) {
    // Pairs within the lanes, twice: each lane then holds a half of all four sums, in order.
    let halves = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    let sums = _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves));
    let sums = _mm_add_epi32(sums, _mm_set1_epi32((interval / 2 * 32768) as i32));
    let low = _mm_set1_epi32(0xFFFF);
    let sums = _mm_add_epi32(_mm_and_si128(sums, low), _mm_srli_epi32::<16>(sums));
    let sums = _mm_add_epi32(_mm_and_si128(sums, low), _mm_srli_epi32::<16>(sums));
    let mut words = [0; 32];
    ymm::store(&mut words, _mm256_cvtepu32_epi64(sums));
    for (register, word) in registers.iter_mut().zip(words.as_chunks().0) {
        *register = u64::from_le_bytes(*word);
    }
}
