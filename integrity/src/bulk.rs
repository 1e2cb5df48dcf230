//! Tuples by the batch: loops plain enough that the compiler makes vectors of them, once for each instruction set.
//!
//! A tuple of eight bytes is one big-endian word (guard 16, application 16, reference 32 bits), one of sixteen bytes
//! is two (the guard; application 16 and reference 48 bits). So writing and comparing are a few operations on words,
//! and nothing here branches on what a tuple holds. Comparing only says whether all of a batch is as it should be; if
//! not, [`tags`](crate::tags) looks at one tuple after the other.

use crate::guard::Kernel;
use crate::profile::Guard;

/// Makes `$name(kernel, ..)` of the loop `$plain(..)`: compiled for each instruction set, chosen by the kernel.
macro_rules! for_every_kernel {
    ($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? = $plain:ident) => {
        $(#[$doc])*
        pub(crate) fn $name(kernel: Kernel, $($argument: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
                fn avx512($($argument: $type),*) $(-> $result)? {
                    $plain($($argument),*)
                }
                #[target_feature(enable = "avx2")]
                fn avx2($($argument: $type),*) $(-> $result)? {
                    $plain($($argument),*)
                }
                match kernel {
                    // SAFETY: profiles hold only kernels that the machine supports.
                    Kernel::Avx512 => return unsafe { avx512($($argument),*) },
                    Kernel::Avx2Gfni | Kernel::Avx2Vpclmulqdq | Kernel::Avx2 => {
                        // SAFETY: as above.
                        return unsafe { avx2($($argument),*) };
                    }
                    Kernel::Portable => {}
                }
            }
            let _ = kernel;
            $plain($($argument),*)
        }
    };
}

/// What every tuple of a batch must hold, as words; the guards' registers come beside it.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    /// The application tag, above the reference tag.
    pub(crate) application: u64,
    /// The first interval's reference tag; only the bits of `reference_mask` count.
    pub(crate) reference: u64,
    /// Which bits of an interval's index are added to it: all, or none. (A product with 1 or 0 would say the same, but
    /// multiplying words takes longer than all the rest.)
    pub(crate) step: u64,
    /// The bits that a reference tag has.
    pub(crate) reference_mask: u64,
    /// The bits of application and reference tag that are compared.
    pub(crate) mask: u64,
    /// The bits that are all ones in a tuple that may be an escape, and so needs a closer look.
    pub(crate) escape: u64,
}

impl Wanted {
    /// The same from interval `first` on.
    pub(crate) fn from(&self, first: usize) -> Wanted {
        let reference = self.reference.wrapping_add(first as u64 & self.step);
        Wanted { reference, ..*self }
    }

    #[inline(always)]
    fn tags(&self, index: usize) -> u64 {
        self.application | (self.reference.wrapping_add(index as u64 & self.step) & self.reference_mask)
    }

    /// Not zero if the tags differ, or may be those of an escape.
    #[inline(always)]
    fn wrong(&self, index: usize, tags: u64) -> u64 {
        let escape = u64::from(tags & self.escape == self.escape);
        ((tags ^ self.tags(index)) & self.mask) | escape
    }
}

for_every_kernel! {
    /// Whether all tuples of eight bytes hold what they should, and none may be an escape.
    fn agree8(guard: Guard, metadata: &[u8], size: usize, offset: usize, registers: &[u64], wanted: &Wanted) -> bool = plain_agree8
}

#[inline(always)]
fn plain_agree8(
    guard: Guard,
    metadata: &[u8],
    size: usize,
    offset: usize,
    registers: &[u64],
    wanted: &Wanted,
) -> bool {
    // Decided once, not for each tuple, which the compiler would not see.
    match guard {
        Guard::Ip => agree8_by(|sum| number(Guard::Ip, sum), metadata, size, offset, registers, wanted),
        _ => agree8_by(|crc| crc, metadata, size, offset, registers, wanted),
    }
}

