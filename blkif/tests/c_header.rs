//! The layouts against the C header itself: a compiler turns the offsets into an assembler listing,
//! which needs neither that machine's C library nor the machine to run on.

use std::path::Path;
use std::process::Command;

use blkif::{Abi, Index};

mod common;
use common::skipped;

const HEADER: &str = "/usr/include/xen/io/blkif.h";

/// Added to every value, so that no compiler writes a zero in a shorter form.
const BIAS: usize = 1_000_000;

const SOURCE: &str = r#"
#include <stddef.h>
#include <stdint.h>
#include <xen/io/blkif.h>
#define V(x) (1000000u + (unsigned int)(x))
#define AT(type, field) V(offsetof(struct type, field))
const unsigned int values[] = {
    V(sizeof(union blkif_sring_entry)),
    V(offsetof(struct blkif_sring, ring)),
    AT(blkif_sring, req_prod), AT(blkif_sring, req_event),
    AT(blkif_sring, rsp_prod), AT(blkif_sring, rsp_event),
    V(sizeof(struct blkif_response)),
    AT(blkif_response, id), AT(blkif_response, operation), AT(blkif_response, status),
    AT(blkif_request, nr_segments), AT(blkif_request, handle),
    AT(blkif_request, id), AT(blkif_request, sector_number), AT(blkif_request, seg),
    V(sizeof(struct blkif_request_segment)),
    AT(blkif_request_segment, first_sect), AT(blkif_request_segment, last_sect),
    AT(blkif_request_discard, flag), AT(blkif_request_discard, handle),
    AT(blkif_request_discard, id), AT(blkif_request_discard, sector_number),
    AT(blkif_request_discard, nr_sectors),
    AT(blkif_request_indirect, indirect_op), AT(blkif_request_indirect, nr_segments),
    AT(blkif_request_indirect, id), AT(blkif_request_indirect, sector_number),
    AT(blkif_request_indirect, handle), AT(blkif_request_indirect, indirect_grefs),
    V(__CONST_RING_SIZE(blkif, 4096)), V(__CONST_RING_SIZE(blkif, 65536)),
    V(BLKIF_OP_READ), V(BLKIF_OP_WRITE), V(BLKIF_OP_WRITE_BARRIER), V(BLKIF_OP_FLUSH_DISKCACHE),
    V(BLKIF_OP_RESERVED_1), V(BLKIF_OP_DISCARD), V(BLKIF_OP_INDIRECT), V(BLKIF_DISCARD_SECURE),
    V(-BLKIF_RSP_OKAY), V(-BLKIF_RSP_ERROR), V(-BLKIF_RSP_EOPNOTSUPP),
    V(BLKIF_MAX_SEGMENTS_PER_REQUEST), V(BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST),
    V(VDISK_CDROM), V(VDISK_REMOVABLE), V(VDISK_READONLY),
};
"#;

/// The same values, as this crate has them.
fn ours(abi: Abi) -> Vec<usize> {
    use blkif::wire::*;
    let id = abi.body_offset();
    let (sector, body) = (id + 8, id + 16);
    let indexes =
        [Index::RequestProducer, Index::RequestEvent, Index::ResponseProducer, Index::ResponseEvent];
    let mut values = vec![abi.entry_size(), 64];
    values.extend(indexes.map(Index::offset));
    values.extend([abi.response_size(), 0, 8, 10]);
    values.extend([1, 2, id, sector, body, 8, 4, 5]);
    values.extend([1, 2, id, sector, body]);
    values.extend([1, 2, id, sector, body, body + 4]);
    values.extend([4096, 65536].map(|bytes| abi.entries(bytes) as usize));
    let operations =
        [OP_READ, OP_WRITE, OP_WRITE_BARRIER, OP_FLUSH_DISKCACHE, OP_RESERVED_1, OP_DISCARD, OP_INDIRECT];
    values.extend(operations.map(usize::from));
    values.push(usize::from(DISCARD_SECURE));
    values.extend([RSP_OKAY, RSP_ERROR, RSP_EOPNOTSUPP].map(|status| usize::from(status.unsigned_abs())));
    values.extend([blkif::MAX_SEGMENTS, blkif::MAX_INDIRECT_PAGES]);
    values.extend([VDISK_CDROM, VDISK_REMOVABLE, VDISK_READONLY].map(|bit| bit as usize));
    values
}

/// The header's values by a compiler; none, and said so, where it or the header is missing.
fn theirs(test: &str, compiler: &str, machine: Option<&str>) -> Option<Vec<usize>> {
    if !Path::new(HEADER).exists() {
        skipped(test, &format!("{HEADER} is not installed (libxen-dev)"));
        return None;
    }
    let folder = std::env::temp_dir().join(format!("blkif-{test}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the listing");
    let (source, listing) = (folder.join("layout.c"), folder.join("layout.s"));
    std::fs::write(&source, SOURCE).expect("the source is written");
    // Freestanding: stdint.h and stddef.h are then the compiler's own, for any machine.
    let output = Command::new(compiler)
        .args(["-S", "-O0", "-ffreestanding", "-nostdinc"])
        .args(builtin_headers(compiler))
        .args(["-idirafter", "/usr/include"])
        .args(machine)
        .arg("-o")
        .args([&listing, &source])
        .output();
    let listing = match output {
        Err(error) => {
            skipped(test, &format!("{compiler} does not run: {error}"));
            None
        }
        Ok(output) if !output.status.success() => {
            panic!("{compiler}: {}", String::from_utf8_lossy(&output.stderr))
        }
        Ok(_) => Some(std::fs::read_to_string(&listing).expect("the listing is there")),
    };
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
    let values = listing?
        .lines()
        .filter_map(|line| {
            let value = line.trim().strip_prefix(".long").or_else(|| line.trim().strip_prefix(".word"))?;
            value.trim().parse::<usize>().ok()?.checked_sub(BIAS)
        })
        .collect();
    Some(values)
}

/// Where the compiler's own headers are, asked of it.
fn builtin_headers(compiler: &str) -> Vec<String> {
    let output = Command::new(compiler).arg("-print-file-name=include").output();
    output.map_or(vec![], |output| {
        vec!["-isystem".to_owned(), String::from_utf8_lossy(&output.stdout).trim().to_owned()]
    })
}

fn compare(test: &str, abi: Abi, compiler: &str, machine: Option<&str>) {
    if machine.is_some() && !cfg!(target_arch = "x86_64") {
        return skipped(test, "the compiler is not x86's");
    }
    if let Some(theirs) = theirs(test, compiler, machine) {
        assert_eq!(ours(abi), theirs, "{abi}: ours, then blkif.h's");
    }
}

#[test]
fn blkif_h_is_compiled_for_x86_64_then_it_agrees() {
    compare("blkif_h_is_compiled_for_x86_64_then_it_agrees", Abi::X86_64, "gcc", Some("-m64"));
}

#[test]
fn blkif_h_is_compiled_for_x86_32_then_it_agrees() {
    compare("blkif_h_is_compiled_for_x86_32_then_it_agrees", Abi::X86_32, "gcc", Some("-m32"));
}

#[test]
fn blkif_h_is_compiled_for_arm_then_it_agrees() {
    let compiler = if cfg!(target_arch = "aarch64") { "gcc" } else { "aarch64-linux-gnu-gcc" };
    compare("blkif_h_is_compiled_for_arm_then_it_agrees", Abi::Arm, compiler, None);
}
