//! Makes one system call that a sandbox should refuse, for tests: exits with 0 if the kernel let it
//! through, whatever came of it, and with 1 if it was refused.

#![cfg_attr(
    target_os = "linux",
    expect(
        unsafe_code,
        clippy::print_stdout,
        reason = "raw system calls, and a test reads the answer"
    )
)]

use std::process::ExitCode;

#[cfg(target_os = "linux")]
use nix::errno::Errno;

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    ExitCode::FAILURE
}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let name = arguments.first().map(String::as_str).unwrap_or_default();
    let number = arguments.get(1).and_then(|text| text.parse().ok()).unwrap_or_default();
    let errno = match (name, arguments.get(1)) {
        ("abstract" | "connect", Some(place)) => linux::connect(name == "abstract", place),
        _ => linux::attempt(name, number),
    };
    println!("{name}: {errno:?}");
    match errno {
        Some(Errno::EPERM | Errno::EACCES | Errno::ENOSYS) => ExitCode::FAILURE,
        // The way to a socket is not to be seen inside.
        Some(Errno::ENOENT) if name == "connect" => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixStream};

    use nix::errno::Errno;
    use nix::libc::{self, c_long};

    /// No program has a descriptor with this number.
    const NO_FD: c_long = 1_000_000;

    /// The error of connecting to a Unix socket.
    pub(crate) fn connect(is_abstract: bool, place: &str) -> Option<Errno> {
        let address = if is_abstract {
            SocketAddr::from_abstract_name(place)
        } else {
            SocketAddr::from_pathname(place)
        };
        let error = UnixStream::connect_addr(&address.ok()?).err()?;
        error.raw_os_error().map(Errno::from_raw)
    }

    /// The error of the call of this name; `None` if there was none.
    pub(crate) fn attempt(name: &str, number: c_long) -> Option<Errno> {
        let zeros = [0_u64; 64];
        let memory = zeros.as_ptr() as c_long;
        let dot = c".".as_ptr() as c_long;
        let file = c"node".as_ptr() as c_long;
        let here = c_long::from(libc::AT_FDCWD);
        let (call, arguments): (c_long, [c_long; 6]) = match name {
            "ptrace" => (libc::SYS_ptrace, [0x4206, number, 0, 0, 0, 0]), // PTRACE_SEIZE
            "process_vm_readv" => (libc::SYS_process_vm_readv, [number, 0, 0, 0, 0, 0]),
            "pidfd_getfd" => (libc::SYS_pidfd_getfd, [NO_FD, 0, 0, 0, 0, 0]),
            "kcmp" => (libc::SYS_kcmp, [number, number, 1, 0, 0, 0]),
            "prlimit" => (libc::SYS_prlimit64, [number, 7, 0, memory, 0, 0]),
            "setpriority" => (libc::SYS_setpriority, [0, number, 19, 0, 0, 0]),
            "unshare" => (libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0, 0, 0, 0]),
            "clone" => return clone_with_namespace(),
            "clone3" => (libc::SYS_clone3, [memory, 0, 0, 0, 0, 0]),
            "openat2" => (libc::SYS_openat2, [NO_FD, dot, memory, 24, 0, 0]),
            "setns" => (libc::SYS_setns, [NO_FD, 0, 0, 0, 0, 0]),
            "mount" => (libc::SYS_mount, [0, dot, 0, 4096, 0, 0]), // MS_BIND
            "umount" => (libc::SYS_umount2, [dot, 0, 0, 0, 0, 0]),
            "fsopen" => (libc::SYS_fsopen, [dot, 0, 0, 0, 0, 0]),
            "open_tree" => (libc::SYS_open_tree, [here, dot, 1, 0, 0, 0]),
            "chroot" => (libc::SYS_chroot, [dot, 0, 0, 0, 0, 0]),
            "pivot_root" => (libc::SYS_pivot_root, [dot, dot, 0, 0, 0, 0]),
            "keyctl" => (libc::SYS_keyctl, [0, -3, 1, 0, 0, 0]), // KEYCTL_GET_KEYRING_ID
            "add_key" => {
                let kind = c"user".as_ptr() as c_long;
                (libc::SYS_add_key, [kind, file, memory, 1, -3, 0])
            }
            "bpf" => (libc::SYS_bpf, [0, memory, 8, 0, 0, 0]),
            "userfaultfd" => (libc::SYS_userfaultfd, [1, 0, 0, 0, 0, 0]), // UFFD_USER_MODE_ONLY
            "io_uring" => (libc::SYS_io_uring_setup, [1, memory, 0, 0, 0, 0]),
            "perf_event_open" => (libc::SYS_perf_event_open, [memory, 0, -1, -1, 0, 0]),
            "open_by_handle_at" => (libc::SYS_open_by_handle_at, [here, memory, 0, 0, 0, 0]),
            "name_to_handle_at" => (libc::SYS_name_to_handle_at, [here, dot, memory, memory, 0, 0]),
            "fanotify_init" => (libc::SYS_fanotify_init, [0x200, 0, 0, 0, 0, 0]), // FAN_REPORT_FID
            "personality" => (libc::SYS_personality, [0x0004_0000, 0, 0, 0, 0, 0]), // no randomisation
            "swapoff" => (libc::SYS_swapoff, [dot, 0, 0, 0, 0, 0]),
            "sethostname" => (libc::SYS_sethostname, [dot, -1, 0, 0, 0, 0]),
            "clock" => (libc::SYS_clock_settime, [0, 0, 0, 0, 0, 0]),
            "chmod_setuid" => (libc::SYS_fchmodat, [here, dot, 0o4755, 0, 0, 0]),
            "chmod_setgid" => (libc::SYS_fchmodat, [here, dot, 0o2755, 0, 0, 0]),
            "fchmodat2_setuid" => (452, [here, dot, 0o4755, 0, 0, 0]),
            "create_setuid" => (libc::SYS_openat, [here, file, 0o101, 0o4755, 0, 0]),
            "tmpfile_setuid" => (libc::SYS_openat, [here, dot, 0o20_200_002, 0o4755, 0, 0]),
            "mknod_block" => (libc::SYS_mknodat, [here, file, 0o60_600, 0x0700, 0, 0]),
            "mknod_char" => (libc::SYS_mknodat, [here, file, 0o20_600, 0x0103, 0, 0]),
            "tiocsti" => (libc::SYS_ioctl, [0, 0x5412, memory, 0, 0, 0]),
            "tioclinux" => (libc::SYS_ioctl, [0, 0x541c, memory, 0, 0, 0]),
            "unix" => (libc::SYS_socket, [1, 1, 0, 0, 0, 0]),
            "inet" => (libc::SYS_socket, [2, 1, 0, 0, 0, 0]),
            "inet6" => (libc::SYS_socket, [10, 2, 0, 0, 0, 0]),
            "raw" => (libc::SYS_socket, [2, 3, 1, 0, 0, 0]),
            "packet" => (libc::SYS_socket, [17, 3, 0, 0, 0, 0]),
            "netlink" => (libc::SYS_socket, [16, 3, 0, 0, 0, 0]),
            "netlink_audit" => (libc::SYS_socket, [16, 3, 9, 0, 0, 0]),
            "vsock" => (libc::SYS_socket, [40, 1, 0, 0, 0, 0]),
            "alg" => (libc::SYS_socket, [38, 5, 0, 0, 0, 0]),
            "unknown" => (499, [0; 6]),
            "shmget" => (libc::SYS_shmget, [0, 4096, 0o1600, 0, 0, 0]),
            "mq_unlink" => (libc::SYS_mq_unlink, [file, 0, 0, 0, 0, 0]),
            #[cfg(target_arch = "x86_64")]
            "x32" => (libc::SYS_getpid | 0x4000_0000, [0; 6]),
            _ => return Some(Errno::EACCES),
        };
        // SAFETY: every pointer among the arguments is to zeros that live until the end of the function,
        // or to a text that always lives, and no call is given more bytes than there are; those that
        // write get memory for which nothing else is used.
        let result = unsafe {
            let [first, second, third, fourth, fifth, sixth] = arguments;
            libc::syscall(call, first, second, third, fourth, fifth, sixth)
        };
        let errno = Errno::last();
        std::hint::black_box(&zeros);
        (result < 0).then_some(errno)
    }

    /// A process with a user namespace, which ends at once.
    fn clone_with_namespace() -> Option<Errno> {
        let flags = c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
        // SAFETY: without CLONE_VM and a stack this is a fork, of a process with one thread; the child
        // calls nothing but exit.
        let result = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        if result == 0 {
            // SAFETY: ends the process without running anything of it.
            unsafe { libc::_exit(0) };
        }
        (result < 0).then(Errno::last)
    }
}
