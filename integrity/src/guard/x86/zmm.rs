//! Vectors of 512 bits, and reductions of four sums at once (explained where [`xmm`](super::xmm) does them one by one).

use std::arch::x86_64::*;

use crate::guard::polynomial::{T10DIF, nvme_barrett, nvme_generator, t10dif_barrett, t10dif_power};

pub(super) type Vector = __m512i;
pub(super) type Line = [u8; 64];

/// 512 bytes, the smallest interval.
pub(super) type Block = [Line; 8];

/// `bytes` as blocks; a part of a block at the end is left out.
#[inline]
pub(super) fn blocks(bytes: &[u8]) -> &[Block] {
    bytes.as_chunks().0.as_chunks().0
}

/// `bytes` as blocks; a part of a block at the end is left out.
#[inline]
pub(super) fn blocks_mut(bytes: &mut [u8]) -> &mut [Block] {
    bytes.as_chunks_mut().0.as_chunks_mut().0
}

/// Loads a line, aligned or not, and stores it to `to` if it is to be copied: the only load there is of these bytes.
///
/// A copy also asks for lines that will be needed soon, on both sides. What a kernel works on at a time is long beside
/// the processor's queue of misses, and without asking, each of its stores waits there. With it, copying is up to a tenth
/// faster from the second-level cache, and a quarter when nothing is in any cache, which is as fast as memcpy and more.
/// (Stores around the caches would help only the latter, and make whoever reads the copy next wait.) For the source 2 and
/// 4 KiB ahead measured the same and 1 KiB less, for the target half a KiB was best.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn take<const COPY: bool>(from: &Line, to: Option<&mut Line>) -> Vector {
    if COPY {
        prefetch(from.as_ptr().wrapping_add(2048));
    }
    // SAFETY: the reference is to 64 readable bytes.
    let value = unsafe { _mm512_loadu_si512(from.as_ptr().cast()) };
    if COPY && let Some(to) = to {
        prefetch(to.as_ptr().wrapping_add(512));
        // SAFETY: the reference is to 64 writable bytes.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), value) };
    }
    value
}

/// Hints at a line that will be needed, at any address.
#[inline(always)]
fn prefetch(ahead: *const u8) {
    #[allow(unused_unsafe, reason = "the intrinsic became safe after the oldest Rust version supported here")]
    // SAFETY: a prefetch is a hint, which neither faults nor changes anything, whatever the address.
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
    }
}

/// Loads eight words.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn eight(words: &[u64; 8]) -> Vector {
    // SAFETY: the reference is to 64 readable bytes.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

/// Loads up to eight words, zeroes behind them.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn some<T>(words: &[T]) -> Vector {
    const { assert!(size_of::<T>() == 8, "words of 64 bits") };
    let mask = ((1u16 << words.len().min(8)) - 1) as u8;
    // SAFETY: the mask has one bit per element of the slice, at most eight, and what it leaves out is not read.
    unsafe { _mm512_maskz_loadu_epi64(mask, words.as_ptr().cast()) }
}

/// Stores eight words.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_eight(words: &mut [u64; 8], value: Vector) {
    // SAFETY: the reference is to 64 writable bytes.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), value) }
}

/// A pair of words for each lane.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn pairs(words: &[[u64; 2]; 4]) -> Vector {
    // SAFETY: the reference is to 64 readable bytes.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

/// Stores the low 16 bits of the four lanes to up to four registers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
pub(super) fn store_crc16s(registers: &mut [u64], lanes: Vector) {
    // Bytes 0 and 1 of lane j to those of word j; all others are zeroed by the mask.
    let gather = _mm512_set_epi64(0, 0, 0, 0, 0x3130, 0x2120, 0x1110, 0x0100);
    let words = _mm512_maskz_permutexvar_epi8(0x0303_0303, gather, lanes);
    store_words(registers, _mm512_castsi512_si256(words));
}

/// Stores up to four words.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
pub(super) fn store_words(registers: &mut [u64], words: __m256i) {
    let mask = (1u8 << registers.len().min(4)) - 1;
    // SAFETY: the mask has one bit per element of the slice, at most four, and what it leaves out is not written.
    unsafe { _mm256_mask_storeu_epi64(registers.as_mut_ptr().cast(), mask, words) }
}

/// The XOR of three.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn xor3(a: Vector, b: Vector, c: Vector) -> Vector {
    _mm512_ternarylogic_epi64::<0x96>(a, b, c)
}

/// The XOR of the four lanes of each of four registers, in the lane of its number.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn lanes([a, b, c, d]: [Vector; 4]) -> Vector {
    let first = _mm512_xor_si512(
        _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b),
    );
    let second = _mm512_xor_si512(
        _mm512_shuffle_i32x4::<0b10_00_10_00>(c, d),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(c, d),
    );
    _mm512_xor_si512(
        _mm512_shuffle_i32x4::<0b10_00_10_00>(first, second),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(first, second),
    )
}

/// Each lane's low word times that of the other.
#[inline]
#[target_feature(enable = "avx512f,vpclmulqdq")]
pub(super) fn low_product(a: Vector, b: Vector) -> Vector {
    _mm512_clmulepi64_epi128::<0x00>(a, b)
}

/// Each lane's high word times that of the other.
#[inline]
#[target_feature(enable = "avx512f,vpclmulqdq")]
pub(super) fn high_product(a: Vector, b: Vector) -> Vector {
    _mm512_clmulepi64_epi128::<0x11>(a, b)
}

/// One word at the very front, zeroes behind.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn first_word(word: u64) -> Vector {
    _mm512_zextsi128_si512(_mm_set_epi64x(0, word as i64))
}

/// Each lane's 79 bits modulo CRC-16/T10-DIF's generator, in its low 16 bits; the bits above are garbage.
#[inline]
#[target_feature(enable = "avx512f,vpclmulqdq")]
pub(super) fn reduce_t10dif(sums: Vector) -> Vector {
    let fold = _mm512_set1_epi64(const { t10dif_power(64) } as i64);
    let sums = _mm512_xor_si512(sums, _mm512_clmulepi64_epi128::<0x01>(sums, fold));
    let quotient =
        _mm512_clmulepi64_epi128::<0x00>(sums, _mm512_set1_epi64(const { t10dif_barrett() } as i64));
    let multiple = _mm512_clmulepi64_epi128::<0x01>(quotient, _mm512_set1_epi64((0x1_0000 | T10DIF) as i64));
    _mm512_xor_si512(sums, multiple)
}

/// Each lane's 128 bits modulo CRC-64/NVME's generator, reflected, in its high word.
#[inline]
#[target_feature(enable = "avx512f,vpclmulqdq")]
pub(super) fn reduce_nvme(sums: Vector) -> Vector {
    let quotient = _mm512_clmulepi64_epi128::<0x00>(sums, _mm512_set1_epi64(const { nvme_barrett() } as i64));
    let multiple =
        _mm512_clmulepi64_epi128::<0x00>(quotient, _mm512_set1_epi64(const { nvme_generator() } as i64));
    xor3(sums, multiple, _mm512_unpacklo_epi64(quotient, quotient))
}

/// Reduces one sum of 128 bits per lane, and four lanes per interval, to its CRC-64's register.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vpclmulqdq")]
pub(super) fn finish_nvme(sums: [Vector; 4], registers: &mut [u64]) {
    let gather = _mm512_set_epi64(0, 0, 0, 0, 7, 5, 3, 1);
    let words = _mm512_permutexvar_epi64(gather, reduce_nvme(lanes(sums)));
    store_words(registers, _mm512_castsi512_si256(words));
}
