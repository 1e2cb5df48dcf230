//! The layouts: against the numbers of Linux 7.2, and against the C header of this machine, as far as it goes.

use std::mem::offset_of;
use std::path::Path;
use std::process::Command;
use ublk::uapi::*;

const HEADER: &str = "/usr/include/linux/ublk_cmd.h";

fn skipped(test: &str, reason: &str) {
    let line = format!("SKIPPED ublk {test}: {reason}");
    eprintln!("{line}");
    if let Some(log) = std::env::var_os("DIXBACK_SKIP_LOG") {
        use std::io::Write;
        let file = std::fs::OpenOptions::new().append(true).create(true).open(log);
        writeln!(file.expect("the skip log"), "{line}").expect("the skip log");
    }
}

#[test]
fn structures_when_measured_are_linux_7_2s() {
    assert_eq!(size_of::<CtrlCmd>(), 32);
    assert_eq!(size_of::<CtrlDevInfo>(), 64);
    assert_eq!(size_of::<IoDesc>(), 24);
    assert_eq!(size_of::<IoCmd>(), 16);
    assert_eq!(size_of::<ParamIntegrity>(), 16);
    assert_eq!(size_of::<RawParams>(), 152);
    let at = [
        offset_of!(RawParams, basic),
        offset_of!(RawParams, discard),
        offset_of!(RawParams, devt),
        offset_of!(RawParams, zoned),
        offset_of!(RawParams, dma),
        offset_of!(RawParams, seg),
        offset_of!(RawParams, integrity),
    ];
    assert_eq!(at, [8, 40, 60, 76, 108, 120, 136]);
    let at = [
        offset_of!(ParamIntegrity, max_integrity_segments),
        offset_of!(ParamIntegrity, interval_exp),
        offset_of!(ParamIntegrity, metadata_size),
        offset_of!(ParamIntegrity, pi_offset),
        offset_of!(ParamIntegrity, csum_type),
        offset_of!(ParamIntegrity, tag_size),
    ];
    assert_eq!(at, [4, 6, 7, 8, 9, 10]);
}

