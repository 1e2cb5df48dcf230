//! The kernels of x86-64, and which of them the processor has.
//!
//! | kernel | needs | CRC-16 | CRC-64 | IP |
//! |---|---|---|---|---|
//! | avx512 | AVX-512 F, BW, VL, DQ, VBMI, VNNI; GFNI; VPCLMULQDQ | [`gfni512`] | [`carryless`], zmm | [`sum`], zmm |
//! | avx2-gfni | AVX2, GFNI, VPCLMULQDQ | [`gfni256`] | [`carryless`], ymm | [`sum`], ymm |
//! | avx2-vpclmulqdq | AVX2, VPCLMULQDQ | [`carryless`], ymm | [`carryless`], ymm | [`sum`], ymm |
//! | avx2 | AVX2, PCLMULQDQ | [`shortened`], xmm | [`carryless`], xmm | [`sum`], ymm |
//!
//! Tuples are compared by [`compare`] on avx512, and else by the plain loops of `bulk.rs`, compiled for the features.
//!
//! The vectors themselves are in [`xmm`], [`ymm`] and [`zmm`]: the same few operations under the same names. What is
//! unsafe there is loading and storing; what is unsafe here is calling what needs features, which is why nobody gets a
//! kernel that has not been detected.

mod carryless;
mod compare;
mod extend;
mod gfni256;
mod gfni512;
mod shortened;
mod sum;
mod xmm;
mod ymm;
mod zmm;

use std::arch::is_x86_feature_detected as has;

use super::{Guard, Kernel};
use crate::bulk::Wanted;

/// Whether processor and operating system have what the kernel needs.
pub(super) fn supports(kernel: Kernel) -> bool {
    let avx2 = has!("avx2") && has!("pclmulqdq");
    match kernel {
        Kernel::Avx512 => {
            avx2 && has!("avx512f")
                && has!("avx512bw")
                && has!("avx512vl")
                && has!("avx512dq")
                && has!("avx512vbmi")
                && has!("avx512vnni")
                && has!("gfni")
                && has!("vpclmulqdq")
        }
        Kernel::Avx2Gfni => avx2 && has!("gfni") && has!("vpclmulqdq"),
        Kernel::Avx2Vpclmulqdq => avx2 && has!("vpclmulqdq"),
        Kernel::Avx2 => avx2,
        Kernel::Portable => true,
    }
}

/// The registers of all intervals, one per element of `registers`; with COPY, `to` becomes a copy of `from`.
///
/// Returns `None` where there is no kernel of this kind.
///
/// # Safety
/// The machine must support the kernel.
pub(super) unsafe fn run<const COPY: bool>(
    kernel: Kernel,
    guard: Guard,
    interval: usize,
    from: &[u8],
    to: &mut [u8],
    registers: &mut [u64],
) -> Option<()> {
    use Guard::{Crc16T10Dif, Crc64Nvme, Ip};
    let run: unsafe fn(usize, &[u8], &mut [u8], &mut [u64]) = match (kernel, guard) {
        (Kernel::Portable, _) | (_, Guard::None) => return None,
        (Kernel::Avx512, Crc16T10Dif) => gfni512::run::<COPY>,
        (Kernel::Avx512, Crc64Nvme) => carryless::nvme_zmm::run::<COPY>,
        (Kernel::Avx512, Ip) => sum::run512::<COPY>,
        (Kernel::Avx2Gfni, Crc16T10Dif) => gfni256::run::<COPY>,
        (Kernel::Avx2Vpclmulqdq, Crc16T10Dif) => carryless::t10dif_ymm::run::<COPY>,
        (Kernel::Avx2Gfni | Kernel::Avx2Vpclmulqdq, Crc64Nvme) => carryless::nvme_ymm::run::<COPY>,
        (Kernel::Avx2, Crc16T10Dif) => shortened::run::<COPY>,
        (Kernel::Avx2, Crc64Nvme) => carryless::nvme_xmm::run::<COPY>,
        (Kernel::Avx2Gfni | Kernel::Avx2Vpclmulqdq | Kernel::Avx2, Ip) => sum::run256::<COPY>,
    };
    // SAFETY: the table above and `supports` agree on the features, and the caller answers for the kernel.
    unsafe { run(interval, from, to, registers) };
    Some(())
}

/// The registers after the first `length` bytes of each interval's metadata, which is `size` bytes.
///
/// Returns `None` where there is no kernel of this kind.
///
/// # Safety
/// The machine must support the kernel.
pub(super) unsafe fn extend(
    kernel: Kernel,
    guard: Guard,
    registers: &mut [u64],
    metadata: &[u8],
    size: usize,
    length: usize,
) -> Option<()> {
    let run: unsafe fn(&mut [u64], &[u8], usize, usize) = match (kernel, guard) {
        (Kernel::Portable, _) | (_, Guard::None | Guard::Ip) => return None,
        (_, Guard::Crc16T10Dif) => extend::run::<false>,
        (_, Guard::Crc64Nvme) => extend::run::<true>,
    };
    // SAFETY: all kernels but the portable one need the features, and the caller answers for the kernel.
    unsafe { run(registers, metadata, size, length) };
    Some(())
}

/// Whether the tuples of a batch, one per register and `size` bytes apart, hold what they should, and none may be an
/// escape.
///
/// Returns `None` where there is no kernel of this kind, or not for such metadata.
///
/// # Safety
/// The machine must support the kernel.
pub(super) unsafe fn agree(
    kernel: Kernel,
    guard: Guard,
    metadata: &[u8],
    size: usize,
    registers: &[u64],
    wanted: &Wanted,
) -> Option<bool> {
    let agree: unsafe fn(&[u8], &[u64], &Wanted) -> bool = match (kernel, guard, size) {
        (Kernel::Avx512, Guard::Crc16T10Dif, 8) => compare::eight_bytes::<false>,
        (Kernel::Avx512, Guard::Ip, 8) => compare::eight_bytes::<true>,
        (Kernel::Avx512, Guard::Crc64Nvme, 16) => compare::sixteen_bytes,
        _ => return None,
    };
    // SAFETY: the table above and `supports` agree on the features, and the caller answers for the kernel.
    Some(unsafe { agree(metadata, registers, wanted) })
}
