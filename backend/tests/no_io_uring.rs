//! A kernel that has no io_uring, or has it switched off, is told so in one line.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// The daemon's standard error and exit code where io_uring_setup fails with `errno`, as a seccomp filter makes it.
fn run_where_io_uring_fails_with(errno: i32) -> (String, Option<i32>) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_dixback"));
    command.arg("run").arg("--hypervisor").arg(format!("sim:{}", dir.path().display()));
    command.arg("--run-dir").arg(dir.path()).arg("--xenstore").arg(dir.path().join("xenstored"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    // SAFETY: the closure calls nothing but prctl on memory of its own, which is safe after a fork.
    unsafe { command.pre_exec(move || filter(errno)) };
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code())
}

/// Makes io_uring_setup fail with `errno` in this process from now on.
fn filter(errno: i32) -> std::io::Result<()> {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut program = [
        // The system call's number is the first word of seccomp_data.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter {
            jf: 1,
            ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::SYS_io_uring_setup as u32)
        },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: no memory is passed.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the program and its statements live until the call returns.
    if unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

#[test]
fn daemon_when_the_kernel_has_no_io_uring_says_so_in_one_line() {
    let (stderr, code) = run_where_io_uring_fails_with(libc::ENOSYS);
    let lines: Vec<&str> = stderr.lines().filter(|line| line.contains("io_uring")).collect();
    assert_eq!(lines.len(), 1, "{stderr}");
    assert!(lines[0].contains("has no io_uring"), "{stderr}");
    assert_eq!(code, Some(1));
}

#[test]
fn daemon_when_io_uring_is_switched_off_names_the_switch() {
    let (stderr, code) = run_where_io_uring_fails_with(libc::EPERM);
    let lines: Vec<&str> = stderr.lines().filter(|line| line.contains("io_uring")).collect();
    assert_eq!(lines.len(), 1, "{stderr}");
    assert!(lines[0].contains("kernel.io_uring_disabled"), "{stderr}");
    assert_eq!(code, Some(1));
}
