//! Intel's ISA-L, loaded at run time: a baseline, not a dependency.

use std::ffi::{CStr, c_void};

type Crc16 = unsafe extern "C" fn(u16, *const u8, u64) -> u16;
type Crc16Copy = unsafe extern "C" fn(u16, *mut u8, *const u8, u64) -> u16;
type Crc64 = unsafe extern "C" fn(u64, *const u8, u64) -> u64;

/// The functions that the bench compares with.
#[derive(Clone, Copy)]
pub struct IsaL {
    crc16: Crc16,
    crc16_without_avx512: Crc16,
    crc16_copy: Crc16Copy,
    crc64: Crc64,
    /// Which CRC-64 that is: versions before 2.31 have none with NVMe's polynomial.
    pub crc64_name: &'static str,
}

impl IsaL {
    /// Loads libisal.so.2 if the machine has it (Debian: libisal2).
    pub fn load() -> Option<IsaL> {
        // SAFETY: the path is a C string; the library's constructors do nothing but set up its own tables.
        let library = unsafe { libc::dlopen(c"libisal.so.2".as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            return None;
        }
        let find = |name: &CStr| -> Option<*mut c_void> {
            // SAFETY: the handle is open and never closed, the name is a C string.
            let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
            (!symbol.is_null()).then_some(symbol)
        };
        let (crc64, crc64_name) = match find(c"crc64_rocksoft_refl") {
            Some(symbol) => (symbol, "ISA-L"),
            None => (find(c"crc64_ecma_refl")?, "ISA-L (ecma)"),
        };
        Some(IsaL {
            // SAFETY: the type is that of isa-l/crc.h.
            crc16: unsafe { std::mem::transmute::<*mut c_void, Crc16>(find(c"crc16_t10dif")?) },
            // SAFETY: as above; this is what the dispatcher picks on machines with AVX but without AVX-512.
            crc16_without_avx512: unsafe {
                std::mem::transmute::<*mut c_void, Crc16>(find(c"crc16_t10dif_02").or(find(c"crc16_t10dif"))?)
            },
            // SAFETY: as above.
            crc16_copy: unsafe { std::mem::transmute::<*mut c_void, Crc16Copy>(find(c"crc16_t10dif_copy")?) },
            // SAFETY: the type is that of isa-l/crc64.h.
            crc64: unsafe { std::mem::transmute::<*mut c_void, Crc64>(crc64) },
            crc64_name,
        })
    }

    pub fn crc16(&self, data: &[u8]) -> u64 {
        // SAFETY: pointer and length are one slice's.
        u64::from(unsafe { (self.crc16)(0, data.as_ptr(), data.len() as u64) })
    }

    pub fn crc16_without_avx512(&self, data: &[u8]) -> u64 {
        // SAFETY: pointer and length are one slice's.
        u64::from(unsafe { (self.crc16_without_avx512)(0, data.as_ptr(), data.len() as u64) })
    }

    pub fn crc16_copy(&self, data: &[u8], copy: &mut [u8]) -> u64 {
        assert_eq!(data.len(), copy.len());
        // SAFETY: both slices have that length, and do not overlap.
        u64::from(unsafe { (self.crc16_copy)(0, copy.as_mut_ptr(), data.as_ptr(), data.len() as u64) })
    }

    pub fn crc64(&self, data: &[u8]) -> u64 {
        // SAFETY: pointer and length are one slice's.
        unsafe { (self.crc64)(0, data.as_ptr(), data.len() as u64) }
    }
}
