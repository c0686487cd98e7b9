//! Programs and builtins that are always asked about.

use super::Call;
use crate::piece::{Piece, Reason};

const ALWAYS: &[(Reason, &[&str])] = &[
    (
        Reason::Evaluates,
        &[".", "alias", "at", "batch", "bind", "compgen", "complete", "crontab", "enable", "eval"],
    ),
    (Reason::Evaluates, &["fc", "source", "trap", "unalias"]),
    (Reason::Coprocess, &["coproc"]),
    // Builtins that name variables evaluate subscripts, and with them commands.
    (
        Reason::ShellState,
        &[
            "declare",
            "export",
            "getopts",
            "hash",
            "jobs",
            "let",
            "local",
            "mapfile",
            "read",
            "readarray",
        ],
    ),
    (Reason::ShellState, &["readonly", "shopt", "typeset", "unset", "wait"]),
    (Reason::OtherUser, &["chroot", "gosu", "newgrp", "nsenter", "pkexec", "run0", "runuser"]),
    (Reason::OtherUser, &["setpriv", "sg", "su", "su-exec", "sudoedit", "unshare"]),
    (Reason::OtherMachine, &["ftp", "lftp", "mosh", "nc", "ncat", "netcat", "rlogin", "rsh"]),
    (Reason::OtherMachine, &["scp", "sftp", "socat", "ssh", "telnet"]),
    (
        Reason::ProgramText,
        &["awk", "dc", "ed", "ex", "gawk", "gnuplot", "m4", "mawk", "mysql", "nawk", "psql", "red"],
    ),
    (Reason::ProgramText, &["sqlite3", "vimdiff", "original-awk"]),
    (
        Reason::Interactive,
        &["emacs", "gdb", "info", "less", "lldb", "lnav", "man", "mc", "more", "most", "nano"],
    ),
    (Reason::Interactive, &["nvim", "pico", "ranger", "rvim", "screen", "script", "tig", "tmux"]),
    (Reason::Interactive, &["vi", "view", "vim", "w3m", "lynx", "top", "htop"]),
    (
        Reason::RunsOthers,
        &["bwrap", "catchsegv", "chpst", "chronic", "chrt", "cpulimit", "daemonize", "dbus-launch"],
    ),
    (
        Reason::RunsOthers,
        &[
            "direnv",
            "entr",
            "faketime",
            "firejail",
            "flock",
            "hyperfine",
            "ld.so",
            "ldd",
            "linux32",
        ],
    ),
    (
        Reason::RunsOthers,
        &["linux64", "ltrace", "numactl", "parallel", "perf", "prlimit", "proot", "rlwrap"],
    ),
    (
        Reason::RunsOthers,
        &["setarch", "softlimit", "start-stop-daemon", "strace", "systemd-run", "taskset"],
    ),
    (
        Reason::RunsOthers,
        &[
            "torsocks",
            "torify",
            "unbuffer",
            "valgrind",
            "watch",
            "watchexec",
            "xvfb-run",
            "run-parts",
        ],
    ),
];

/// The piece of a program that is always asked about; what `su` would run is not read.
pub(super) fn pieces(call: &Call<'_>) -> Option<Vec<Piece>> {
    let (why, _) = ALWAYS.iter().find(|(_, names)| names.contains(&call.name))?;
    Some(vec![call.opaque(*why)])
}
