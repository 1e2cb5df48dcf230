//! Vectors of 128 bits, and the reductions that bring a CRC's sum of products to its final width.

use std::arch::x86_64::*;

use crate::guard::polynomial::{T10DIF, nvme_barrett, nvme_generator, t10dif_barrett, t10dif_power};

pub(super) type Vector = __m128i;
pub(super) type Line = [u8; 16];

/// Loads a line, aligned or not, and stores it to `to` if it is to be copied: the only load there is of these bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn take<const COPY: bool>(from: &Line, to: Option<&mut Line>) -> Vector {
    // SAFETY: the reference is to 16 readable bytes.
    let value = unsafe { _mm_loadu_si128(from.as_ptr().cast()) };
    if COPY && let Some(to) = to {
        // SAFETY: the reference is to 16 writable bytes.
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), value) };
    }
    value
}

/// A pair of words, the first one low.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn pair([low, high]: [u64; 2]) -> Vector {
    _mm_set_epi64x(high as i64, low as i64)
}

/// A pair of words for each lane.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn pairs(words: &[[u64; 2]; 1]) -> Vector {
    // SAFETY: the reference is to 16 readable bytes.
    unsafe { _mm_loadu_si128(words.as_ptr().cast()) }
}

/// The XOR of three.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn xor3(a: Vector, b: Vector, c: Vector) -> Vector {
    _mm_xor_si128(_mm_xor_si128(a, b), c)
}

/// Each lane's low word times that of the other.
#[inline]
#[target_feature(enable = "avx2,pclmulqdq")]
pub(super) fn low_product(a: Vector, b: Vector) -> Vector {
    _mm_clmulepi64_si128::<0x00>(a, b)
}

/// Each lane's high word times that of the other.
#[inline]
#[target_feature(enable = "avx2,pclmulqdq")]
pub(super) fn high_product(a: Vector, b: Vector) -> Vector {
    _mm_clmulepi64_si128::<0x11>(a, b)
}

/// The sixteen bytes of each lane in reverse order.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn reverse(value: Vector) -> Vector {
    _mm_shuffle_epi8(value, _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15))
}

/// One word at the very front, zeroes behind.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn first_word(word: u64) -> Vector {
    _mm_set_epi64x(0, word as i64)
}

/// Reduces one sum of 128 bits per interval to its CRC-64's register.
#[inline]
#[target_feature(enable = "avx2,pclmulqdq")]
pub(super) fn finish_nvme(sums: [Vector; 4], registers: &mut [u64]) {
    for (register, sum) in registers.iter_mut().zip(sums) {
        *register = reduce_nvme(sum);
    }
}

/// 79 bits modulo CRC-16/T10-DIF's generator.
#[inline]
#[target_feature(enable = "avx2,pclmulqdq")]
pub(super) fn reduce_t10dif(sum: __m128i) -> u64 {
    // 79 bits to 64: the high word counts x^64.
    let fold = _mm_set1_epi64x(const { t10dif_power(64) } as i64);
    let sum = _mm_xor_si128(sum, _mm_clmulepi64_si128::<0x01>(sum, fold));
    // Barrett: the quotient is the high word of the product, and what it times P leaves is the remainder.
    let quotient = _mm_clmulepi64_si128::<0x00>(sum, _mm_set1_epi64x(const { t10dif_barrett() } as i64));
    let multiple = _mm_clmulepi64_si128::<0x01>(quotient, _mm_set1_epi64x((0x1_0000 | T10DIF) as i64));
    _mm_cvtsi128_si64(_mm_xor_si128(sum, multiple)) as u64 & 0xFFFF
}

/// 128 bits modulo CRC-64/NVME's generator, reflected.
#[inline]
#[target_feature(enable = "avx2,pclmulqdq")]
pub(super) fn reduce_nvme(sum: __m128i) -> u64 {
    // Barrett, reflected: the high powers are in the low word. The quotient is the low word of the first product; the
    // generator lacks its constant term, which adds the quotient itself to the result.
    let quotient = _mm_clmulepi64_si128::<0x00>(sum, _mm_set1_epi64x(const { nvme_barrett() } as i64));
    let multiple = _mm_clmulepi64_si128::<0x00>(quotient, _mm_set1_epi64x(const { nvme_generator() } as i64));
    let rest = _mm_extract_epi64::<1>(_mm_xor_si128(sum, multiple)) as u64;
    rest ^ _mm_cvtsi128_si64(quotient) as u64
}
