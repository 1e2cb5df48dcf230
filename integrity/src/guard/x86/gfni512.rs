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
//! H and L end side by side in a lane, which costs shuffles if each has a register of its own. So one register takes
//! the high parts of the words of even number and the low parts of those of odd number (*straight*), another one the
//! others (*crossed*): both have a line's words in the places where the lane wants them, but for one exchange of
//! neighbours, which one instruction makes at the end. The exchanged sum is added together with the straight part of the
//! last line, so that it costs no XOR of its own: one instruction XORs three.
//!
//! # From blocks to intervals
//! Four blocks share each load of the matrices, and their four (H, L) pairs lie in the four lanes of one register.
//! Block j of an interval of k blocks counts x^(4096 (k - 1 - j)): its H and L are multiplied by that (for H times
//! x^8) modulo P, 16-bit numbers, which gives 79 bits per block; the lanes of one interval are XORed, and Barrett's
//! reduction brings four sums at once from 79 bits to 16 (see [`xmm`](super::xmm)).
//!
//! An interval of one block needs less. T = H x^8 + L is H one byte higher, and L: the swap of columns can do that too,
//! and nothing is multiplied. T has 72 bits, one byte more than the reduction's word, but what counts for the quotient
//! by P, of degree 16, are all powers from x^16 on, so the lowest byte can be left out:
//!
//! ```text
//!   T'         floor(T / x^8)                           64 bits, the lane's high word; T mod x^16 is in its low word
//!   quotient   floor(T' floor(x^72 / P) / x^64)         = floor(T' x^8 / P) = floor(T / P)
//!   result     T - quotient * P                         in the low 16 bits, which is all that is left of it
//! ```
//!
//! The quotient is exact for the reason that `polynomial.rs` gives for 64 bits: the remainder of x^72 / P has a degree
//! below 16, and so, times T' and divided by P and x^64, no power of x that is not negative.
//!
//! # What limits it
//! On Intel's processors one port multiplies by matrices of 512 bits, and one other port does all else, XORs included.
//! A block is 16 multiplications, hence 16 cycles, and the rest has just so much room beside them: 8 instructions that XOR,
//! one that exchanges, and 4 that are a quarter of what is left to do for a group of four one-block intervals. These wait
//! for each other, in which time the processor does not see far enough ahead to the next group. So they are written in
//! between the next group's instructions.
//!
//! The map from intervals to guards is linear from end to end, which is why the tests prove it by checking every
//! input of one bit.
//!
//! Sources: SBC-4, section 4.21.3.2, for the CRC; Intel's Software Developer's Manual, volume 2, for GF2P8AFFINEQB,
//! whose rows are in reverse order; V. Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ
//! Instruction" (Intel, 2009), for Barrett's reduction.

use std::arch::x86_64::*;

use super::zmm::{
    Vector, blocks, blocks_mut, eight, high_product, lanes, low_product, pairs, reduce_t10dif, store_crc16s,
    take, xor3,
};
use crate::guard::polynomial::{T10DIF, t10dif_power, t10dif_quotient};

/// Two matrices for each word of a block, in `LINES` lines of `WORDS` words. Per line first come the straight ones, for
/// the high parts in words of even number and the low parts in those of odd number, then the crossed ones.
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
            all[word / WORDS][word % 2][word % WORDS] = matrix(&power, 8);
            all[word / WORDS][1 - word % 2][word % WORDS] = matrix(&power, 0);
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
        all[block] = multipliers(127 - block);
        block += 1;
    }
    Multipliers(all)
};

/// The multipliers of H and of L of a block that `after` blocks of its interval follow.
const fn multipliers(after: usize) -> [u64; 2] {
    [t10dif_power(4096 * after + 8), t10dif_power(4096 * after)]
}

/// The multipliers of a group that is four intervals, and of one that is two.
static FOUR: [[u64; 2]; 4] = [multipliers(0); 4];
static TWO: [[u64; 2]; 4] = [multipliers(1), multipliers(0), multipliers(1), multipliers(0)];

/// The registers of all intervals, one per element of `registers`; `to` is as long as `from`, or unused.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,gfni,vpclmulqdq,pclmulqdq")]
pub(super) fn run<const COPY: bool>(interval: usize, from: &[u8], to: &mut [u8], registers: &mut [u64]) {
    match interval {
        512 => short::<COPY, 4>(from, to, registers, &FOUR),
        1024 => short::<COPY, 2>(from, to, registers, &TWO),
        _ => long::<COPY>(from, to, registers, MULTIPLIERS.0[128 - interval / 512..].as_chunks().0),
    }
}

