//! CRCs by carry-less multiplication: CRC-64/NVME, and CRC-16/T10-DIF where there is no GFNI.
//!
//! # A CRC as a sum of products
//! Cut an interval into words `w[0] .. w[n-1]` of 64 bits. As a polynomial it is the sum of `w[i] x^(64 (n-1-i))`, and its
//! CRC the remainder of that times x^width. Replace each power of x by its remainder modulo P, which fits a word: what
//! comes out is the same modulo P, and is one sum of carry-less products
//!
//! ```text
//!   sum over i of w[i] * (x^(64 (n-1-i) + width) mod P)          at most 128 bits
//! ```
//!
//! in which nothing waits for anything. One Barrett reduction per interval makes the remainder of it.
//!
//! # Longer intervals
//! The table of powers would be as long as the interval. So eight vectors, the *state*, hold at first the first eight
//! vectors of data; then, until the interval ends, each becomes itself times x^(bits of a state), plus new data:
//! eight chains that do not wait for each other either. What is left is a state that is the whole interval modulo P,
//! and its words are the `w[i]` above. With vectors of 512 bits a state is 512 bytes, so a short interval needs no chain.
//!
//! ```text
//!   data      state 0        state 1     ..        last state
//!                |              |                      |
//!   state     v[0..8] -> v * x^D + data -> .. -> v * x^D + data      D: bits of a state
//!   sum       sum over the words of v[i] * power                      lanes of 128 bits
//!   reduce    XOR of the lanes, Barrett                               four intervals together
//! ```
//!
//! # Bit orders
//! CRC-16/T10-DIF takes each byte's highest bit first, so that a lane is a polynomial once its bytes are reversed; its
//! first word is then the high one. CRC-64/NVME is reflected: a lane is what it is in memory, its first word is the low
//! one, and a product gains one x, for which the powers have one less (see `polynomial.rs`). Its register starts as all
//! ones, which is the same as inverting the first word of the data.
//!
//! Source: V. Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction" (Intel, 2009),
//! of which this is the case that does everything side by side.

use crate::guard::polynomial::{nvme_power, t10dif_power};

/// The powers by which CRC-16's `LANES` x 8 lanes of a state count; the low word of a lane is its second.
pub(super) const fn t10dif_powers<const LANES: usize>() -> [[[u64; 2]; LANES]; 8] {
    let mut powers = [[[0; 2]; LANES]; 8];
    let mut lane = 0;
    while lane < 8 * LANES {
        let after = 128 * (8 * LANES - 1 - lane);
        powers[lane / LANES][lane % LANES] = [t10dif_power(after + 16), t10dif_power(after + 64 + 16)];
        lane += 1;
    }
    powers
}

/// The powers by which CRC-64's `LANES` x 8 lanes of a state count; the low word of a lane is its first.
pub(super) const fn nvme_powers<const LANES: usize>() -> [[[u64; 2]; LANES]; 8] {
    let mut powers = [[[0; 2]; LANES]; 8];
    let mut lane = 0;
    while lane < 8 * LANES {
        let after = 128 * (8 * LANES - 1 - lane);
        powers[lane / LANES][lane % LANES] = [nvme_power(after + 64 + 64 - 1), nvme_power(after + 64 - 1)];
        lane += 1;
    }
    powers
}

/// Multipliers that move a lane by the `bits` of a state.
pub(super) const fn t10dif_step(bits: usize) -> [u64; 2] {
    [t10dif_power(bits), t10dif_power(bits + 64)]
}

/// Multipliers that move a lane by the `bits` of a state.
const fn nvme_step(bits: usize) -> [u64; 2] {
    [nvme_power(bits + 64 - 1), nvme_power(bits - 1)]
}

