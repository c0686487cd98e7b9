//! Ways out, one row each: refused inside, and done outside by the same line of shell.
//!
//! The rows of the threat model are C1 to C5 and C12, and T1 to T3.

use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command as Process, Stdio};

use iris_sandbox::{Network, Status};

use crate::lab::{Lab, UID, example, is_root, labs, set_mode};

/// Who shows that it works outside.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Control {
    /// The user that commands run as.
    User,
    /// Root; an ordinary user may not do it outside either, so elsewhere nothing is shown.
    Root,
}

/// In which tiers it has to be refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    Always,
    /// By namespaces only.
    Isolated,
    /// By namespaces, or by another user than the server's.
    Apart,
    /// Only where there are no namespaces that make it harmless.
    Shared,
}

use Control::{Root, User};
use Held::{Always, Apart, Isolated, Shared};

/// Name, line of shell, who shows it, where it is held. `intruder` is the program of that name, `$VICTIM`
/// a process of the same user outside, `$SERVER` this one.
const ESCAPES: &[(&str, &str, Control, Held)] = &[
    ("read a file outside", "cat $OUT/secret", User, Always),
    ("list a directory outside", "ls $OUT", User, Always),
    ("read another project", "cat $OUT/../sibling/secret", User, Always),
    ("make a file outside", "echo x > $OUT/made", User, Always),
    ("append to a file outside", "echo x >> $OUT/secret", User, Always),
    ("empty a file outside", ": > $OUT/emptied", User, Always),
    ("remove a file outside", "rm $OUT/removed", User, Always),
    ("make a directory outside", "mkdir $OUT/directory", User, Always),
    ("move a file out", "echo x > moved && mv moved $OUT/moved", User, Always),
    ("link a file out", "echo x > linked && ln linked $OUT/linked", User, Always),
    ("read through a link", "ln -sf $OUT/secret link && cat link", User, Always),
    ("write through a link", "ln -sf $OUT/through link2 && echo x > link2", User, Always),
    ("run a program outside", "$OUT/program", User, Always),
    ("change a mode outside", "chmod 600 $OUT/secret && chmod 666 $OUT/secret", Root, Apart),
    ("read the environment of the server", "cat /proc/$SERVER/environ > /dev/null", Root, Always),
    ("read the descriptors of the server", "ls /proc/$SERVER/fd", Root, Always),
    ("read the command line of the server", "cat /proc/$SERVER/cmdline", User, Always),
    ("read the passwords of the system", "cat /etc/shadow", Root, Always),
    ("connect over TCP", "exec 3<>/dev/tcp/127.0.0.1/$TCP", User, Always),
    ("send over UDP", "echo x > /dev/udp/127.0.0.1/$UDP", User, Always),
    ("make a TCP socket", "intruder inet", User, Always),
    ("make a UDP socket of IPv6", "intruder inet6", User, Always),
    ("make a Unix socket", "intruder unix", User, Always),
    ("make a netlink socket", "intruder netlink", User, Always),
    ("make a raw socket", "intruder raw", Root, Always),
    ("make a packet socket", "intruder packet", Root, Always),
    ("make an io_uring", "intruder io_uring", User, Always),
    ("signal the server", "kill -0 $SERVER", Root, Always),
    ("signal a process of the same user", "kill -0 $VICTIM", User, Always),
    ("kill a process of the same user", "kill -9 $SACRIFICE", User, Always),
    ("trace a process", "intruder ptrace $VICTIM", Root, Always),
    ("read the memory of a process", "intruder process_vm_readv $VICTIM", User, Always),
    ("take a descriptor of a process", "intruder pidfd_getfd", User, Always),
    ("compare processes", "intruder kcmp $VICTIM", Root, Always),
    ("see the limits of a process", "intruder prlimit $VICTIM", User, Shared),
    ("slow a process down", "intruder setpriority $VICTIM", User, Shared),
    ("make a user namespace", "intruder unshare", User, Always),
    ("clone into a user namespace", "intruder clone", User, Always),
    ("clone with hidden flags", "intruder clone3", User, Always),
    ("open with hidden flags", "intruder openat2", User, Always),
    ("enter a namespace", "intruder setns", User, Always),
    ("mount", "intruder mount", Root, Always),
    ("unmount", "intruder umount", Root, Always),
    ("open a file system", "intruder fsopen", Root, Always),
    ("clone a mount", "intruder open_tree", Root, Always),
    ("change the root", "intruder chroot", Root, Always),
    ("swap the root", "intruder pivot_root", Root, Always),
    ("use keyrings", "intruder keyctl", User, Always),
    ("add a key", "intruder add_key", User, Always),
    ("load a BPF program", "intruder bpf", Root, Always),
    ("handle page faults", "intruder userfaultfd", User, Always),
    ("count events", "intruder perf_event_open", Root, Always),
    ("open by handle", "intruder open_by_handle_at", Root, Always),
    ("make a handle", "intruder name_to_handle_at", User, Always),
    ("watch file systems", "intruder fanotify_init", User, Always),
    ("switch off randomisation", "intruder personality", User, Always),
    ("stop swapping", "intruder swapoff", Root, Always),
    ("rename the host", "intruder sethostname", Root, Always),
    ("set the clock", "intruder clock", Root, Always),
    ("make a file run as its owner", "touch a && chmod u+s a", User, Always),
    ("make a file run as its group", "touch a && chmod g+s a", User, Always),
    ("the same by number", "intruder chmod_setuid", User, Always),
    ("the same for groups", "intruder chmod_setgid", User, Always),
    ("the same by the new call", "intruder fchmodat2_setuid", User, Always),
    ("make a new file run as its owner", "intruder create_setuid", User, Always),
    ("make a hidden file run as its owner", "intruder tmpfile_setuid", User, Always),
    ("make a block device", "intruder mknod_block && rm -f node", Root, Always),
    ("make a character device", "rm -f node; intruder mknod_char && rm -f node", Root, Always),
    ("type into a terminal", "intruder tiocsti", User, Always),
    ("type into a console", "intruder tioclinux", User, Always),
    ("share memory with other processes", "intruder shmget", User, Shared),
    ("reach queues of other processes", "intruder mq_unlink", User, Shared),
    ("change git's configuration", "echo x >> .git/config", User, Isolated),
    ("add a hook", "echo x > .git/hooks/pre-commit", User, Isolated),
    ("replace git's configuration", "echo x > .git/new && mv .git/new .git/config", User, Isolated),
    ("move the repository away", "mv .git .away && mv .away .git", User, Isolated),
    ("write rules for agents", "mkdir -p .iris && echo x > .iris/rules", User, Isolated),
];