/// Adds lines `$first` and `$first` + 1 of each block of `$from` to its straight and its crossed sum. A macro, because as
/// a function that is too long for the compiler to inline it would keep the sums in memory.
macro_rules! two_lines {
    ($copy:ident, $first:literal, $from:ident, $to:ident, $straight:ident, $crossed:ident) => {
        let [[one, one_crossed], [two, two_crossed]] = [&MATRICES.0[$first], &MATRICES.0[$first + 1]];
        let (one, one_crossed) = (eight(one), eight(one_crossed));
        let (two, two_crossed) = (eight(two), eight(two_crossed));
        for j in 0..$straight.len() {
            let a = take::<$copy>(&$from[j][$first], $to.as_mut().map(|to| &mut to[j][$first]));
            let b = take::<$copy>(&$from[j][$first + 1], $to.as_mut().map(|to| &mut to[j][$first + 1]));
            $straight[j] = xor3($straight[j], affine(a, one), affine(b, two));
            $crossed[j] = xor3($crossed[j], affine(a, one_crossed), affine(b, two_crossed));
        }
    };
}

/// Line 0 of each block of `$from`: the straight and the crossed sums start with it.
macro_rules! first_line {
    ($copy:ident, $from:ident, $to:ident, $straight:ident, $crossed:ident) => {
        let [straight, crossed] = &MATRICES.0[0];
        let (straight, crossed) = (eight(straight), eight(crossed));
        for j in 0..$straight.len() {
            let line = take::<$copy>(&$from[j][0], $to.as_mut().map(|to| &mut to[j][0]));
            ($straight[j], $crossed[j]) = (affine(line, straight), affine(line, crossed));
        }
    };
}

/// Line 7 of each block of `$from`, and with it the sums put together in `$parts`: H and L side by side in every lane, the
/// lanes still to be XORed. Nine things make the straight sum, then, which is four XORs of three.
macro_rules! last_line {
    ($copy:ident, $from:ident, $to:ident, $straight:ident, $crossed:ident, $parts:ident) => {
        let [straight, crossed] = &MATRICES.0[7];
        let (straight, crossed) = (eight(straight), eight(crossed));
        for j in 0..$straight.len() {
            let line = take::<$copy>(&$from[j][7], $to.as_mut().map(|to| &mut to[j][7]));
            let exchanged =
                _mm512_shuffle_epi32::<0b01_00_11_10>(_mm512_xor_si512($crossed[j], affine(line, crossed)));
            $parts[j] = xor3($straight[j], affine(line, straight), exchanged);
        }
    };
}

/// Intervals of one block or two, by groups of `N` = 4 or 2 of them.
///
/// What is left to do for a group is done while the next one is worked on. There is no branch in between: the compiler
/// would move all loads from behind it to before it, run out of registers, and undo what this is for.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,gfni,vpclmulqdq,pclmulqdq")]
fn short<const COPY: bool, const N: usize>(
    from: &[u8],
    to: &mut [u8],
    registers: &mut [u64],
    multipliers: &[[u64; 2]; 4],
) {
    let zero = _mm512_setzero_si512();
    let multipliers = pairs(multipliers);
    let (from, from_rest) = blocks(from).as_chunks::<4>();
    let (to, to_rest) = blocks_mut(to).as_chunks_mut::<4>();
    let (registers, registers_rest) = registers.as_chunks_mut::<N>();
    let mut to = to.iter_mut();
    let mut before = [zero; 4];
    let mut nowhere = [0; N];
    let mut before_registers = &mut nowhere;
    for (from, registers) in from.iter().zip(registers) {
        let mut to = if COPY { to.next() } else { None };
        let (mut straight, mut crossed) = ([zero; 4], [zero; 4]);
        first_line!(COPY, from, to, straight, crossed);
        two_lines!(COPY, 1, from, to, straight, crossed);
        let parts = lanes(before);
        two_lines!(COPY, 3, from, to, straight, crossed);
        let sums = sums::<N>(parts, multipliers);
        two_lines!(COPY, 5, from, to, straight, crossed);
        store_crc16s(before_registers, reduce::<N>(sums));
        last_line!(COPY, from, to, straight, crossed, before);
        before_registers = registers;
    }
    store_crc16s(before_registers, reduce::<N>(sums::<N>(lanes(before), multipliers)));
    // One to three intervals are left, or none.
    let mut rest = [zero; 4];
    let mut to = to_rest.iter_mut();
    for (rest, from) in rest.as_chunks_mut::<1>().0.iter_mut().zip(from_rest) {
        let from = std::array::from_ref(from);
        let mut to = to.next().map(std::array::from_mut);
        let (mut straight, mut crossed) = ([zero], [zero]);
        first_line!(COPY, from, to, straight, crossed);
        two_lines!(COPY, 1, from, to, straight, crossed);
        two_lines!(COPY, 3, from, to, straight, crossed);
        two_lines!(COPY, 5, from, to, straight, crossed);
        last_line!(COPY, from, to, straight, crossed, rest);
    }
    if !registers_rest.is_empty() {
        store_crc16s(registers_rest, reduce::<N>(sums::<N>(lanes(rest), multipliers)));
    }
}

