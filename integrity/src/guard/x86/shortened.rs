//! CRC-16/T10-DIF by carry-less multiplication of three quarters of the data: every processor with AVX2.
//!
//! Where vectors of 128 bits are multiplied, the multiplications are what takes the time: two per vector, one per cycle.
//! So blocks are made shorter first, by XORs, of which a processor does three per cycle. A byte may be taken away from
//! the front of a message if it is added further behind so that the remainder stays the same, and for this generator P
//! three bytes do:
//!
//! ```text
//!   x^(8 * 252) = x^(8 * 108) + x^(8 * 28) + 1   modulo P
//! ```
//!
//! so that a byte counts the same 252, 252 - 28 = 224 and 252 - 108 = 144 bytes behind its place, added together. (That
//! is a sparse multiple of P, found by trying all of them up to 512 bytes; fewer terms cannot be, since x + 1 divides P
//! and so every multiple has an even number of them.) The first 128 bytes of a block of 512 go that way: even the
//! nearest place is behind them, and the farthest is still in the block.
//!
//! ```text
//!   bytes      0 ..... 128 ...................... 512
//!   block      [front] [ rest                       ]
//!   + 144              . [front]                          9 vectors behind
//!   + 224              .      [front]                    14 vectors behind
//!   + 252              .        [front]                  16 vectors behind, but for 4 bytes
//!                      [ sum                        ]    three states of 128 bytes; carryless.rs says what follows
//! ```
//!
//! Source for the idea: S. Russell, "Chorba: A novel CRC32 implementation" (2024), which does the same to CRC-32.

use std::arch::x86_64::*;
use std::hint::black_box;

use super::carryless::{t10dif_powers, t10dif_step};
use super::xmm::{Line, Vector, high_product, low_product, pairs, reduce_t10dif, reverse, take, xor3};

/// 512 bytes.
type Block = [Line; 32];

static POWERS: [[[u64; 2]; 1]; 8] = t10dif_powers();

/// Moves a lane by a state, and by two: the second one where the front of a block has been taken away.
static STEP: [[u64; 2]; 1] = [t10dif_step(8 * 128)];
static TWO_STEPS: [[u64; 2]; 1] = [t10dif_step(8 * 256)];

/// The registers of all intervals, one per element of `registers`; `to` is as long as `from`, or unused.
#[target_feature(enable = "avx2,pclmulqdq")]
pub(super) fn run<const COPY: bool>(interval: usize, from: &[u8], to: &mut [u8], registers: &mut [u64]) {
    let from: &[Block] = from.as_chunks().0.as_chunks().0;
    let to: &mut [Block] = to.as_chunks_mut().0.as_chunks_mut().0;
    let mut to = to.iter_mut();
    // Hidden from the compiler, as in carryless.rs.
    let (step, two_steps) = (black_box(&STEP), black_box(&TWO_STEPS));
    let powers = black_box(&POWERS);
    for (from, register) in from.chunks_exact(interval / 512).zip(registers) {
        let mut state = [_mm_setzero_si128(); 8];
        for (index, from) in from.iter().enumerate() {
            let to = if COPY { to.next() } else { None };
            state = block::<COPY>(index == 0, state, from, to, pairs(step), pairs(two_steps));
        }
        let mut sum = _mm_setzero_si128();
        for i in 0..8 {
            sum = add_product(sum, state[i], pairs(&powers[i]));
        }
        *register = reduce_t10dif(sum);
    }
}

/// The state after a block; the `first` one's state before it is empty.
#[inline]
#[target_feature(enable = "avx2,pclmulqdq")]
fn block<const COPY: bool>(
    first: bool,
    mut state: [Vector; 8],
    from: &Block,
    mut to: Option<&mut Block>,
    step: Vector,
    two_steps: Vector,
) -> [Vector; 8] {
    let mut front = [_mm_setzero_si128(); 8];
    for i in 0..8 {
        front[i] = take::<COPY>(&from[i], to.as_mut().map(|to| &mut to[i]));
    }
    // A line behind the front, with what is to be added to it, in order.
    macro_rules! line {
        ($index:expr) => {{
            let index = $index;
            let mut line = take::<COPY>(&from[index], to.as_mut().map(|to| &mut to[index]));
            if (9..9 + 8).contains(&index) {
                line = _mm_xor_si128(line, front[index - 9]);
            }
            if (14..14 + 8).contains(&index) {
                line = _mm_xor_si128(line, front[index - 14]);
            }
            match index {
                15 => line = _mm_xor_si128(line, _mm_slli_si128::<12>(front[0])),
                16..=22 => {
                    let both = _mm_alignr_epi8::<4>(front[index - 15], front[index - 16]);
                    line = _mm_xor_si128(line, both);
                }
                23 => line = _mm_xor_si128(line, _mm_srli_si128::<4>(front[7])),
                _ => {}
            }
            reverse(line)
        }};
    }
    for (i, state) in state.iter_mut().enumerate() {
        let line = line!(8 + i);
        *state = if first { line } else { add_product(line, *state, two_steps) };
    }
    for (i, state) in state.iter_mut().enumerate() {
        *state = add_product(line!(16 + i), *state, step);
    }
    for (i, state) in state.iter_mut().enumerate() {
        *state = add_product(line!(24 + i), *state, step);
    }
    state
}

/// `sum` plus each of the two words times its power.
#[inline]
#[target_feature(enable = "avx2,pclmulqdq")]
fn add_product(sum: Vector, words: Vector, powers: Vector) -> Vector {
    xor3(sum, low_product(words, powers), high_product(words, powers))
}
