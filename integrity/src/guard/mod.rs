//! The guard kernels: what computes the checksums of whole intervals, chosen once for the machine.
//!
//! A kernel turns intervals into *registers*, which the metadata before the tuple may still extend, and which
//! [`number`](crate::bulk::number) turns into guards:
//!
//! | guard | register |
//! |---|---|
//! | CRC-16 | the CRC so far |
//! | CRC-64 | the shift register, not yet inverted |
//! | IP | the ones-complement sum of little-endian words, folded to 16 bits, not yet inverted |

#[cfg(target_arch = "x86_64")]
mod polynomial;
mod portable;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use crate::bulk::Wanted;
use crate::profile::Guard;

/// The environment variable that forces a kernel by name, for tests and benches.
const FORCE: &str = "INTEGRITY_KERNEL";

/// An implementation of the guards for one set of processor features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kernel {
    /// x86-64 with AVX-512 (F, BW, VL, DQ, VBMI, VNNI), GFNI and VPCLMULQDQ: Ice Lake, Zen 4 and later.
    Avx512,
    /// x86-64 with AVX2, GFNI and VPCLMULQDQ: Alder Lake and later without AVX-512.
    Avx2Gfni,
    /// x86-64 with AVX2 and VPCLMULQDQ: Zen 3.
    Avx2Vpclmulqdq,
    /// x86-64 with AVX2 and PCLMULQDQ: Haswell, Zen and later.
    Avx2,
    /// What every machine can run: the crc-fast crate for the CRCs (which has vector code of its own for x86-64 and
    /// aarch64) and a plain loop for the IP checksum.
    Portable,
}

impl Kernel {
    /// All kernels there are, the best first, whether this machine has them or not.
    pub const ALL: [Kernel; 5] =
        [Kernel::Avx512, Kernel::Avx2Gfni, Kernel::Avx2Vpclmulqdq, Kernel::Avx2, Kernel::Portable];

