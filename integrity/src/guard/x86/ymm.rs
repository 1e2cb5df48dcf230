//! Vectors of 256 bits.

use std::arch::x86_64::*;

use super::xmm;

pub(super) type Vector = __m256i;
pub(super) type Line = [u8; 32];

/// Loads a line, aligned or not, and stores it to `to` if it is to be copied: the only load there is of these bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn take<const COPY: bool>(from: &Line, to: Option<&mut Line>) -> Vector {
    // SAFETY: the reference is to 32 readable bytes.
    let value = unsafe { _mm256_loadu_si256(from.as_ptr().cast()) };
    if COPY && let Some(to) = to {
        // SAFETY: the reference is to 32 writable bytes.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), value) };
    }
    value
}

/// Loads four words.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn four(words: &[u64; 4]) -> Vector {
    // SAFETY: the reference is to 32 readable bytes.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

/// Stores four words.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store_four(words: &mut [u64; 4], value: Vector) {
    // SAFETY: the reference is to 32 writable bytes.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), value) }
}

/// A pair of words for each lane.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn pairs(words: &[[u64; 2]; 2]) -> Vector {
    // SAFETY: the reference is to 32 readable bytes.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

/// The XOR of three.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn xor3(a: Vector, b: Vector, c: Vector) -> Vector {
    _mm256_xor_si256(_mm256_xor_si256(a, b), c)
}

/// Each lane's low word times that of the other.
#[inline]
#[target_feature(enable = "avx2,vpclmulqdq")]
pub(super) fn low_product(a: Vector, b: Vector) -> Vector {
    _mm256_clmulepi64_epi128::<0x00>(a, b)
}

/// Each lane's high word times that of the other.
#[inline]
#[target_feature(enable = "avx2,vpclmulqdq")]
pub(super) fn high_product(a: Vector, b: Vector) -> Vector {
    _mm256_clmulepi64_epi128::<0x11>(a, b)
}

/// The sixteen bytes of each lane in reverse order.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn reverse(value: Vector) -> Vector {
    let order = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    _mm256_shuffle_epi8(value, _mm256_broadcastsi128_si256(order))
}

/// One word at the very front, zeroes behind.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn first_word(word: u64) -> Vector {
    _mm256_set_epi64x(0, 0, 0, word as i64)
}

/// The XOR of the two lanes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn lanes(value: Vector) -> __m128i {
    _mm_xor_si128(_mm256_castsi256_si128(value), _mm256_extracti128_si256::<1>(value))
}

/// Reduces one sum of at most 79 bits per lane, and two lanes per interval, to its CRC-16.
#[inline]
#[target_feature(enable = "avx2,pclmulqdq")]
pub(super) fn finish_t10dif(sums: [Vector; 4], registers: &mut [u64]) {
    for (register, sum) in registers.iter_mut().zip(sums) {
        *register = xmm::reduce_t10dif(lanes(sum));
    }
}

/// Reduces one sum of 128 bits per lane, and two lanes per interval, to its CRC-64's register.
#[inline]
#[target_feature(enable = "avx2,pclmulqdq")]
pub(super) fn finish_nvme(sums: [Vector; 4], registers: &mut [u64]) {
    for (register, sum) in registers.iter_mut().zip(sums) {
        *register = xmm::reduce_nvme(lanes(sum));
    }
}
