//! What becomes of what a command prints (C8).

use iris_sandbox::Status;
use tokio::sync::mpsc;

use crate::lab::{Lab, labs};

#[tokio::test(flavor = "multi_thread")]
async fn both_outputs_come_in_the_order_they_were_written() {
    for lab in labs().await {
        let line = "for i in 1 2 3; do echo out $i; echo err $i >&2; done";
        assert_eq!(lab.text(line).await, "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_output_is_read_to_the_end_and_its_ends_are_kept() {
    let Some(lab) = Lab::new().await else { return };
    let mut request = lab.shell("echo first; yes | head -c 300M; echo last");
    request.output_bytes_max = 1024;
    let finished = lab.sandbox.run(request).await.expect("a run");
    let output = finished.output;
    assert_eq!(finished.status, Status::Exited(0));
    assert_eq!(output.bytes_total, 300 * 1024 * 1024 + 11);
    assert_eq!((output.head.len(), output.tail.len()), (512, 512));
    assert!(output.head.starts_with(b"first\ny\n") && output.tail.ends_with(b"y\nlast\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_long_line_of_anything_can_be_shown() {
    let Some(lab) = Lab::new().await else { return };
    let mut request =
        lab.shell("head -c 50M /dev/zero | tr '\\0' '\\377'; printf '\\033[31mred\\033[0m'");
    request.output_bytes_max = 100;
    let finished = lab.sandbox.run(request).await.expect("a run");
    assert_eq!(finished.output.bytes_total, 50 * 1024 * 1024 + 12);
    let text = finished.output.text();
    assert!(text.starts_with('\u{fffd}') && text.ends_with("red"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn output_can_be_heard_as_it_comes() {
    for lab in labs().await {
        // Goes on when it has been heard, and not before.
        let mut request = lab.shell("echo one; until test -e heard; do sleep 0.01; done; echo two");
        let (progress, mut pieces) = mpsc::channel(16);
        request.progress = Some(progress);
        let heard = lab.path("project/heard");
        let listening = async move {
            let mut all = pieces.recv().await.expect("a piece");
            assert_eq!(all, b"one\n");
            std::fs::write(heard, "").expect("a file");
            while let Some(piece) = pieces.recv().await {
                all.extend(piece);
            }
            all
        };
        let (finished, all) = tokio::join!(lab.sandbox.run(request), listening);
        assert_eq!(finished.expect("a run").output.head, all);
        assert_eq!(all, b"one\ntwo\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_listen_holds_up_nothing() {
    let Some(lab) = Lab::new().await else { return };
    let mut request = lab.shell("head -c 10M /dev/zero");
    let (progress, pieces) = mpsc::channel(1);
    request.progress = Some(progress);
    let finished = lab.sandbox.run(request).await.expect("a run");
    assert_eq!(finished.output.bytes_total, 10 * 1024 * 1024);
    drop(pieces);
}
