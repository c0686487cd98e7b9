//! Where the tests run their commands.
use iris_sandbox::*;
#[tokio::test]
async fn first() {
    let d = tempfile::tempdir_in("/tmp").unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(d.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    for n in ["p", "s"] { std::fs::create_dir(d.path().join(n)).unwrap(); share_directory(&d.path().join(n), 10999, 10999).unwrap(); }
    let exe = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("examples/launcher");
    let s = Sandbox::start(Config { uid: Some(10999), launcher: Some(exe), ..Config::default() }).await;
    println!("{:?} {:#?}", s.tier(), s.missing());
    let r = s.run(Request::new(Command::Shell("id; pwd; ls -la / /dev /etc; ls -la; mount; ps aux; cat /proc/self/status | grep -E 'Cap|Sec|NoNew'; ulimit -a; env; echo hi > x; cat x".into()), d.path().join("p"), d.path().join("s"))).await;
    match r { Ok(f) => println!("{:?} {:?}\n{}", f.status, f.duration, f.output.text()), Err(e) => println!("{e:?}") }
}
