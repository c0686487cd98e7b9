//! Which system calls a command can make: a seccomp filter.
//!
//! Most calls are allowed, and what stands here is refused: calls that reach into other processes, that
//! make namespaces or mounts, that open parts of the kernel no tool needs, and sockets. A program of
//! another architecture than this one is killed, because it would number its calls differently.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, apply_filter, sock_filter,
};

use super::{At, Trouble};
use crate::config::Network;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The highest number of a system call that was looked at for the lists below (`listns`, Linux 6.19).
const KNOWN_MAX: u32 = 470;
/// Into how many pieces the list of calls is divided.
const PIECES: usize = 8;
/// Calls of the x32 ABI have this bit set (`__X32_SYSCALL_BIT` of `asm/unistd.h`).
const X32_BIT: u32 = 0x4000_0000;

/// A filter for a command.
pub(super) struct Filter(BpfProgram);

impl Filter {
    /// Compiles the filter for a command with this network.
    pub(super) fn new(network: Network, has_namespaces: bool) -> Result<Self, Trouble> {
        let mut program = numbers();
        program.extend(compile(network, has_namespaces).at("seccomp")?);
        Ok(Self(program))
    }

    /// Binds the calling thread, and what it starts, to the filter.
    pub(super) fn enforce(&self) -> Result<(), Trouble> {
        apply_filter(&self.0).at("seccomp")
    }
}

/// The part that knows the calls: refuses with `EPERM`, and kills programs of other architectures. It begins
/// with the number loaded.
///
/// It is made of pieces, each for a range of numbers and with a jump over it before it: the kernel runs a
/// new filter for every number there is, and one long list would take it several times as long.
fn compile(
    network: Network,
    has_namespaces: bool,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let arch = std::env::consts::ARCH.try_into()?;
    let at_least = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    let mut rules = rules(network, has_namespaces)?;
    let calls = rules.len().div_ceil(PIECES);
    let mut program = BpfProgram::new();
    loop {
        let next = rules.keys().nth(calls).copied();
        let rest = next.map(|next| (next, rules.split_off(&next)));
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse.clone(), arch)?;
        let piece: BpfProgram = filter.try_into()?;
        let Some((next, others)) = rest else {
            program.extend(piece);
            return Ok(program);
        };
        // Numbers and lengths are small.
        program.push(jump(at_least, u32::try_from(next).unwrap_or(u32::MAX), 0, 1));
        let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        program.push(statement(libc::BPF_JMP | libc::BPF_JA, length));
        program.extend(piece);
        rules = others;
    }
}

/// The part before it: kills for calls of the x32 ABI, and answers `ENOSYS`, which programs take for an
/// older kernel, for calls that nobody has looked at and for those of [`ABSENT`]. All others go on to
/// what comes after the last instruction. (`struct seccomp_data` begins with the number, seccomp(2).)
fn numbers() -> BpfProgram {
    let answer = |action| statement(libc::BPF_RET | libc::BPF_K, action);
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let over = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
    let at_least = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    let [first, second] = ABSENT;
    vec![
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        jump(at_least, X32_BIT, 4, 0),
        jump(over, KNOWN_MAX, 4, 0),
        jump(equal, first, 3, 0),
        jump(equal, second, 2, 0),
        statement(libc::BPF_JMP | libc::BPF_JA, 2),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs()),
    ]
}

fn statement(code: u32, k: u32) -> sock_filter {
    jump(code, k, 0, 0)
}

fn jump(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    // The codes of BPF fit into one byte.
    sock_filter { code: u16::try_from(code).unwrap_or(u16::MAX), jt, jf, k }
}

/// Calls that hide what matters in memory, where a filter does not see it: `clone3` and `openat2`, with the
/// same numbers on all architectures. Programs fall back to `clone`, whose flags are filtered, and `openat`.
const ABSENT: [u32; 2] = [435, 437];

/// Calls that are refused whatever their arguments.
const REFUSED: &[i64] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    // Namespaces and mounts.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    457, // statmount
    458, // listmount
    467, // open_tree_attr
    470, // listns
    // Ways around the checks of paths.
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    // Parts of the kernel with a history of holes.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_perf_event_open,
    // The machine.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_nfsservctl,
    libc::SYS_lookup_dcookie,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Objects that processes of one user share, where there is no namespace for them.
const SHARED_OBJECTS: &[i64] = &[
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_semget,
    libc::SYS_msgget,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
];

/// Calls that change another process of the same user when this argument is not zero. Landlock knows
/// signals only, so without a process namespace a command could limit or slow the server.
const OTHERS: &[(i64, u8)] = &[
    (libc::SYS_prlimit64, 0),
    (libc::SYS_sched_setaffinity, 0),
    (libc::SYS_sched_setattr, 0),
    (libc::SYS_sched_setparam, 0),
    (libc::SYS_sched_setscheduler, 0),
    (libc::SYS_setpriority, 1),
    (libc::SYS_ioprio_set, 1),
];