/// Whoever listens outside, and processes that must not be reached.
struct Surroundings {
    tcp: TcpListener,
    udp: UdpSocket,
    victim: Child,
    sacrifice: Child,
}

impl Surroundings {
    fn new(lab: &Lab) -> Self {
        for name in ["emptied", "removed"] {
            lab.open_file(&format!("outside/{name}"), name);
        }
        lab.open_file("outside/program", "#!/bin/sh\nexit 0\n");
        set_mode(&lab.path("outside/program"), 0o777);
        let made = lab.outside("mkdir -p .git/hooks && touch .git/config", true);
        assert!(made.status.success(), "{made:?}");
        Self {
            tcp: TcpListener::bind("127.0.0.1:0").expect("a listener"),
            udp: UdpSocket::bind("127.0.0.1:0").expect("a socket"),
            victim: sleeper(),
            sacrifice: sleeper(),
        }
    }

    /// A line of shell with the names of all of them.
    fn line(&self, line: &str) -> String {
        let (tcp, udp) = (self.tcp.local_addr(), self.udp.local_addr());
        let (tcp, udp) = (tcp.expect("an address").port(), udp.expect("an address").port());
        let intruder = example("intruder").display().to_string();
        format!(
            "SERVER={} VICTIM={} SACRIFICE={} TCP={tcp} UDP={udp}; intruder() {{ {intruder} \"$@\"; }}\n{line}",
            std::process::id(),
            self.victim.id(),
            self.sacrifice.id(),
        )
    }
}