#[inline(always)]
fn agree8_by(
    number: impl Fn(u64) -> u64,
    metadata: &[u8],
    size: usize,
    offset: usize,
    registers: &[u64],
    wanted: &Wanted,
) -> bool {
    let wrong = |wrong, (index, (tuple, &register)): (usize, (&[u8; 8], &u64))| {
        let tuple = u64::from_be_bytes(*tuple);
        wrong | ((tuple >> 48) ^ number(register)) | wanted.wrong(index, tuple & 0xFFFF_FFFF_FFFF)
    };
    let wrong = if size == 8 {
        metadata.as_chunks().0.iter().zip(registers).enumerate().fold(0, wrong)
    } else {
        let tuples = metadata.chunks_exact(size).map(|metadata| tuple(metadata, offset));
        tuples.zip(registers).enumerate().fold(0, wrong)
    };
    wrong == 0
}

for_every_kernel! {
    /// Whether all tuples of sixteen bytes hold what they should, and none may be an escape.
    fn agree16(metadata: &[u8], size: usize, offset: usize, registers: &[u64], wanted: &Wanted) -> bool = plain_agree16
}

#[inline(always)]
fn plain_agree16(metadata: &[u8], size: usize, offset: usize, registers: &[u64], wanted: &Wanted) -> bool {
    let number = |register| number(Guard::Crc64Nvme, register);
    let wrong = |wrong, (index, (tuple, &register)): (usize, (&[u8; 16], &u64))| {
        let [tuple_guard, tags] = halves(tuple);
        wrong | (tuple_guard ^ number(register)) | wanted.wrong(index, tags)
    };
    if size != 16 {
        let tuples = metadata.chunks_exact(size).map(|metadata| tuple(metadata, offset));
        return tuples.zip(registers).enumerate().fold(0, wrong) == 0;
    }
    // Eight words at a time, guards and tags by turns: one vector, or two or four.
    let (fours, rest) = metadata.as_chunks::<64>();
    let (register_fours, register_rest) = registers.as_chunks::<4>();
    let mut all = [0; 8];
    for (index, (four, registers)) in fours.iter().zip(register_fours).enumerate() {
        let words = four.as_chunks::<8>().0;
        for i in 0..4 {
            all[2 * i] |= u64::from_be_bytes(words[2 * i]) ^ number(registers[i]);
            all[2 * i + 1] |= wanted.wrong(4 * index + i, u64::from_be_bytes(words[2 * i + 1]));
        }
    }
    let done = 4 * register_fours.len();
    let rest = rest.as_chunks().0.iter().zip(register_rest).enumerate().map(|(i, pair)| (done + i, pair));
    rest.fold(all.into_iter().fold(0, |all, word| all | word), wrong) == 0
}

/// Makes of a register the guard's number, which a tuple carries big-endian.
#[inline(always)]
pub(crate) fn number(guard: Guard, register: u64) -> u64 {
    match guard {
        Guard::None | Guard::Crc16T10Dif => register,
        // The sum does not depend on the byte order but for the order of its own two bytes (RFC 1071, 2(B)).
        Guard::Ip => {
            let sum = !register & 0xFFFF;
            sum >> 8 | (sum & 0xFF) << 8
        }
        Guard::Crc64Nvme => !register,
    }
}

for_every_kernel! {
    /// Writes tuples of eight bytes.
    fn write8(guard: Guard, metadata: &mut [u8], size: usize, offset: usize, registers: &[u64], tags: &Wanted) = plain_write8
}

#[inline(always)]
fn plain_write8(
    guard: Guard,
    metadata: &mut [u8],
    size: usize,
    offset: usize,
    registers: &[u64],
    tags: &Wanted,
) {
    // Decided once, as above.
    match guard {
        Guard::Ip => write8_by(|sum| number(Guard::Ip, sum), metadata, size, offset, registers, tags),
        _ => write8_by(|crc| crc, metadata, size, offset, registers, tags),
    }
}