/// Each line: what C calls it, its value here. `?` in front: newer than some headers.
fn values() -> Vec<(&'static str, u64)> {
    let n = |value: usize| value as u64;
    vec![
        ("sizeof(struct ublksrv_ctrl_cmd)", n(size_of::<CtrlCmd>())),
        ("offsetof(struct ublksrv_ctrl_cmd, queue_id)", n(offset_of!(CtrlCmd, queue_id))),
        ("offsetof(struct ublksrv_ctrl_cmd, len)", n(offset_of!(CtrlCmd, len))),
        ("offsetof(struct ublksrv_ctrl_cmd, addr)", n(offset_of!(CtrlCmd, addr))),
        ("offsetof(struct ublksrv_ctrl_cmd, data)", n(offset_of!(CtrlCmd, data))),
        ("sizeof(struct ublksrv_ctrl_dev_info)", n(size_of::<CtrlDevInfo>())),
        ("offsetof(struct ublksrv_ctrl_dev_info, queue_depth)", n(offset_of!(CtrlDevInfo, queue_depth))),
        ("offsetof(struct ublksrv_ctrl_dev_info, state)", n(offset_of!(CtrlDevInfo, state))),
        (
            "offsetof(struct ublksrv_ctrl_dev_info, max_io_buf_bytes)",
            n(offset_of!(CtrlDevInfo, max_io_buf_bytes)),
        ),
        ("offsetof(struct ublksrv_ctrl_dev_info, dev_id)", n(offset_of!(CtrlDevInfo, dev_id))),
        ("offsetof(struct ublksrv_ctrl_dev_info, ublksrv_pid)", n(offset_of!(CtrlDevInfo, ublksrv_pid))),
        ("offsetof(struct ublksrv_ctrl_dev_info, flags)", n(offset_of!(CtrlDevInfo, flags))),
        ("sizeof(struct ublksrv_io_desc)", n(size_of::<IoDesc>())),
        ("offsetof(struct ublksrv_io_desc, nr_sectors)", n(offset_of!(IoDesc, nr_sectors))),
        ("offsetof(struct ublksrv_io_desc, start_sector)", n(offset_of!(IoDesc, start_sector))),
        ("sizeof(struct ublksrv_io_cmd)", n(size_of::<IoCmd>())),
        ("offsetof(struct ublksrv_io_cmd, tag)", n(offset_of!(IoCmd, tag))),
        ("offsetof(struct ublksrv_io_cmd, result)", n(offset_of!(IoCmd, result))),
        ("sizeof(struct ublk_param_basic)", n(size_of::<ParamBasic>())),
        ("offsetof(struct ublk_param_basic, max_sectors)", n(offset_of!(ParamBasic, max_sectors))),
        ("offsetof(struct ublk_param_basic, dev_sectors)", n(offset_of!(ParamBasic, dev_sectors))),
        ("sizeof(struct ublk_param_discard)", n(size_of::<ParamDiscard>())),
        (
            "offsetof(struct ublk_param_discard, max_write_zeroes_sectors)",
            n(offset_of!(ParamDiscard, max_write_zeroes_sectors)),
        ),
        (
            "offsetof(struct ublk_param_discard, max_discard_segments)",
            n(offset_of!(ParamDiscard, max_discard_segments)),
        ),
        ("offsetof(struct ublk_params, discard)", n(offset_of!(RawParams, discard))),
        ("UBLK_F_USER_RECOVERY", F_USER_RECOVERY),
        ("UBLK_F_USER_RECOVERY_REISSUE", F_USER_RECOVERY_REISSUE),
        ("?UBLK_F_CMD_IOCTL_ENCODE", F_CMD_IOCTL_ENCODE),
        ("UBLK_S_DEV_DEAD", S_DEV_DEAD.into()),
        ("UBLK_S_DEV_LIVE", S_DEV_LIVE.into()),
        ("UBLK_IO_OP_WRITE", IO_OP_WRITE.into()),
        ("UBLK_IO_OP_FLUSH", IO_OP_FLUSH.into()),
        ("UBLK_IO_OP_DISCARD", IO_OP_DISCARD.into()),
        ("UBLK_IO_OP_WRITE_ZEROES", IO_OP_WRITE_ZEROES.into()),
        ("UBLK_IO_F_FUA", IO_F_FUA.into()),
        ("UBLK_ATTR_READ_ONLY", ATTR_READ_ONLY.into()),
        ("UBLK_ATTR_VOLATILE_CACHE", ATTR_VOLATILE_CACHE.into()),
        ("UBLK_ATTR_FUA", ATTR_FUA.into()),
        ("UBLKSRV_CMD_BUF_OFFSET", CMD_BUF_OFFSET),
        ("UBLKSRV_IO_BUF_OFFSET", IO_BUF_OFFSET),
        ("UBLK_MAX_QUEUE_DEPTH", MAX_QUEUE_DEPTH.into()),
        ("-UBLK_IO_RES_ABORT", IO_RES_ABORT.unsigned_abs().into()),
        // Names of 6.3 and later; a header without them is older than the interface this is for.
        ("?UBLK_U_CMD_ADD_DEV", CMD_ADD_DEV.into()),
        ("?UBLK_U_CMD_DEL_DEV", CMD_DEL_DEV.into()),
        ("?UBLK_U_CMD_DEL_DEV_ASYNC", CMD_DEL_DEV_ASYNC.into()),
        ("?UBLK_U_CMD_START_DEV", CMD_START_DEV.into()),
        ("?UBLK_U_CMD_STOP_DEV", CMD_STOP_DEV.into()),
        ("?UBLK_U_CMD_SET_PARAMS", CMD_SET_PARAMS.into()),
        ("?UBLK_U_CMD_GET_PARAMS", CMD_GET_PARAMS.into()),
        ("?UBLK_U_CMD_GET_DEV_INFO", CMD_GET_DEV_INFO.into()),
        ("?UBLK_U_CMD_GET_FEATURES", CMD_GET_FEATURES.into()),
        ("?UBLK_U_CMD_START_USER_RECOVERY", CMD_START_USER_RECOVERY.into()),
        ("?UBLK_U_CMD_END_USER_RECOVERY", CMD_END_USER_RECOVERY.into()),
        ("?UBLK_U_CMD_TRY_STOP_DEV", CMD_TRY_STOP_DEV.into()),
        ("?UBLK_U_IO_FETCH_REQ", IO_FETCH_REQ.into()),
        ("?UBLK_U_IO_COMMIT_AND_FETCH_REQ", IO_COMMIT_AND_FETCH_REQ.into()),
        ("?UBLK_F_USER_COPY", F_USER_COPY),
        ("?UBLK_F_INTEGRITY", F_INTEGRITY),
        ("?UBLK_F_SAFE_STOP_DEV", F_SAFE_STOP_DEV),
        ("?UBLK_IO_BUF_BITS", IO_BUF_BITS.into()),
        ("?UBLK_TAG_OFF", TAG_OFF.into()),
        ("?UBLK_QID_OFF", QID_OFF.into()),
        ("?UBLKSRV_IO_INTEGRITY_FLAG", IO_INTEGRITY_FLAG),
        ("?UBLK_IO_F_INTEGRITY", IO_F_INTEGRITY.into()),
        ("?UBLK_PARAM_TYPE_DISCARD", PARAM_TYPE_DISCARD.into()),
        ("?UBLK_PARAM_TYPE_INTEGRITY", PARAM_TYPE_INTEGRITY.into()),
        ("?UBLK_S_DEV_QUIESCED", S_DEV_QUIESCED.into()),
    ]
}

#[test]
fn values_when_compiled_from_this_machines_header_are_the_same() {
    let test = "values_when_compiled_from_this_machines_header_are_the_same";
    if !Path::new(HEADER).exists() {
        return skipped(test, &format!("{HEADER} is not installed (linux-libc-dev)"));
    }
    let mut source = String::from(
        "#include <stddef.h>\n#include <linux/errno.h>\n#include <linux/ioctl.h>\n#include <linux/ublk_cmd.h>\n",
    );
    for (index, (name, value)) in values().into_iter().enumerate() {
        let check =
            |name: &str| format!("_Static_assert((unsigned long long)({name}) == {value}ULL, \"{name}\");\n");
        match name.strip_prefix('?') {
            Some(name) => source.push_str(&format!("#ifdef {name}\n{}#endif\n", check(name))),
            None => source.push_str(&check(name)),
        }
        source.push_str(&format!("const int checked_{index} = 1;\n"));
    }
    let folder = std::env::temp_dir().join(format!("ublk-header-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("header.c");
    std::fs::write(&file, source).unwrap();
    let compiler = Command::new("cc").arg("-fsyntax-only").arg(&file).output();
    std::fs::remove_dir_all(&folder).unwrap();
    let Ok(output) = compiler else {
        return skipped(test, "no C compiler (cc)");
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
