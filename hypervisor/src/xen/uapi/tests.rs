use super::*;
use std::mem::offset_of;
use std::process::Command;

/// Every number, size and offset this module has of its own, as `name value` lines.
fn ours() -> Vec<(&'static str, u64)> {
    vec![
        ("IOCTL_GNTDEV_MAP_GRANT_REF", MapGrantRef::OPCODE.into()),
        ("offsetof(struct ioctl_gntdev_map_grant_ref, index)", offset_of!(MapGrantRef, index) as u64),
        ("offsetof(struct ioctl_gntdev_map_grant_ref, refs)", offset_of!(MapGrantRef, refs) as u64),
        ("sizeof(struct ioctl_gntdev_grant_ref)", size_of::<ForeignRef>() as u64),
        ("offsetof(struct ioctl_gntdev_grant_ref, ref)", offset_of!(ForeignRef, gref) as u64),
        ("IOCTL_GNTDEV_UNMAP_GRANT_REF", UnmapGrantRef::OPCODE.into()),
        ("offsetof(struct ioctl_gntdev_unmap_grant_ref, count)", offset_of!(UnmapGrantRef, count) as u64),
        ("IOCTL_GNTDEV_GRANT_COPY", GrantCopy::OPCODE.into()),
        ("offsetof(struct ioctl_gntdev_grant_copy, segments)", offset_of!(GrantCopy, segments) as u64),
        ("sizeof(struct gntdev_grant_copy_segment)", size_of::<CopySegment>() as u64),
        ("offsetof(struct gntdev_grant_copy_segment, source)", offset_of!(CopySegment, source) as u64),
        ("offsetof(struct gntdev_grant_copy_segment, dest)", offset_of!(CopySegment, dest) as u64),
        ("offsetof(struct gntdev_grant_copy_segment, len)", offset_of!(CopySegment, len) as u64),
        ("offsetof(struct gntdev_grant_copy_segment, flags)", offset_of!(CopySegment, flags) as u64),
        ("offsetof(struct gntdev_grant_copy_segment, status)", offset_of!(CopySegment, status) as u64),
        ("offsetof(struct gntdev_grant_copy_segment, source.foreign.ref)", offset_of!(Foreign, gref) as u64),
        (
            "offsetof(struct gntdev_grant_copy_segment, source.foreign.offset)",
            offset_of!(Foreign, offset) as u64,
        ),
        (
            "offsetof(struct gntdev_grant_copy_segment, source.foreign.domid)",
            offset_of!(Foreign, domid) as u64,
        ),
        ("IOCTL_GNTALLOC_ALLOC_GREF", AllocGref::OPCODE.into()),
        ("offsetof(struct ioctl_gntalloc_alloc_gref, flags)", offset_of!(AllocGref, flags) as u64),
        ("offsetof(struct ioctl_gntalloc_alloc_gref, count)", offset_of!(AllocGref, count) as u64),
        ("offsetof(struct ioctl_gntalloc_alloc_gref, index)", offset_of!(AllocGref, index) as u64),
        ("offsetof(struct ioctl_gntalloc_alloc_gref, gref_ids)", offset_of!(AllocGref, gref_ids) as u64),
        ("GNTALLOC_FLAG_WRITABLE", WRITABLE.into()),
        ("IOCTL_GNTALLOC_DEALLOC_GREF", DeallocGref::OPCODE.into()),
        ("offsetof(struct ioctl_gntalloc_dealloc_gref, count)", offset_of!(DeallocGref, count) as u64),
        ("IOCTL_EVTCHN_BIND_INTERDOMAIN", BindInterdomain::OPCODE.into()),
        (
            "offsetof(struct ioctl_evtchn_bind_interdomain, remote_port)",
            offset_of!(BindInterdomain, remote_port) as u64,
        ),
        ("IOCTL_EVTCHN_BIND_UNBOUND_PORT", BindUnboundPort::OPCODE.into()),
        ("IOCTL_EVTCHN_NOTIFY", Notify::OPCODE.into()),
    ]
}

#[test]
fn numbers_when_computed_then_are_the_kernels() {
    // From linux-libc-dev's xen/{gntdev,gntalloc,evtchn}.h, for machines that have no such headers.
    assert_eq!(MapGrantRef::OPCODE, 0x18_4700);
    assert_eq!(UnmapGrantRef::OPCODE, 0x10_4701);
    assert_eq!(GrantCopy::OPCODE, 0x10_4708);
    assert_eq!(AllocGref::OPCODE, 0x18_4705);
    assert_eq!(DeallocGref::OPCODE, 0x10_4706);
    assert_eq!(BindInterdomain::OPCODE, 0x8_4501);
    assert_eq!(BindUnboundPort::OPCODE, 0x4_4502);
    assert_eq!(Notify::OPCODE, 0x4_4504);
    assert_eq!(size_of::<CopySegment>(), 24);
}

#[test]
fn layouts_when_a_c_compiler_reads_the_headers_then_agree() {
    let name = "layouts_when_a_c_compiler_reads_the_headers_then_agree";
    let mut program = String::from(
        "#include <stdio.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <sys/ioctl.h>\n\
         typedef uint16_t domid_t; typedef uint32_t grant_ref_t; typedef uint32_t evtchn_port_t;\n\
         #include <xen/gntdev.h>\n#include <xen/gntalloc.h>\n#include <xen/evtchn.h>\nint main(void) {\n",
    );
    for (expression, _) in ours() {
        program.push_str(&format!("printf(\"%llu\\n\", (unsigned long long)({expression}));\n"));
    }
    program.push_str("return 0; }\n");
    let folder = tempfile::tempdir().unwrap();
    let (source, binary) = (folder.path().join("layout.c"), folder.path().join("layout"));
    std::fs::write(&source, program).unwrap();
    let compiled = Command::new("cc").arg(&source).arg("-o").arg(&binary).output();
    let reason = match &compiled {
        Err(error) => Some(format!("no C compiler: {error}")),
        // Only a header that is not there is a reason to skip; one that says something else is a failure.
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("No such file") => {
            Some("no xen/gntdev.h (Debian: linux-libc-dev)".to_owned())
        }
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            None
        }
    };
    if let Some(reason) = reason {
        return skip(name, &reason);
    }
    let output = Command::new(&binary).output().unwrap();
    let theirs = String::from_utf8(output.stdout).unwrap();
    let theirs: Vec<u64> = theirs.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(theirs.len(), ours().len());
    for ((expression, ours), theirs) in ours().into_iter().zip(theirs) {
        assert_eq!(ours, theirs, "{expression}");
    }
}

fn skip(name: &str, reason: &str) {
    use std::io::Write;
    eprintln!("SKIPPED {name}: {reason}");
    if let Some(log) = std::env::var_os("DIXBACK_SKIP_LOG") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(log);
        writeln!(file.unwrap(), "SKIPPED {name}: {reason}").unwrap();
    }
}