impl Drop for Surroundings {
    fn drop(&mut self) {
        for child in [&mut self.victim, &mut self.sacrifice] {
            child.kill().expect("a process");
            child.wait().expect("an end");
        }
    }
}

/// A process of the user that commands run as.
fn sleeper() -> Child {
    let mut sleep = Process::new("/bin/sleep");
    sleep.arg("99999").stdin(Stdio::null());
    if is_root() {
        sleep.uid(UID).gid(UID);
    }
    sleep.spawn().expect("a process")
}

#[tokio::test(flavor = "multi_thread")]
async fn no_way_out_works_inside_and_each_works_outside() {
    for lab in labs().await {
        let surroundings = Surroundings::new(&lab);
        let mut wrong = Vec::new();
        for (name, line, control, held) in ESCAPES {
            let line = surroundings.line(line);
            let is_held = match held {
                Always => true,
                Isolated => lab.is_isolated(),
                Apart => lab.is_isolated() || is_root(),
                Shared => !lab.is_isolated(),
            };
            if is_held {
                let finished = lab.run(&line).await;
                if finished.status == Status::Exited(0) {
                    wrong.push(format!("{name}: works inside: {}", finished.output.text()));
                }
            }
            // A shell that knows /dev/tcp, as inside.
            let line = format!("exec bash -c '{}'", line.replace('\'', "'\\''"));
            let outside = lab.outside(&line, *control == User);
            if !outside.status.success() && (*control == User || is_root()) {
                wrong.push(format!("{name}: does not work outside: {outside:?}"));
            }
        }
        // Commands are killed by a signal to all processes that they can signal themselves.
        let mut surroundings = surroundings;
        let has_ended = surroundings.victim.try_wait().expect("a process").is_some();
        assert!(!has_ended, "a process outside was killed");
        let tier = lab.sandbox.tier();
        assert!(wrong.is_empty(), "in {tier}:\n{}", wrong.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unix_sockets_outside_are_out_of_reach_even_with_the_network_of_the_host() {
    let Some(lab) = Lab::new().await else { return };
    let name = lab.path("name").display().to_string();
    let address = SocketAddr::from_abstract_name(&name).expect("an address");
    let _abstract = UnixListener::bind_addr(&address).expect("a listener");
    let path = lab.path("outside/socket");
    let _listener = UnixListener::bind(&path).expect("a listener");
    set_mode(&path, 0o777);
    let intruder = example("intruder").display().to_string();
    let network = if lab.is_isolated() { Network::On } else { Network::Off };
    for way in [format!("abstract {name}"), format!("connect {}", path.display())] {
        let line = format!("{intruder} {way}");
        assert!(lab.outside(&line, true).status.success(), "`{way}` does not work outside");
        let mut request = lab.shell(&line);
        request.network = network;
        let finished = lab.sandbox.run(request).await.expect("a run");
        assert_eq!(finished.status, Status::Exited(1), "{way}: {}", finished.output.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_other_architectures_kill_and_unknown_calls_are_absent() {
    let Some(lab) = Lab::new().await else { return };
    let intruder = example("intruder").display().to_string();
    let finished = lab.run(&format!("exec {intruder} unknown")).await;
    assert!(finished.output.text().contains("ENOSYS"), "{}", finished.output.text());
    if cfg!(target_arch = "x86_64") {
        let finished = lab.run(&format!("exec {intruder} x32")).await;
        assert_eq!(finished.status, Status::Signalled(31), "not SIGSYS"); // signal(7)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_run_as_root_for_everybody_gain_nothing() {
    if !is_root() {
        return;
    }
    let tools = tempfile::tempdir().expect("a directory");
    set_mode(tools.path(), 0o755);
    let program = tools.path().join("id");
    std::fs::copy("/usr/bin/id", &program).expect("a copy");
    set_mode(&program, 0o4755);
    for namespaces in [true, false] {
        let mut config = crate::lab::config();
        config.extra_read_only.push(tools.path().to_owned());
        config.namespaces = namespaces;
        let Some(lab) = Lab::with(config).await else { return };
        let line = format!("{} -u", program.display());
        assert_eq!(lab.text(&line).await, UID.to_string());
        assert_eq!(lab.outside(&line, true).stdout, b"0\n");
    }
}
