//! The one call that no library offers without `unsafe`.

use std::io;

use nix::libc;

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
        libc::syscall(
            libc::SYS_close_range,
            FIRST,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
