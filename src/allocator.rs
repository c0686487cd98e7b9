//! How the allocator of the system keeps the memory of many threads (docs/decisions/0023).

use std::env;

/// Arenas for each processor: half as many as glibc would make (mallopt(3), `M_ARENA_MAX`).
const ARENAS_PER_PROCESSOR: usize = 4;

/// Has all threads that come share fewer arenas than glibc would make for them: what one of them freed is then of
/// use to others, and the memory that is kept for nobody is less. For the start of a program, before there are
/// threads.
///
/// Leaves it as it is where `MALLOC_ARENA_MAX` says how many there are, and with other allocators. Says whether it
/// changed anything.
pub fn share_arenas() -> bool {
    if env::var_os("MALLOC_ARENA_MAX").is_some() {
        return false;
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let arenas = ARENAS_PER_PROCESSOR * processors;
    limit_arenas(arenas.try_into().unwrap_or(i32::MAX))
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "no library has `mallopt` as a safe function")]
fn limit_arenas(arenas: i32) -> bool {
    // SAFETY: the call sets a number that is read when a thread gets its first arena; it touches no memory that
    // was given out, and takes the allocator's own lock.
    unsafe { nix::libc::mallopt(nix::libc::M_ARENA_MAX, arenas) == 1 }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn limit_arenas(_: i32) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glibc_takes_the_limit_unless_somebody_set_another_one() {
        let is_set = env::var_os("MALLOC_ARENA_MAX").is_some();
        let is_glibc = cfg!(all(target_os = "linux", target_env = "gnu"));
        assert_eq!(share_arenas(), is_glibc && !is_set);
    }
}
