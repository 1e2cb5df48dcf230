//! A batch's tuples compared, a vector of them at a time: AVX-512, for metadata that is nothing but tuples.
//!
//! What tuples must be is made in their place and byte order. So a vector of them takes seven or eight instructions, and
//! none of them is looked at on its own:
//!
//! ```text
//!   tags       application | (reference + index) & its bits     as numbers, with what the guard is made of
//!   swap       the bytes of each word                           as tuples have them
//!   wrong      wrong | (tuple ^ that) & the bits that count
//!   largest    the largest word that was in each place          application tag 0xFFFF: it may be an escape
//! ```
//!
//! The IP sum needs no swap: what a tuple holds is its complement, low byte first (RFC 1071, 2(B)). The complement is
//! made where all tuples have the same, in the tags.

use std::arch::x86_64::*;

use super::zmm::{Vector, some, xor3};
use crate::bulk::Wanted;

/// Whether all tuples of eight bytes, one per register, hold what they should, and none may be an escape.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn eight_bytes<const IP: bool>(metadata: &[u8], registers: &[u64], wanted: &Wanted) -> bool {
    let every = |word: u64| _mm512_set1_epi64(word as i64);
    let constant = every(wanted.application | if IP { 0xFFFF << 48 } else { 0 });
    let reference_mask = every(wanted.reference_mask);
    let mask = every((wanted.mask | 0xFFFF << 48).swap_bytes());
    let step = every(8 & wanted.step);
    let index = _mm512_and_si512(_mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0), every(wanted.step));
    let mut references = _mm512_add_epi64(every(wanted.reference), index);
    let mut seen = Seen::nothing();
    let mut add = |tuples: Vector, registers: Vector, mask: Vector| {
        let tags = _mm512_ternarylogic_epi64::<AND_OR>(references, reference_mask, constant);
        references = _mm512_add_epi64(references, step);
        let difference = if IP {
            xor3(tuples, swap(tags), registers)
        } else {
            _mm512_xor_si512(tuples, swap(_mm512_or_si512(tags, _mm512_slli_epi64::<48>(registers))))
        };
        seen.add(tuples, difference, mask);
    };
    let (tuples, tuples_rest) = metadata.as_chunks::<8>().0.as_chunks::<8>();
    let (registers, registers_rest) = registers.as_chunks::<8>();
    for (tuples, registers) in tuples.iter().zip(registers) {
        add(some(tuples), some(registers), mask);
    }
    add(some(tuples_rest), some(registers_rest), _mm512_maskz_mov_epi64(front(registers_rest.len()), mask));
    // The application tag is the second word of four.
    seen.agree(0x2222_2222)
}

/// Whether all tuples of sixteen bytes, one per register, hold what they should, and none may be an escape.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn sixteen_bytes(metadata: &[u8], registers: &[u64], wanted: &Wanted) -> bool {
    // Guards are the words of even number, tags those of odd number.
    let tags_only = |word: u64| _mm512_maskz_set1_epi64(0b1010_1010, word as i64);
    let guards = _mm512_maskz_set1_epi64(0b0101_0101, -1);
    let application = tags_only(wanted.application);
    let reference_mask = tags_only(wanted.reference_mask);
    let mask = _mm512_or_si512(guards, tags_only(wanted.mask.swap_bytes()));
    let step = tags_only(4 & wanted.step);
    let index = _mm512_and_si512(_mm512_set_epi64(3, 3, 2, 2, 1, 1, 0, 0), tags_only(wanted.step));
    let mut references = _mm512_add_epi64(tags_only(wanted.reference), index);
    let twice = _mm512_set_epi64(3, 3, 2, 2, 1, 1, 0, 0);
    let mut seen = Seen::nothing();
    let mut add = |tuples: Vector, registers: Vector, mask: Vector| {
        let tags = _mm512_ternarylogic_epi64::<AND_OR>(references, reference_mask, application);
        references = _mm512_add_epi64(references, step);
        let registers = _mm512_permutexvar_epi64(twice, registers);
        let words = _mm512_ternarylogic_epi64::<NOT_AND_OR>(registers, guards, tags);
        seen.add(tuples, _mm512_xor_si512(tuples, swap(words)), mask);
    };
    let (tuples, tuples_rest) = metadata.as_chunks::<8>().0.as_chunks::<8>();
    let (registers, registers_rest) = registers.as_chunks::<4>();
    for (tuples, registers) in tuples.iter().zip(registers) {
        add(some(tuples), some(registers), mask);
    }
    add(
        some(tuples_rest),
        some(registers_rest),
        _mm512_maskz_mov_epi64(front(2 * registers_rest.len()), mask),
    );
    // The application tag is the fifth word of eight.
    seen.agree(0x1010_1010)
}

/// `a & b | c`, as the operand of VPTERNLOGQ: its bit number `4 a + 2 b + c` is the result.
const AND_OR: i32 = 0b1110_1010;

/// `!a & b | c`.
const NOT_AND_OR: i32 = 0b1010_1110;

/// `a | b & c`.
const OR_AND: i32 = 0b1111_1000;

/// What was seen of all tuples so far.
struct Seen {
    wrong: Vector,
    largest: Vector,
}

impl Seen {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn nothing() -> Seen {
        Seen { wrong: _mm512_setzero_si512(), largest: _mm512_setzero_si512() }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn add(&mut self, tuples: Vector, difference: Vector, mask: Vector) {
        self.wrong = _mm512_ternarylogic_epi64::<OR_AND>(self.wrong, difference, mask);
        self.largest = _mm512_max_epu16(self.largest, tuples);
    }

    /// Whether nothing was wrong, and none of `applications`, of 32 words, was that of an escape.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn agree(&self, applications: u32) -> bool {
        let escapes = _mm512_mask_cmpeq_epu16_mask(applications, self.largest, _mm512_set1_epi16(-1));
        _mm512_test_epi64_mask(self.wrong, self.wrong) == 0 && escapes == 0
    }
}

/// The first `count` of eight words.
#[inline]
fn front(count: usize) -> __mmask8 {
    (1 << count) - 1
}

/// The bytes of each word in reverse order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn swap(words: Vector) -> Vector {
    let order = _mm_set_epi8(8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    _mm512_shuffle_epi8(words, _mm512_broadcast_i32x4(order))
}