/// Makes the kernel of one CRC and one vector width, for the processors that have the features: the register starts
/// at `$start`, lines are brought in order by `$reverse` if at all, sums brought to registers by `$finish`.
macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident: $vector:ident, $lanes:literal, $features:literal,
     $powers:ident, $step:ident, $start:expr, [$($reverse:ident)?], $finish:ident) => {
        $(#[$doc])*
        pub(super) mod $name {
            use std::hint::black_box;

            use super::super::$vector::{self as vector, Line, Vector};

            /// Bytes of a state.
            const STATE: usize = 8 * size_of::<Line>();

            static POWERS: [[[u64; 2]; $lanes]; 8] = super::$powers();
            static STEP: [[u64; 2]; $lanes] = [super::$step(8 * STATE); $lanes];

            /// The registers of all intervals, one per element of `registers`; `to` is as long as `from`, or unused.
            #[target_feature(enable = $features)]
            pub(in super::super) fn run<const COPY: bool>(
                interval: usize,
                from: &[u8],
                to: &mut [u8],
                registers: &mut [u64],
            ) {
                let from: &[[Line; 8]] = from.as_chunks().0.as_chunks().0;
                let to: &mut [[Line; 8]] = to.as_chunks_mut().0.as_chunks_mut().0;
                let mut to = to.iter_mut();
                // Hidden from the compiler, which would make each word of them anew, at the cost of an instruction on the
                // one execution port that multiplies.
                let (powers, step) = (black_box(&POWERS), black_box(&STEP));
                let zero = vector::first_word(0);
                let states = interval / STATE;
                let (mut from, mut registers) = (from, registers);
                if states == 1 {
                    // As below with the length known: four intervals are one piece of code, without a branch.
                    let (fours, rest) = from.as_chunks::<4>();
                    let (registers_fours, registers_rest) = registers.as_chunks_mut::<4>();
                    for (from, registers) in fours.iter().zip(registers_fours) {
                        let mut sums = [zero; 4];
                        for j in 0..4 {
                            sums[j] = total::<COPY>(std::slice::from_ref(&from[j]), &mut to, powers, step);
                        }
                        vector::$finish(sums, registers);
                    }
                    (from, registers) = (rest, registers_rest);
                }
                let mut from = from.chunks_exact(states);
                for registers in registers.chunks_mut(4) {
                    let mut sums = [zero; 4];
                    for (sum, from) in sums.iter_mut().zip(from.by_ref().take(registers.len())) {
                        *sum = total::<COPY>(from, &mut to, powers, step);
                    }
                    vector::$finish(sums, registers);
                }
            }

            /// One interval's sum of products, a part of it in every lane.
            #[inline]
            #[target_feature(enable = $features)]
            fn total<const COPY: bool>(
                from: &[[Line; 8]],
                to: &mut std::slice::IterMut<'_, [Line; 8]>,
                powers: &[[[u64; 2]; $lanes]; 8],
                step: &[[u64; 2]; $lanes],
            ) -> Vector {
                let step = vector::pairs(step);
                let zero = vector::first_word(0);
                let mut state = [zero; 8];
                for (index, from) in from.iter().enumerate() {
                    let mut to = if COPY { to.next() } else { None };
                    for i in 0..8 {
                        let data = vector::take::<COPY>(&from[i], to.as_mut().map(|to| &mut to[i]));
                        $(let data = vector::$reverse(data);)?
                        state[i] = if index > 0 {
                            add_product(data, state[i], step)
                        } else if i > 0 {
                            data
                        } else {
                            vector::xor3(data, vector::first_word($start), zero)
                        };
                    }
                }
                let mut sum = zero;
                for i in 0..8 {
                    sum = add_product(sum, state[i], vector::pairs(&powers[i]));
                }
                sum
            }

            /// `sum` plus each lane's two words times the lane's two powers.
            #[inline]
            #[target_feature(enable = $features)]
            fn add_product(sum: Vector, words: Vector, powers: Vector) -> Vector {
                vector::xor3(sum, vector::low_product(words, powers), vector::high_product(words, powers))
            }
        }
    };
}

kernel! {
    /// CRC-16/T10-DIF, two lanes: AVX2 and VPCLMULQDQ.
    t10dif_ymm: ymm, 2, "avx2,pclmulqdq,vpclmulqdq", t10dif_powers, t10dif_step, 0, [reverse], finish_t10dif
}

kernel! {
    /// CRC-64/NVME, one lane: every processor with AVX2.
    nvme_xmm: xmm, 1, "avx2,pclmulqdq", nvme_powers, nvme_step, u64::MAX, [], finish_nvme
}

kernel! {
    /// CRC-64/NVME, two lanes: AVX2 and VPCLMULQDQ.
    nvme_ymm: ymm, 2, "avx2,pclmulqdq,vpclmulqdq", nvme_powers, nvme_step, u64::MAX, [], finish_nvme
}

kernel! {
    /// CRC-64/NVME, four lanes: AVX-512 and VPCLMULQDQ.
    nvme_zmm: zmm, 4, "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,pclmulqdq,vpclmulqdq", nvme_powers, nvme_step,
    u64::MAX, [], finish_nvme
}