    /// The kernels this machine can run, the best first.
    pub fn available() -> &'static [Kernel] {
        static AVAILABLE: OnceLock<Vec<Kernel>> = OnceLock::new();
        AVAILABLE.get_or_init(|| Kernel::ALL.into_iter().filter(|kernel| kernel.is_supported()).collect())
    }

    /// The kernel that new profiles use: the best available one, or the one that the environment variable
    /// `INTEGRITY_KERNEL` names. Chosen at the first call.
    ///
    /// # Panics
    /// If the variable names a kernel that does not exist or that this machine lacks: a test that asked for one
    /// must not run another.
    pub fn selected() -> Kernel {
        static SELECTED: OnceLock<Kernel> = OnceLock::new();
        *SELECTED.get_or_init(|| match std::env::var(FORCE) {
            Ok(name) => match name.parse::<Kernel>() {
                Ok(kernel) if kernel.is_supported() => kernel,
                _ => panic!("{FORCE}={name}: this machine has {:?}", Kernel::available()),
            },
            Err(_) => Kernel::available()[0],
        })
    }

    /// The kernel's name.
    pub const fn name(self) -> &'static str {
        match self {
            Kernel::Avx512 => "avx512",
            Kernel::Avx2Gfni => "avx2-gfni",
            Kernel::Avx2Vpclmulqdq => "avx2-vpclmulqdq",
            Kernel::Avx2 => "avx2",
            Kernel::Portable => "portable",
        }
    }

    /// Whether processor and operating system have what the kernel needs.
    fn is_supported(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return x86::supports(self);
        #[cfg(not(target_arch = "x86_64"))]
        return self == Kernel::Portable;
    }

    /// Computes the registers of the intervals of `data`, one per element of `registers`.
    ///
    /// # Panics
    /// If `data` is not `registers.len()` intervals long.
    pub(crate) fn scan(self, guard: Guard, interval: usize, data: &[u8], registers: &mut [u64]) {
        assert_eq!(data.len(), registers.len() * interval, "one register per interval");
        if self.vectors::<false>(guard, interval, data, &mut [], registers).is_none() {
            portable::scan(guard, interval, data, registers);
        }
    }

    /// [`scan`](Kernel::scan), and copies `data` to `copy`, loading each byte of `data` once.
    ///
    /// # Panics
    /// If `data` and `copy` are not both `registers.len()` intervals long.
    pub(crate) fn copy(
        self,
        guard: Guard,
        interval: usize,
        data: &[u8],
        copy: &mut [u8],
        registers: &mut [u64],
    ) {
        assert_eq!(data.len(), registers.len() * interval, "one register per interval");
        assert_eq!(data.len(), copy.len(), "a copy is as long as its source");
        if self.vectors::<true>(guard, interval, data, copy, registers).is_none() {
            for ((data, copy), register) in
                data.chunks_exact(interval).zip(copy.chunks_exact_mut(interval)).zip(registers)
            {
                // The copy, not the source, is checked: the source is loaded once, and the copy is in the cache.
                copy.copy_from_slice(data);
                portable::scan(guard, interval, copy, std::slice::from_mut(register));
            }
        }
    }

    /// Extends the registers by the first `length` bytes of each interval's metadata, which is `size` bytes.
    pub(crate) fn extend(
        self,
        guard: Guard,
        registers: &mut [u64],
        metadata: &[u8],
        size: usize,
        length: usize,
    ) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the machine supports the kernel, as in `vectors`.
        if unsafe { x86::extend(self, guard, registers, metadata, size, length) }.is_some() {
            return;
        }
        for (register, metadata) in registers.iter_mut().zip(metadata.chunks_exact(size)) {
            *register = extend(guard, *register, &metadata[..length]);
        }
    }

    /// Whether a batch's tuples, `size` bytes apart and one per register, hold what they should, and none may be an
    /// escape; or `None` if the kernel has no code of its own for that.
    pub(crate) fn agree(
        self,
        guard: Guard,
        metadata: &[u8],
        size: usize,
        registers: &[u64],
        wanted: &Wanted,
    ) -> Option<bool> {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the machine supports the kernel, as in `vectors`.
        return unsafe { x86::agree(self, guard, metadata, size, registers, wanted) };
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = (guard, metadata, size, registers, wanted);
            None
        }
    }

    /// Runs the vector kernel, or returns `None` if there is none.
    fn vectors<const COPY: bool>(
        self,
        guard: Guard,
        interval: usize,
        data: &[u8],
        copy: &mut [u8],
        registers: &mut [u64],
    ) -> Option<()> {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the machine supports the kernel: only a profile calls this, and it has its kernel from `selected`, or from
        // `with_kernel`, which looks it up among those that `available` detected.
        return unsafe { x86::run::<COPY>(self, guard, interval, data, copy, registers) };
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = (guard, interval, data, copy, registers);
            None
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// No kernel has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no guard kernel is named {0:?}")]
pub struct UnknownKernel(String);

impl FromStr for Kernel {
    type Err = UnknownKernel;

    fn from_str(name: &str) -> Result<Kernel, UnknownKernel> {
        Kernel::ALL
            .into_iter()
            .find(|kernel| kernel.name() == name)
            .ok_or_else(|| UnknownKernel(name.to_owned()))
    }
}

/// The register before the first byte.
pub(crate) fn start(guard: Guard) -> u64 {
    match guard {
        Guard::None | Guard::Crc16T10Dif | Guard::Ip => 0,
        Guard::Crc64Nvme => u64::MAX,
    }
}

/// The register after `bytes`. For the IP checksum an even number of bytes must have gone before.
pub(crate) fn extend(guard: Guard, register: u64, bytes: &[u8]) -> u64 {
    portable::extend(guard, register, bytes)
}

/// A register that grows by pieces of any length, for the intervals that no kernel sees in one piece.
pub(crate) struct Stream {
    guard: Guard,
    register: u64,
    odd: bool,
}

impl Stream {
    pub(crate) fn new(guard: Guard) -> Stream {
        Stream { guard, register: start(guard), odd: false }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        if self.guard == Guard::Ip && self.odd {
            // A piece that starts at an odd byte adds its sum with the two bytes exchanged (RFC 1071, 2(B)).
            let piece = (extend(Guard::Ip, 0, bytes) as u16).swap_bytes();
            self.register = portable::fold(self.register + u64::from(piece));
        } else {
            self.register = extend(self.guard, self.register, bytes);
        }
        self.odd ^= bytes.len() % 2 == 1;
    }

    pub(crate) fn register(&self) -> u64 {
        self.register
    }
}
