//! Arithmetic on polynomials over GF(2), at compile time: the constants of the CRC kernels.
//!
//! A CRC reads a message as one long polynomial whose coefficients are its bits, the first bit being the highest
//! power, and is the remainder of that polynomial times x^width, divided by the generator P. Remainders add (XOR)
//! and multiply like numbers modulo P, so a message may be taken apart: each part counts as itself times a power of
//! x that says how far from the end it stood. The kernels are sums of such products; this file computes the powers.
//!
//! Two ways to write a polynomial as an integer are in use. CRC-16/T10-DIF puts the power x^k at bit k. CRC-64/NVME
//! is *reflected*: x^k is at bit 63-k, because each byte of the message counts its lowest bit first. Carry-less
//! multiplication does not mind, but for one thing: two 64-bit reflected numbers have a 127-bit product with x^126 at
//! bit 0, so that read as a 128-bit reflected number (x^127 at bit 0) it is the product times x. The constants make
//! up for it by one power of x less.
//!
//! Sources: SBC-4 section 4.21.3.2 and NVM command set specification 1.0 section 5.2.1.3.2 for the generators;
//! V. Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction" (Intel, 2009) for
//! folding and Barrett reduction.
#![forbid(unsafe_code)]

/// CRC-16/T10-DIF's generator without its highest power: x^16 + x^15 + x^11 + x^9 + x^8 + x^7 + x^5 + x^4 + x^2 +
/// x + 1.
pub(super) const T10DIF: u64 = 0x8BB7;

/// CRC-64/NVME's generator without its highest power, reflected.
pub(super) const NVME: u64 = 0x9A6C_9329_AC4B_C9B5;

/// x^n modulo CRC-16/T10-DIF's generator.
pub(super) const fn t10dif_power(n: usize) -> u64 {
    let mut result = 1;
    let mut factor = 2;
    let mut n = n;
    while n > 0 {
        if n & 1 == 1 {
            result = t10dif_product(result, factor);
        }
        factor = t10dif_product(factor, factor);
        n >>= 1;
    }
    result
}

/// The product of two remainders, by Horner's rule.
const fn t10dif_product(a: u64, b: u64) -> u64 {
    let mut product = 0;
    let mut bit = 16;
    while bit > 0 {
        bit -= 1;
        product <<= 1;
        if product & 0x1_0000 != 0 {
            product ^= 0x1_0000 | T10DIF;
        }
        if a >> bit & 1 == 1 {
            product ^= b;
        }
    }
    product
}

/// floor(x^64 / P) for CRC-16/T10-DIF: the multiplier of Barrett's reduction of 64 bits.
///
/// For b of up to 64 bits, floor(b / P) is exactly floor(b * this / x^64): what the constant leaves out, b times the
/// remainder of x^64 / P, divided by P and by x^64, has no power of x that is not negative.
pub(super) const fn t10dif_barrett() -> u64 {
    t10dif_quotient(64)
}

/// floor(x^n / P) for CRC-16/T10-DIF, n from 16 to 79.
pub(super) const fn t10dif_quotient(n: usize) -> u64 {
    let generator = (0x1_0000 | T10DIF) as u128;
    let mut rest = 1u128 << n;
    let mut quotient = 0;
    let mut power = n;
    while power >= 16 {
        if rest >> power & 1 == 1 {
            quotient |= 1 << (power - 16);
            rest ^= generator << (power - 16);
        }
        power -= 1;
    }
    quotient
}

/// x^n modulo CRC-64/NVME's generator, reflected.
pub(super) const fn nvme_power(n: usize) -> u64 {
    const ONE: u64 = 1 << 63;
    let mut result = ONE;
    let mut factor = ONE >> 1;
    let mut n = n;
    while n > 0 {
        if n & 1 == 1 {
            result = nvme_product(result, factor);
        }
        factor = nvme_product(factor, factor);
        n >>= 1;
    }
    result
}

/// The product of two remainders, by Horner's rule, reflected.
const fn nvme_product(a: u64, b: u64) -> u64 {
    let mut product = 0u64;
    let mut bit = 0;
    while bit < 64 {
        // Times x: x^63, at bit 0, becomes x^64, which is the rest of P.
        product = product >> 1 ^ if product & 1 == 1 { NVME } else { 0 };
        if a >> bit & 1 == 1 {
            product ^= b;
        }
        bit += 1;
    }
    product
}

/// floor(x^127 / P) for CRC-64/NVME, reflected: the multiplier of Barrett's reduction of 128 bits.
///
/// That is floor(x^128 / P), which has 65 bits, without its constant term. The x that a reflected product gains makes
/// it the 65-bit number again; the missing term would only add to powers that the reduction drops.
pub(super) const fn nvme_barrett() -> u64 {
    let generator = (1u128 << 64) | NVME.reverse_bits() as u128;
    let mut rest = 1u128 << 127;
    let mut quotient = 0u64;
    let mut power = 127;
    while power >= 64 {
        if rest >> power & 1 == 1 {
            quotient |= 1 << (power - 64);
            rest ^= generator << (power - 64);
        }
        power -= 1;
    }
    quotient.reverse_bits()
}

/// (P - 1) / x for CRC-64/NVME, reflected: P without its constant term, for the x that a reflected product gains.
pub(super) const fn nvme_generator() -> u64 {
    NVME << 1 | 1
}