#[inline(always)]
fn write8_by(
    number: impl Fn(u64) -> u64,
    metadata: &mut [u8],
    size: usize,
    offset: usize,
    registers: &[u64],
    tags: &Wanted,
) {
    let write = |(index, (tuple, &register)): (usize, (&mut [u8; 8], &u64))| {
        *tuple = (number(register) << 48 | tags.tags(index)).to_be_bytes();
    };
    if size == 8 {
        metadata.as_chunks_mut().0.iter_mut().zip(registers).enumerate().for_each(write);
    } else {
        let tuples = metadata.chunks_exact_mut(size).map(|metadata| tuple_mut(metadata, offset));
        tuples.zip(registers).enumerate().for_each(write);
    }
}

for_every_kernel! {
    /// Writes tuples of sixteen bytes.
    fn write16(metadata: &mut [u8], size: usize, offset: usize, registers: &[u64], tags: &Wanted) = plain_write16
}

#[inline(always)]
fn plain_write16(metadata: &mut [u8], size: usize, offset: usize, registers: &[u64], tags: &Wanted) {
    let write = |(index, (tuple, &register)): (usize, (&mut [u8; 16], &u64))| {
        let (first, second) = tuple.split_at_mut(8);
        first.copy_from_slice(&number(Guard::Crc64Nvme, register).to_be_bytes());
        second.copy_from_slice(&tags.tags(index).to_be_bytes());
    };
    if size == 16 {
        metadata.as_chunks_mut().0.iter_mut().zip(registers).enumerate().for_each(write);
    } else {
        let tuples = metadata.chunks_exact_mut(size).map(|metadata| tuple_mut(metadata, offset));
        tuples.zip(registers).enumerate().for_each(write);
    }
}

for_every_kernel! {
    /// Remaps the reference tags of tuples of eight bytes that lie one after the other.
    fn remap8(tuples: &mut [u8], from: u64, to: u64) = plain_remap8
}

#[inline(always)]
fn plain_remap8(tuples: &mut [u8], from: u64, to: u64) {
    let (mut from, mut to) = (from as u32, to as u32);
    for tuple in tuples.as_chunks_mut::<8>().0 {
        let old = u64::from_be_bytes(*tuple);
        let new = if old as u32 == from { (old & !0xFFFF_FFFF) | u64::from(to) } else { old };
        *tuple = new.to_be_bytes();
        (from, to) = (from.wrapping_add(1), to.wrapping_add(1));
    }
}

for_every_kernel! {
    /// Remaps the reference tags of tuples of sixteen bytes that lie one after the other.
    fn remap16(tuples: &mut [u8], from: u64, to: u64) = plain_remap16
}

#[inline(always)]
fn plain_remap16(tuples: &mut [u8], from: u64, to: u64) {
    const MASK: u64 = 0xFFFF_FFFF_FFFF;
    let (mut from, mut to) = (from, to);
    for tuple in tuples.as_chunks_mut::<16>().0 {
        let [_, old] = halves(tuple);
        let new = if (old ^ from) & MASK == 0 { (old & !MASK) | (to & MASK) } else { old };
        tuple[8..].copy_from_slice(&new.to_be_bytes());
        (from, to) = (from.wrapping_add(1), to.wrapping_add(1));
    }
}

/// The two words of a tuple of sixteen bytes.
#[inline(always)]
fn halves(tuple: &[u8; 16]) -> [u64; 2] {
    let both = u128::from_be_bytes(*tuple);
    [(both >> 64) as u64, both as u64]
}

/// The tuple that starts at `offset`; profiles are made so that it ends within the metadata.
#[inline(always)]
fn tuple<const SIZE: usize>(metadata: &[u8], offset: usize) -> &[u8; SIZE] {
    metadata[offset..].first_chunk().expect("the tuple lies within the metadata")
}

/// As [`tuple()`], to be written.
#[inline(always)]
fn tuple_mut<const SIZE: usize>(metadata: &mut [u8], offset: usize) -> &mut [u8; SIZE] {
    metadata[offset..].first_chunk_mut().expect("the tuple lies within the metadata")
}
