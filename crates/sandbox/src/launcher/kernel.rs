//! The two calls that no library offers without `unsafe`.

use std::io;

use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{ForkResult, fork};

/// The first descriptor that is none of the standard ones.
const FIRST: libc::c_uint = 3;

/// Has every descriptor beyond the standard ones closed in programs that this process starts: whoever
/// started it may have left some open.
///
/// # Errors
///
/// What the kernel said; `ENOSYS` or `EINVAL` before Linux 5.11.
#[expect(unsafe_code, reason = "neither std, rustix nor nix have `close_range` as a safe function")]
pub(super) fn close_all_on_exec() -> io::Result<()> {
    // SAFETY: with this flag the call closes nothing now and touches no memory: it sets `FD_CLOEXEC` on
    // descriptors, which nothing relies on being absent.
    let result = unsafe {
        libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Which of two processes this is.
pub(super) enum Side {
    /// The one that was there before.
    Outside,
    /// The new one.
    Inside,
}

/// Makes a second process of this one. A program started anew in its place would cost a millisecond and
/// the capabilities that are needed inside.
///
/// # Errors
///
/// What the kernel said; `EINVAL` in a process that has more than one thread.
#[expect(
    unsafe_code,
    reason = "std has no `fork`, and those of rustix and nix are unsafe functions"
)]
pub(super) fn split() -> io::Result<Side> {
    // The kernel grants this, which changes nothing here, to processes with one thread only
    // (unshare(2), `CLONE_THREAD`).
    unshare(CloneFlags::CLONE_THREAD)?;
    // SAFETY: a new process may not rely on what other threads were doing with locks and memory when it
    // was made; there are none, as the kernel has just said.
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => Ok(Side::Outside),
        ForkResult::Child => Ok(Side::Inside),
    }
}
