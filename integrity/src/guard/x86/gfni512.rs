//! CRC-16/T10-DIF by bit matrices: AVX-512 and GFNI.
//!
//! # A CRC as a matrix
//! The CRC-16 of a message is linear over GF(2): the CRC of the XOR of two messages is the XOR of their CRCs. So each
//! byte of an interval contributes on its own, by a matrix of 16 x 8 bits that depends on nothing but its place. The
//! instruction GF2P8AFFINEQB multiplies 64 bytes by matrices of 8 x 8 bits, one matrix per eight bytes; two of them, one
//! for the high and one for the low byte of the contribution, do all that carry-less multiplication would do, without
//! its byte swaps.
//!
//! # One block of 512 bytes
//! Write the block as 64 words of eight bytes. Byte r of word q stands 8 (7 - r) + 64 (63 - q) powers of x before the
//! end, and the CRC multiplies by x^16 more. The matrices of word q hold x^(64 (63 - q) + 16 + k) mod P for the bits
//! k of a byte; what is left, x^(8 (7 - r)), is the same for all words:
//!
//! ```text
//!   data      line 0 ... line 7                      8 lines of 8 words of 8 bytes
//!   affine    high and low part of every byte        2 instructions per line
//!   XOR       over all 64 words                      8 columns of high parts (H), 8 of low parts (L)
//!   swap      column r to power x^(8 (7 - r))        H and L are polynomials of 64 bits
//!   result    H x^8 + L                              72 bits, equal to block * x^16 modulo P
//! ```
//!
//! # From blocks to intervals
//! Four blocks share each load of the matrices, and their four (H, L) pairs lie in the four lanes of one register.
//! Block j of an interval of k blocks counts x^(4096 (k - 1 - j)): its H and L are multiplied by that (for H times
//! x^8) modulo P, 16-bit numbers, which gives 79 bits per block; the lanes of one interval are XORed, and Barrett's
//! reduction brings four sums at once from 79 bits to 16 (see [`xmm`](super::xmm)).
//!
//! On Intel's processors one port multiplies by matrices, two instructions per line, and the XORs share it with the port
//! that shuffles: two cycles per line are the limit, and what is above that is the reduction.
//!
//! The map from intervals to guards is linear from end to end, which is why the tests prove it by checking every
//! input of one bit.

use std::arch::x86_64::*;

use super::zmm::{Block, blocks, blocks_mut, eight, lanes, pairs, reduce_t10dif, store_crc16s, take, xor3};
use crate::guard::polynomial::t10dif_power;

/// Two matrices for each word of a block, in `LINES` lines of `WORDS` words: per line those for the high parts, then
/// those for the low parts.
#[repr(C, align(64))]
pub(super) struct Matrices<const WORDS: usize, const LINES: usize>(pub(super) [[[u64; WORDS]; 2]; LINES]);

static MATRICES: Matrices<8, 8> = Matrices::new();

impl<const WORDS: usize, const LINES: usize> Matrices<WORDS, LINES> {
    pub(super) const fn new() -> Matrices<WORDS, LINES> {
        let mut all = [[[0; WORDS]; 2]; LINES];
        let mut word = 0;
        while word < 64 {
            let mut power = [0; 8];
            let mut bit = 0;
            while bit < 8 {
                power[bit] = t10dif_power(64 * (63 - word) + 16 + bit);
                bit += 1;
            }
            all[word / WORDS][0][word % WORDS] = matrix(&power, 8);
            all[word / WORDS][1][word % WORDS] = matrix(&power, 0);
            word += 1;
        }
        Matrices(all)
    }
}

/// The matrix that takes bit k of a byte to the eight bits of `power[k]` from `shift` on.
///
/// GF2P8AFFINEQB makes bit i of a result the parity of the source byte AND byte 7 - i of the matrix.
const fn matrix(power: &[u64; 8], shift: usize) -> u64 {
    let mut rows = 0;
    let mut row = 0;
    while row < 8 {
        let mut bit = 0;
        while bit < 8 {
            rows |= (power[bit] >> (shift + row) & 1) << (8 * (7 - row) + bit);
            bit += 1;
        }
        row += 1;
    }
    rows
}

/// For each block of the longest interval, from its first on: the multipliers of H and of L. Shorter intervals use the
/// end of it.
#[repr(C, align(64))]
pub(super) struct Multipliers(pub(super) [[u64; 2]; 128]);

pub(super) static MULTIPLIERS: Multipliers = {
    let mut all = [[0; 2]; 128];
    let mut block = 0;
    while block < 128 {
        let power = 4096 * (127 - block);
        all[block] = [t10dif_power(power + 8), t10dif_power(power)];
        block += 1;
    }
    Multipliers(all)
};

