//! The ioctls of gntdev, gntalloc and evtchn: numbers and structures, as in Linux's include/uapi/xen.
//!
//! All of them are `_IOC_NONE` with the structure's size, whichever way data goes. A structure that ends in an
//! array is declared there with one element, and its number with that size.

use std::ffi::c_void;
use std::os::fd::AsFd;

use rustix::ioctl::{Direction, Ioctl, IoctlOutput, Opcode, ioctl, opcode};

/// The number of the ioctl `number` of the device `group`, for a structure of `size` bytes.
const fn number(group: u8, number: u8, size: usize) -> Opcode {
    opcode::from_components(Direction::None, group, number, size)
}

/// A structure that is the argument of one ioctl.
///
/// # Safety
/// `OPCODE` is an ioctl that reads and writes nothing but a structure of this layout, and what that points to.
pub(super) unsafe trait Argument {
    /// The ioctl.
    const OPCODE: Opcode;
}

/// Most references of one [`MapGrantRef`]: four times the largest ring.
pub(super) const MAX_REFS: usize = 64;

/// One grant of another domain.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct ForeignRef {
    pub(super) domid: u32,
    pub(super) gref: u32,
}

/// IOCTL_GNTDEV_MAP_GRANT_REF: gives the offset at which `mmap` maps `count` grants.
#[repr(C)]
pub(super) struct MapGrantRef {
    pub(super) count: u32,
    pub(super) pad: u32,
    pub(super) index: u64,
    pub(super) refs: [ForeignRef; MAX_REFS],
}

// SAFETY: gntdev.h; the kernel reads `count` of `refs`, which the caller keeps within the array.
unsafe impl Argument for MapGrantRef {
    const OPCODE: Opcode = number(b'G', 0, size_of::<Self>() - (MAX_REFS - 1) * size_of::<ForeignRef>());
}

/// IOCTL_GNTDEV_UNMAP_GRANT_REF.
#[repr(C)]
pub(super) struct UnmapGrantRef {
    pub(super) index: u64,
    pub(super) count: u32,
    pub(super) pad: u32,
}

// SAFETY: gntdev.h.
unsafe impl Argument for UnmapGrantRef {
    const OPCODE: Opcode = number(b'G', 1, size_of::<Self>());
}

/// One side of a copy that is another domain's.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Foreign {
    pub(super) gref: u32,
    pub(super) offset: u16,
    pub(super) domid: u16,
}

/// One side of a copy.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) union Side {
    pub(super) local: *mut c_void,
    pub(super) foreign: Foreign,
}

/// The source is a grant (GNTCOPY_source_gref).
pub(super) const SOURCE_GREF: u16 = 1;
/// The destination is a grant (GNTCOPY_dest_gref).
pub(super) const DEST_GREF: u16 = 2;

/// One copy of an IOCTL_GNTDEV_GRANT_COPY.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct CopySegment {
    pub(super) source: Side,
    pub(super) dest: Side,
    pub(super) len: u16,
    pub(super) flags: u16,
    pub(super) status: i16,
}

/// IOCTL_GNTDEV_GRANT_COPY.
#[repr(C)]
pub(super) struct GrantCopy {
    pub(super) count: u32,
    pub(super) segments: *mut CopySegment,
}

// SAFETY: gntdev.h; the kernel reads and writes `count` of `segments` and the local sides they name, which the
// caller vouches for.
unsafe impl Argument for GrantCopy {
    const OPCODE: Opcode = number(b'G', 8, size_of::<Self>());
}

/// Most pages of one [`AllocGref`].
pub(super) const MAX_PAGES: usize = 512;

/// The other domain may write (GNTALLOC_FLAG_WRITABLE).
pub(super) const WRITABLE: u16 = 1;

/// IOCTL_GNTALLOC_ALLOC_GREF: new pages, granted; gives the offset at which `mmap` maps them.
#[repr(C)]
pub(super) struct AllocGref {
    pub(super) domid: u16,
    pub(super) flags: u16,
    pub(super) count: u32,
    pub(super) index: u64,
    pub(super) gref_ids: [u32; MAX_PAGES],
}

// SAFETY: gntalloc.h; the kernel writes `count` of `gref_ids`, which the caller keeps within the array. Declared
// there with one of them, which alignment fills up to eight bytes.
unsafe impl Argument for AllocGref {
    const OPCODE: Opcode = number(b'G', 5, 24);
}

/// IOCTL_GNTALLOC_DEALLOC_GREF.
#[repr(C)]
pub(super) struct DeallocGref {
    pub(super) index: u64,
    pub(super) count: u32,
}

// SAFETY: gntalloc.h.
unsafe impl Argument for DeallocGref {
    const OPCODE: Opcode = number(b'G', 6, size_of::<Self>());
}

/// IOCTL_EVTCHN_BIND_INTERDOMAIN: returns the local port.
#[repr(C)]
pub(super) struct BindInterdomain {
    pub(super) remote_domain: u32,
    pub(super) remote_port: u32,
}

// SAFETY: evtchn.h.
unsafe impl Argument for BindInterdomain {
    const OPCODE: Opcode = number(b'E', 1, size_of::<Self>());
}

/// IOCTL_EVTCHN_BIND_UNBOUND_PORT: returns the local port.
#[repr(C)]
pub(super) struct BindUnboundPort {
    pub(super) remote_domain: u32,
}

// SAFETY: evtchn.h.
unsafe impl Argument for BindUnboundPort {
    const OPCODE: Opcode = number(b'E', 2, size_of::<Self>());
}

/// IOCTL_EVTCHN_NOTIFY.
#[repr(C)]
pub(super) struct Notify {
    pub(super) port: u32,
}

// SAFETY: evtchn.h.
unsafe impl Argument for Notify {
    const OPCODE: Opcode = number(b'E', 4, size_of::<Self>());
}

/// Makes a call, whose argument may change; gives what it returned, never negative.
///
/// # Safety
/// The argument's counts and pointers are good, as its [`Argument`] demands.
pub(super) unsafe fn call<T: Argument>(device: impl AsFd, argument: &mut T) -> rustix::io::Result<u32> {
    // SAFETY: the number belongs to the structure (`Argument`), whose content the caller vouches for.
    let returned = unsafe { ioctl(device, Call(argument)) }?;
    Ok(returned.unsigned_abs())
}

/// A call, for rustix.
struct Call<'a, T>(&'a mut T);

// SAFETY: the number and the structure belong together (`Argument`); the pointer is to a structure borrowed for the
// call; the output is the returned number alone.
unsafe impl<T: Argument> Ioctl for Call<'_, T> {
    type Output = IoctlOutput;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        T::OPCODE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut(self.0).cast()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<IoctlOutput> {
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
