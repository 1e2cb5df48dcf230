//! CRC-16/T10-DIF by bit matrices: AVX2 and GFNI, for processors that have no AVX-512.
//!
//! The mathematics is that of [`gfni512`](super::gfni512), in vectors of half the length: a block of 512 bytes is
//! sixteen of them, two blocks share each load of the matrices, and each interval is reduced on its own.

use std::arch::x86_64::*;

use super::gfni512::{MULTIPLIERS, Matrices};
use super::xmm::{high_product, low_product, pair, reduce_t10dif, xor3 as xmm_xor3};
use super::ymm::{Line, four, lanes, take, xor3};

/// 512 bytes.
type Block = [Line; 16];

static MATRICES: Matrices<4, 16> = Matrices::new();

/// The registers of all intervals, one per element of `registers`; `to` is as long as `from`, or unused.
#[target_feature(enable = "avx2,gfni,pclmulqdq")]
pub(super) fn run<const COPY: bool>(interval: usize, from: &[u8], to: &mut [u8], registers: &mut [u64]) {
    let from: &[Block] = from.as_chunks().0.as_chunks().0;
    let to: &mut [Block] = to.as_chunks_mut().0.as_chunks_mut().0;
    let each = interval / 512;
    let multipliers = &MULTIPLIERS.0[128 - each..];
    let (from, from_rest) = from.as_chunks::<2>();
    let (to, to_rest) = to.as_chunks_mut::<2>();
    let mut to = to.iter_mut();
    let mut registers = registers.iter_mut();
    let mut sum = _mm_setzero_si128();
    let mut block = 0;
    for from in from {
        for columns in columns::<COPY, 2>(from, to.next()) {
            sum = add_product(sum, columns, multipliers[block]);
            block += 1;
            if block == each
                && let Some(register) = registers.next()
            {
                *register = reduce_t10dif(sum);
                (sum, block) = (_mm_setzero_si128(), 0);
            }
        }
    }
    // An odd number of blocks leaves one, which is an interval of its own: all longer ones have an even number.
    if let ([from], Some(register)) = (from_rest, registers.next()) {
        let to = to_rest.first_mut().map(std::array::from_mut);
        let [columns] = columns::<COPY, 1>(std::array::from_ref(from), to);
        *register = reduce_t10dif(add_product(sum, columns, multipliers[0]));
    }
}

/// The columns of one or two blocks: H and L of each, in order of their powers.
#[inline]
#[target_feature(enable = "avx2,gfni,pclmulqdq")]
fn columns<const COPY: bool, const M: usize>(
    from: &[Block; M],
    mut to: Option<&mut [Block; M]>,
) -> [__m128i; M] {
    let zero = _mm256_setzero_si256();
    let (mut straight, mut crossed) = ([zero; M], [zero; M]);
    for [even, odd] in [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11], [12, 13], [14, 15]] {
        let [even_straight, even_crossed] = &MATRICES.0[even];
        let [odd_straight, odd_crossed] = &MATRICES.0[odd];
        let (even_straight, even_crossed) = (four(even_straight), four(even_crossed));
        let (odd_straight, odd_crossed) = (four(odd_straight), four(odd_crossed));
        for j in 0..M {
            let a = take::<COPY>(&from[j][even], to.as_mut().map(|to| &mut to[j][even]));
            let b = take::<COPY>(&from[j][odd], to.as_mut().map(|to| &mut to[j][odd]));
            straight[j] = xor3(
                straight[j],
                _mm256_gf2p8affine_epi64_epi8::<0>(a, even_straight),
                _mm256_gf2p8affine_epi64_epi8::<0>(b, odd_straight),
            );
            crossed[j] = xor3(
                crossed[j],
                _mm256_gf2p8affine_epi64_epi8::<0>(a, even_crossed),
                _mm256_gf2p8affine_epi64_epi8::<0>(b, odd_crossed),
            );
        }
    }
    let swap = _mm_set_epi8(8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    std::array::from_fn(|j| {
        let both = _mm256_xor_si256(straight[j], _mm256_shuffle_epi32::<0b01_00_11_10>(crossed[j]));
        _mm_shuffle_epi8(lanes(both), swap)
    })
}

/// `sum` plus H times its multiplier and L times its own.
#[inline]
#[target_feature(enable = "avx2,gfni,pclmulqdq")]
fn add_product(sum: __m128i, columns: __m128i, multipliers: [u64; 2]) -> __m128i {
    let multipliers = pair(multipliers);
    xmm_xor3(sum, low_product(columns, multipliers), high_product(columns, multipliers))
}
