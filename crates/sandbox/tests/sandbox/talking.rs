//! Commands that are talked to while they run.

use iris_sandbox::{Command, SandboxError, Status, Talk};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::time::timeout;

use crate::ending::{Alive, SURVIVAL_MAX, TREE};
use crate::lab::{Lab, PATIENCE, labs};

fn open(lab: &Lab, line: &str) -> Talk {
    lab.sandbox.open(lab.shell(line)).expect("a command")
}

async fn ended(talk: &mut Talk) -> Result<Status, SandboxError> {
    timeout(PATIENCE, talk.running.ended()).await.expect("an end")
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_go_in_and_come_out_by_ways_of_their_own() {
    for lab in labs().await {
        let line =
            "while read -r word; do echo \"got $word\"; echo \"and $word\" >&2; done; exit 3";
        let mut talk = open(&lab, line);
        let mut answers = BufReader::new(&mut talk.stdout).lines();
        for word in ["one", "two"] {
            talk.stdin.write_all(format!("{word}\n").as_bytes()).await.expect("a reader");
            let answer = timeout(PATIENCE, answers.next_line()).await.expect("an answer");
            assert_eq!(answer.expect("a pipe"), Some(format!("got {word}")));
        }
        // The end of the input is seen inside.
        talk.stdin = Box::new(tokio::io::sink());
        assert!(matches!(ended(&mut talk).await, Ok(Status::Exited(3))));
        let mut errors = String::new();
        talk.stderr.read_to_string(&mut errors).await.expect("a pipe");
        assert_eq!(errors, "and one\nand two\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_when_a_talk_is_dropped() {
    for lab in labs().await {
        let mut alive = Alive::new(&lab);
        let talk = open(&lab, &format!("{TREE} wait"));
        alive.up().await;
        drop(talk);
        let lived = alive.gone().await;
        assert!(lived < SURVIVAL_MAX, "{lived:?} in {}", lab.sandbox.tier());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn children_that_it_leaves_end_with_it_though_its_pipes_are_open() {
    for lab in labs().await {
        let mut alive = Alive::new(&lab);
        let mut talk = open(&lab, &format!("{TREE} read -r word; exit 5"));
        alive.up().await;
        talk.stdin.write_all(b"go\n").await.expect("a reader");
        assert!(matches!(ended(&mut talk).await, Ok(Status::Exited(5))));
        let lived = alive.gone().await;
        assert!(lived < SURVIVAL_MAX, "{lived:?} in {}", lab.sandbox.tier());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_talk_is_behind_the_same_walls_without_a_limit_of_processor_time() {
    for lab in labs().await {
        let line = "cat $OUT/secret 2>/dev/null && echo read; ulimit -t; ulimit -d";
        let mut talk = open(&lab, line);
        let mut text = String::new();
        talk.stdout.read_to_string(&mut text).await.expect("a pipe");
        assert_eq!(text, format!("unlimited\n{}\n", 4 * 1024 * 1024));
        assert!(matches!(ended(&mut talk).await, Ok(Status::Exited(0))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_is_told_and_what_makes_no_sense_is_refused() {
    for lab in labs().await {
        let mut request = lab.shell("true");
        request.command = Command::Arguments(vec!["no-such-program".to_owned()]);
        let mut talk = lab.sandbox.open(request).expect("a launcher");
        match ended(&mut talk).await {
            Err(SandboxError::Program { program, .. }) => assert_eq!(program, "no-such-program"),
            other => panic!("{other:?}"),
        }
        let mut request = lab.shell("true");
        request.stdin = Some(Vec::new());
        let refused = lab.sandbox.open(request);
        assert!(matches!(refused, Err(SandboxError::InvalidRequest { .. })));
    }
}