/// The registers of all intervals, one per element of `registers`; `to` is as long as `from`, or unused.
///
/// All shapes go through one loop over groups of four blocks, so that the compiler has one place to inline the work
/// on a group into; what differs between them, a few instructions per group, is chosen by a branch that always goes
/// the same way.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,gfni,vpclmulqdq,pclmulqdq")]
pub(super) fn run<const COPY: bool>(interval: usize, from: &[u8], to: &mut [u8], registers: &mut [u64]) {
    let each = interval / 512;
    let multipliers: &[[[u64; 2]; 4]] = match each {
        1 => &[[MULTIPLIERS.0[127]; 4]],
        2 => &[[MULTIPLIERS.0[126], MULTIPLIERS.0[127], MULTIPLIERS.0[126], MULTIPLIERS.0[127]]],
        _ => MULTIPLIERS.0[128 - each..].as_chunks().0,
    };
    let (from, from_rest) = blocks(from).as_chunks::<4>();
    let (to, to_rest) = blocks_mut(to).as_chunks_mut::<4>();
    let mut to = to.iter_mut();
    let mut registers = registers.chunks_mut(if each == 2 { 2 } else { 4 });
    let mut next = multipliers.iter();
    let mut sum = _mm512_setzero_si512();
    let mut sums = Queue::new();
    for from in from {
        let columns = columns::<COPY, 4>(from, to.next());
        if each <= 2 {
            let product = multiply(columns, pairs(&multipliers[0]));
            if let Some(registers) = registers.next() {
                store_crc16s(registers, reduce_t10dif(if each == 2 { halves(product) } else { product }));
            }
            continue;
        }
        if let Some(multipliers) = next.next() {
            sum = _mm512_xor_si512(sum, multiply(columns, pairs(multipliers)));
        }
        if next.len() == 0 {
            sums.push(sum);
            sum = _mm512_setzero_si512();
            next = multipliers.iter();
            if sums.full()
                && let Some(registers) = registers.next()
            {
                store_crc16s(registers, reduce_t10dif(lanes(sums.take())));
            }
        }
    }
    // One to three short intervals are left, or as many sums of long ones.
    let mut to = to_rest.iter_mut();
    for from in from_rest {
        sums.push(columns::<COPY, 1>(std::array::from_ref(from), to.next().map(std::array::from_mut)));
    }
    if let Some(registers) = registers.next() {
        let mut sums = lanes(sums.take());
        if each <= 2 {
            sums = multiply(sums, pairs(&multipliers[0]));
        }
        store_crc16s(registers, reduce_t10dif(if each == 2 { halves(sums) } else { sums }));
    }
}

/// Up to four registers, first in, first out.
struct Queue {
    values: [__m512i; 4],
    filled: usize,
}

impl Queue {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new() -> Queue {
        Queue { values: [_mm512_setzero_si512(); 4], filled: 0 }
    }

    /// Adds a value at the end. Moving all of them up costs nothing: they stay in registers, which are renamed.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn push(&mut self, value: __m512i) {
        let [_, b, c, d] = self.values;
        self.values = [b, c, d, value];
        self.filled += 1;
    }

    #[inline]
    fn full(&self) -> bool {
        self.filled == 4
    }

    /// Takes all, the first in first, zeroes after the last; and is empty again.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn take(&mut self) -> [__m512i; 4] {
        while !self.full() {
            self.push(_mm512_setzero_si512());
        }
        self.filled = 0;
        self.values
    }
}

/// The columns of up to four blocks: H and L of block j, in order of their powers, in lane j.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,gfni,vpclmulqdq,pclmulqdq")]
fn columns<const COPY: bool, const M: usize>(from: &[Block; M], mut to: Option<&mut [Block; M]>) -> __m512i {
    let zero = _mm512_setzero_si512();
    let (mut high, mut low) = ([zero; M], [zero; M]);
    for pair in 0..4 {
        let [even, odd] = [2 * pair, 2 * pair + 1];
        let [even_high, even_low] = &MATRICES.0[even];
        let [odd_high, odd_low] = &MATRICES.0[odd];
        let (even_high, even_low) = (eight(even_high), eight(even_low));
        let (odd_high, odd_low) = (eight(odd_high), eight(odd_low));
        for j in 0..M {
            let a = take::<COPY>(&from[j][even], to.as_mut().map(|to| &mut to[j][even]));
            let b = take::<COPY>(&from[j][odd], to.as_mut().map(|to| &mut to[j][odd]));
            high[j] = xor3(
                high[j],
                _mm512_gf2p8affine_epi64_epi8::<0>(a, even_high),
                _mm512_gf2p8affine_epi64_epi8::<0>(b, odd_high),
            );
            low[j] = xor3(
                low[j],
                _mm512_gf2p8affine_epi64_epi8::<0>(a, even_low),
                _mm512_gf2p8affine_epi64_epi8::<0>(b, odd_low),
            );
        }
    }
    let mut sums = [zero; 4];
    for j in 0..M {
        // Words of H and L side by side in every lane, the four lanes still to be XORed.
        sums[j] =
            _mm512_xor_si512(_mm512_unpacklo_epi64(high[j], low[j]), _mm512_unpackhi_epi64(high[j], low[j]));
    }
    let swap = _mm512_broadcast_i32x4(_mm_set_epi8(8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
    _mm512_shuffle_epi8(lanes(sums), swap)
}

/// H times its multiplier plus L times its own, in every lane: at most 79 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,gfni,vpclmulqdq,pclmulqdq")]
fn multiply(columns: __m512i, multipliers: __m512i) -> __m512i {
    _mm512_xor_si512(
        _mm512_clmulepi64_epi128::<0x00>(columns, multipliers),
        _mm512_clmulepi64_epi128::<0x11>(columns, multipliers),
    )
}

/// The XOR of lanes 0 and 1 in lane 0, and that of lanes 2 and 3 in lane 1.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,gfni,vpclmulqdq,pclmulqdq")]
fn halves(sums: __m512i) -> __m512i {
    _mm512_xor_si512(
        _mm512_shuffle_i32x4::<0b00_00_10_00>(sums, sums),
        _mm512_shuffle_i32x4::<0b00_00_11_01>(sums, sums),
    )
}
