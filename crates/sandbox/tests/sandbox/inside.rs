//! What a command finds inside (T2, C14), and what it can be given.

use std::fs::File;
use std::os::fd::AsRawFd as _;

use iris_sandbox::{Command, Network, STDIN_BYTES_MAX, Status};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::lab::{Lab, UID, example, is_root, labs};

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_made_and_not_inherited() {
    for lab in labs().await {
        let mut request = lab.shell("env");
        request.env.push(("LANG".to_owned(), "de_DE".to_owned()));
        let text = lab.sandbox.run(request).await.expect("a run").output.text();
        let scratch = lab.path("scratch").display().to_string();
        let mut names: Vec<&str> = Vec::new();
        for line in text.lines() {
            let (name, value) = line.split_once('=').expect("a variable");
            match name {
                "HOME" | "TMPDIR" => assert_eq!(value, scratch),
                "TERM" => assert_eq!(value, "dumb"),
                "GIT_TERMINAL_PROMPT" => assert_eq!(value, "0"),
                "LANG" => assert_eq!(value, "de_DE"),
                _ => {}
            }
            names.push(name);
        }
        names.sort_unstable();
        let expected = [
            "CI",
            "DEBIAN_FRONTEND",
            "GIT_CONFIG_NOSYSTEM",
            "GIT_PAGER",
            "GIT_TERMINAL_PROMPT",
            "HOME",
            "LANG",
            "OUT",
            "PAGER",
            "PATH",
            "PWD",
            "SHLVL",
            "TERM",
            "TMPDIR",
            "_",
        ];
        assert_eq!(names, expected);
    }
    // Cargo gives its tests a lot.
    assert!(std::env::vars().count() > 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn descriptors_of_the_server_are_closed_though_it_leaves_them_open() {
    let file = File::open("/proc/self/status").expect("a file");
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).expect("a descriptor");
    let number = file.as_raw_fd();
    for lab in labs().await {
        // Reads nothing, but only if it is open.
        let line = format!("head -c 0 <&{number}");
        assert_ne!(lab.run(&line).await.status, Status::Exited(0));
        let outside = lab.outside(&format!("exec bash -c '{line}'"), false);
        assert!(outside.status.success(), "{outside:?}");
        if lab.is_isolated() {
            // The last one is that of `ls` itself.
            assert_eq!(lab.text("echo $(ls /proc/self/fd)").await, "0 1 2 3");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_an_ordinary_user_without_groups_and_capabilities() {
    for lab in labs().await {
        if is_root() {
            assert_eq!(lab.text("id -u; id -g; id -G").await, format!("{UID}\n{UID}\n{UID}"));
        }
        let outside = lab.outside("grep CapEff /proc/self/status", false);
        let shown = String::from_utf8(outside.stdout).expect("text");
        assert_eq!(shown.contains("0000000000000000"), !is_root(), "{shown}");
        if lab.is_isolated() {
            let line = "grep -E '^(Cap(Inh|Prm|Eff|Amb)|NoNewPrivs|Seccomp):' /proc/self/status";
            let zeros = "0000000000000000";
            let expected = format!(
                "CapInh:\t{zeros}\nCapPrm:\t{zeros}\nCapEff:\t{zeros}\nCapAmb:\t{zeros}\nNoNewPrivs:\t1\nSeccomp:\t2"
            );
            assert_eq!(lab.text(line).await, expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_waits_for_a_person() {
    for lab in labs().await {
        assert_eq!(lab.text("cat; read -r line; echo \"$?\"").await, "1");
        for line in ["tty", "echo x > /dev/tty", "test -t 0", "test -t 1", "test -t 2"] {
            assert_ne!(lab.run(line).await.status, Status::Exited(0), "{line}");
        }
        // A leader of a session has one that begins with it, and no terminal.
        assert_eq!(lab.text("ps -o tty= -p $$ 2>/dev/null || echo '?'").await, "?");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn git_asks_nobody_for_a_password() {
    let Some(lab) = Lab::new().await else { return };
    let line = "command -v git || exit 99; git -c credential.helper= credential fill 2>&1";
    let mut request = lab.shell(line);
    request.stdin = Some(b"protocol=https\nhost=example.com\n\n".to_vec());
    let finished = lab.sandbox.run(request).await.expect("a run");
    let text = finished.output.text();
    let is_absent = finished.status == Status::Exited(99);
    assert!(is_absent || text.contains("terminal prompts disabled"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn input_is_given_whole_and_once() {
    for lab in labs().await {
        for length in [0, 1, 100_000, STDIN_BYTES_MAX] {
            let mut request = lab.shell("wc -c; wc -c");
            request.stdin = Some(vec![b'x'; length]);
            let finished = lab.sandbox.run(request).await.expect("a run");
            assert_eq!(finished.output.text(), format!("{length}\n0\n"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_are_passed_as_they_are() {
    for lab in labs().await {
        let arguments = ["printf", "%s|", "a b", "$HOME", "'\"\\", "", "\u{1b}ü"];
        let mut request = lab.shell("");
        request.command = Command::Arguments(arguments.map(str::to_owned).to_vec());
        let finished = lab.sandbox.run(request).await.expect("a run");
        assert_eq!(finished.output.head, "a b|$HOME|'\"\\||\u{1b}ü|".as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_can_do_its_work() {
    for lab in labs().await {
        let lines = [
            ("echo a > f && cat f && mv f g && rm g", "a"),
            (
                "mkdir -p a/b && echo x > a/b/c && rm -r a && ls -A | grep -v '^[.]iris$' | wc -l",
                "0",
            ),
            ("t=$(mktemp) && echo y > $t && cat $t", "y"),
            ("cd && pwd -P > p && cat p | grep -c scratch", "1"),
            ("printf '#!/bin/sh\\necho run' > s && chmod 755 s && ./s", "run"),
            ("cat <(echo substituted)", "substituted"),
            ("echo x > /dev/null && head -c 4 /dev/urandom | wc -c", "4"),
            ("set -o pipefail; seq 100000 | sort -rn | head -1 2>/dev/null || :", "100000"),
            ("ln -s nowhere l && test -L l && rm l && mkfifo q && rm q && echo ok", "ok"),
            ("grep -c MemTotal /proc/meminfo", "1"),
            ("getent passwd root | cut -d: -f1", "root"),
        ];
        for (line, expected) in lines {
            assert_eq!(lab.text(line).await, expected, "`{line}` in {}", lab.sandbox.tier());
        }
        if lab.is_isolated() {
            // A directory of names when what is given to commands lies there.
            if !example("launcher").starts_with("/tmp") {
                assert_eq!(lab.text("echo z > /tmp/z && cat $TMPDIR/z").await, "z");
            }
            assert_eq!(lab.text("ls / | grep -cE '^(usr|proc|dev|etc)$'").await, "4");
            assert_eq!(lab.text("ps -e --no-headers | wc -l | tr -d ' '").await.len(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn loopback_is_a_network_of_its_own() {
    let Some(lab) = Lab::new().await else { return };
    if !lab.is_isolated() {
        let mut request = lab.shell("true");
        request.network = Network::Loopback;
        let refused = lab.sandbox.run(request).await;
        assert!(matches!(refused, Err(iris_sandbox::SandboxError::NetworkUnavailable { .. })));
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let connect = format!("exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected");
    let run = async |network, line: &str| {
        let mut request = lab.shell(line);
        request.network = network;
        lab.sandbox.run(request).await.expect("a run")
    };
    // The host's is reached with the network of the host alone.
    assert_eq!(run(Network::On, &connect).await.output.text(), "connected\n");
    for network in [Network::Loopback, Network::Off] {
        let finished = run(network, &connect).await;
        assert_eq!(finished.status, Status::Exited(1), "{network:?}");
    }
    let interfaces =
        run(Network::Loopback, "cat /proc/net/dev | grep -c :; grep -c lo: /proc/net/dev").await;
    assert_eq!(interfaces.output.text(), "1\n1\n");
    // To itself over its own: nobody listens, which only an interface that is up can say.
    let itself = run(Network::Loopback, "echo x > /dev/tcp/127.0.0.1/9").await.output.text();
    assert!(itself.contains("Connection refused"), "{itself}");
    for refused in ["raw", "packet", "vsock", "alg", "netlink_audit"] {
        let line = format!("{} {refused}", example("intruder").display());
        assert_eq!(run(Network::On, &line).await.status, Status::Exited(1), "{refused}");
    }
    for allowed in ["inet", "inet6", "unix", "netlink"] {
        let line = format!("{} {allowed}", example("intruder").display());
        assert_eq!(run(Network::Loopback, &line).await.status, Status::Exited(0), "{allowed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_do_not_see_each_other() {
    for lab in labs().await {
        let mut request = lab.shell("echo $$; sleep 99999");
        let (progress, mut pieces) = tokio::sync::mpsc::channel(4);
        let (cancel, cancelled) = tokio::sync::oneshot::channel();
        (request.progress, request.cancel) = (Some(progress), Some(cancelled));
        let other = async {
            pieces.recv().await.expect("a number");
            // Whoever it is: the processes of the other one have the same user.
            let line = format!(
                "for p in $(seq 1 {}); do kill -9 $p 2>/dev/null && echo $p; done; exit 0",
                std::fs::read_to_string("/proc/sys/kernel/ns_last_pid").expect("a number").trim()
            );
            let text = lab.run(&line).await.output.text();
            cancel.send(()).expect("a run that still runs");
            text
        };
        let (finished, killed) = tokio::join!(lab.sandbox.run(request), other);
        assert_eq!(finished.expect("a run").status, Status::Cancelled);
        assert!(killed.lines().count() <= 1, "killed {killed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_lets_be_read_is_read_and_not_written() {
    for lab in labs().await {
        let line = "cat $OUT/secret; echo changed > $OUT/secret";
        assert!(!lab.run(line).await.output.text().starts_with("secret"));
        let mut request = lab.shell(line);
        request.read_only = vec![lab.path("outside"), lab.path("nothing")];
        let finished = lab.sandbox.run(request).await.expect("a run");
        assert!(finished.output.text().starts_with("secret"), "{finished:?}");
        assert_eq!(std::fs::read_to_string(lab.path("outside/secret")).expect("a file"), "secret");
    }
}