/// Intervals of four blocks and more: one group after the other is a part of one, four of them make registers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,gfni,vpclmulqdq,pclmulqdq")]
fn long<const COPY: bool>(from: &[u8], to: &mut [u8], registers: &mut [u64], multipliers: &[[[u64; 2]; 4]]) {
    let zero = _mm512_setzero_si512();
    let intervals = blocks(from).as_chunks::<4>().0.chunks_exact(multipliers.len());
    let mut to = blocks_mut(to).as_chunks_mut::<4>().0.iter_mut();
    let mut registers = registers.chunks_mut(4);
    let mut before = [zero; 4];
    let mut before_multipliers = zero;
    let mut sum = zero;
    let mut sums = Queue { values: [zero; 4], filled: 0 };
    for (index, from) in intervals.enumerate() {
        for (from, next_multipliers) in from.iter().zip(multipliers) {
            let mut to = if COPY { to.next() } else { None };
            let (mut straight, mut crossed) = ([zero; 4], [zero; 4]);
            first_line!(COPY, from, to, straight, crossed);
            two_lines!(COPY, 1, from, to, straight, crossed);
            let parts = lanes(before);
            two_lines!(COPY, 3, from, to, straight, crossed);
            sum = add_product(sum, parts, before_multipliers);
            two_lines!(COPY, 5, from, to, straight, crossed);
            last_line!(COPY, from, to, straight, crossed, before);
            before_multipliers = pairs(next_multipliers);
        }
        // The interval's last group is not left for later: to wait once for so long an interval is little.
        sums.push(add_product(sum, lanes(before), before_multipliers));
        (before, sum) = ([zero; 4], zero);
        if index % 4 == 3
            && let Some(registers) = registers.next()
        {
            store_crc16s(registers, reduce_t10dif(lanes(sums.take())));
        }
    }
    if let Some(registers) = registers.next() {
        store_crc16s(registers, reduce_t10dif(lanes(sums.take())));
    }
}

/// Eight matrices, each times the eight bytes of its word.
#[inline]
#[target_feature(enable = "avx512f,gfni")]
fn affine(data: Vector, matrices: Vector) -> Vector {
    _mm512_gf2p8affine_epi64_epi8::<0>(data, matrices)
}

/// `sum` plus, in every lane, H times its multiplier and L times its own: at most 79 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,gfni,vpclmulqdq,pclmulqdq")]
fn add_product(sum: Vector, parts: Vector, multipliers: Vector) -> Vector {
    let swap = _mm512_broadcast_i32x4(_mm_set_epi8(8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
    let columns = _mm512_shuffle_epi8(parts, swap);
    xor3(sum, low_product(columns, multipliers), high_product(columns, multipliers))
}

/// What [`reduce`] takes, of each lane's H and L, whose columns are not yet in the order of their powers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,gfni,vpclmulqdq,pclmulqdq")]
fn sums<const N: usize>(parts: Vector, multipliers: Vector) -> Vector {
    if N != 4 {
        return add_product(_mm512_setzero_si512(), parts, multipliers);
    }
    // Byte k of T has column k - 1 of H and column k of L. Bytes 1 to 8 of T go to the high word, 0 and 1 to the low one.
    // A column's byte is at 7 - its number, from 8 on for L; -1 makes zero.
    let high = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, -1, -1, -1, -1, -1, -1, 7, -1);
    let low = _mm_set_epi8(-1, 8, 9, 10, 11, 12, 13, 14, -1, -1, -1, -1, -1, -1, 14, 15);
    _mm512_xor_si512(
        _mm512_shuffle_epi8(parts, _mm512_broadcast_i32x4(high)),
        _mm512_shuffle_epi8(parts, _mm512_broadcast_i32x4(low)),
    )
}

/// The CRCs of `N` intervals, of one block or two, in the low 16 bits of lanes; the bits above are garbage.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,gfni,vpclmulqdq,pclmulqdq")]
fn reduce<const N: usize>(sums: Vector) -> Vector {
    if N == 4 {
        let quotient = high_product(sums, _mm512_set1_epi64(const { t10dif_quotient(72) } as i64));
        let multiple =
            _mm512_clmulepi64_epi128::<0x01>(quotient, _mm512_set1_epi64((0x1_0000 | T10DIF) as i64));
        return _mm512_xor_si512(sums, multiple);
    }
    // Lanes 0 and 1 are an interval, to lane 0; and 2 and 3, to lane 1.
    reduce_t10dif(_mm512_xor_si512(
        _mm512_shuffle_i32x4::<0b00_00_10_00>(sums, sums),
        _mm512_shuffle_i32x4::<0b00_00_11_01>(sums, sums),
    ))
}

/// Up to four registers, first in, first out.
struct Queue {
    values: [Vector; 4],
    filled: usize,
}

impl Queue {
    /// Adds a value at the end. Moving all of them up costs nothing: they stay in registers, which are renamed.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn push(&mut self, value: Vector) {
        let [_, b, c, d] = self.values;
        self.values = [b, c, d, value];
        self.filled += 1;
    }

    /// Takes all, the first in first, zeroes after the last; and is empty again.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn take(&mut self) -> [Vector; 4] {
        while self.filled < 4 {
            self.push(_mm512_setzero_si512());
        }
        self.filled = 0;
        self.values
    }
}