/// Where calls that change the mode of a file, or always make one, take it.
const MODES: &[(i64, u8)] = &[
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (452, 2), // fchmodat2
    (libc::SYS_mknodat, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mknod, 1),
];

/// Where calls that may make a file take flags and its mode, which means nothing if they make none.
const OPENS: &[(i64, u8, u8)] = &[
    (libc::SYS_openat, 2, 3),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 1, 2),
];

/// `__O_TMPFILE` of `asm-generic/fcntl.h`: libc's constant has the bit for directories too, which is
/// another one on other architectures.
const O_TMPFILE_ALONE: u32 = 0o20_000_000;

/// Where calls take the mode of a node to make.
const NODES: &[(i64, u8)] = &[
    (libc::SYS_mknodat, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mknod, 1),
];

/// Flags of `clone` that make namespaces.
const NAMESPACE_FLAGS: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// What is answered with `EPERM`.
fn rules(network: Network, has_namespaces: bool) -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = REFUSED.iter().map(|&call| (call, Vec::new())).collect();
    let mut refuse = |call: i64, conditions: Vec<SeccompCondition>| {
        rules.entry(call).or_default().push(SeccompRule::new(conditions)?);
        Ok::<(), seccompiler::BackendError>(())
    };
    for flag in NAMESPACE_FLAGS {
        refuse(libc::SYS_clone, vec![has_bits(0, flag.unsigned_abs())?])?;
    }
    for &(call, argument) in MODES {
        for bit in [libc::S_ISUID, libc::S_ISGID] {
            refuse(call, vec![has_bits(argument, bit)?])?;
        }
    }
    for &(call, flags, mode) in OPENS {
        for makes in [libc::O_CREAT.unsigned_abs(), O_TMPFILE_ALONE] {
            for bit in [libc::S_ISUID, libc::S_ISGID] {
                refuse(call, vec![has_bits(flags, makes)?, has_bits(mode, bit)?])?;
            }
        }
    }
    for &(call, argument) in NODES {
        for kind in [libc::S_IFCHR, libc::S_IFBLK] {
            let mask = Op::MaskedEq(u64::from(libc::S_IFMT));
            refuse(call, vec![condition(argument, mask, u64::from(kind))?])?;
        }
    }
    // Typing into a terminal on behalf of its owner.
    for request in [libc::TIOCSTI, libc::TIOCLINUX] {
        refuse(libc::SYS_ioctl, vec![condition(1, Op::Eq, request)?])?;
    }
    // Asking for the personality, and the one that everybody has.
    let asked = u64::from(u32::MAX);
    refuse(libc::SYS_personality, vec![condition(0, Op::Ne, 0)?, condition(0, Op::Ne, asked)?])?;
    if !has_namespaces {
        for &(call, argument) in OTHERS {
            refuse(call, vec![condition(argument, Op::Ne, 0)?])?;
        }
    }
    refuse(libc::SYS_socketpair, vec![is_not(libc::AF_UNIX)?])?;
    match network {
        Network::Off => {}
        Network::Loopback | Network::On => {
            let known = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
            refuse(libc::SYS_socket, known.into_iter().map(is_not).collect::<Result<_, _>>()?)?;
            // Netlink for looking at routes alone, which is how names are resolved; raw sockets nowhere
            // else.
            let netlink = condition(0, Op::Eq, number(libc::AF_NETLINK))?;
            let other = condition(2, Op::Ne, number(libc::NETLINK_ROUTE))?;
            refuse(libc::SYS_socket, vec![netlink, other])?;
            for kind in [number(libc::SOCK_RAW), SOCK_PACKET] {
                let kind = condition(1, Op::MaskedEq(SOCKET_KIND_MASK), kind)?;
                refuse(libc::SYS_socket, vec![is_not(libc::AF_NETLINK)?, kind])?;
            }
        }
    }
    if network == Network::Off {
        rules.insert(libc::SYS_socket, Vec::new());
    }
    if !has_namespaces {
        rules.extend(SHARED_OBJECTS.iter().map(|&call| (call, Vec::new())));
    }
    Ok(rules)
}

/// The bits of the type of a socket that are no flags (`SOCK_TYPE_MASK` of `linux/net.h`).
const SOCKET_KIND_MASK: u64 = 0xf;
/// The old kind of raw socket (`linux/net.h`), which libc has deprecated.
const SOCK_PACKET: u64 = 10;

fn condition(
    argument: u8,
    op: Op,
    value: u64,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, Len::Dword, op, value)
}

fn has_bits(argument: u8, bits: u32) -> Result<SeccompCondition, seccompiler::BackendError> {
    let bits = u64::from(bits);
    condition(argument, Op::MaskedEq(bits), bits)
}

fn is_not(family: i32) -> Result<SeccompCondition, seccompiler::BackendError> {
    condition(0, Op::Ne, number(family))
}

/// A small positive constant of libc.
fn number(constant: i32) -> u64 {
    u64::from(constant.unsigned_abs())
}
