//! Asks for memory, for tests: `glutton private|shared <GiB>` exits with 0 if it gets it.

#![cfg_attr(target_os = "linux", expect(unsafe_code, reason = "a mapping is asked for"))]

use std::process::ExitCode;

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    ExitCode::FAILURE
}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use std::num::NonZeroUsize;

    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let gib: usize = arguments.get(1).and_then(|text| text.parse().ok()).unwrap_or_default();
    let Some(length) = NonZeroUsize::new(gib << 30) else { return ExitCode::FAILURE };
    let kind = match arguments.first().map(String::as_str) {
        Some("shared") => MapFlags::MAP_SHARED,
        _ => MapFlags::MAP_PRIVATE,
    };
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: the mapping is new and nobody uses it.
    let mapped =
        unsafe { mmap_anonymous(None, length, protection, kind | MapFlags::MAP_NORESERVE) };
    if mapped.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
