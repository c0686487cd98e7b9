//! Doing what was planned, step by step.

use serde_json::{Value, json};

use super::plan::Step;
use crate::builtin::{counted, written};
use crate::context::ToolContext;
use crate::error::ToolError;
use crate::output::{FileChange, ToolOutput};

/// What has been done.
#[derive(Default)]
struct Done {
    lines: Vec<String>,
    written: Vec<FileChange>,
    deleted: Vec<String>,
}

/// Does all steps.
///
/// Once a file is written, a failure is an answer and not an error: what was written is on the disk and
/// has to be recorded, and the answer says what was not done.
///
/// # Errors
///
/// What the first step failed of; nothing was changed then.
pub(super) fn perform(ctx: &ToolContext, steps: &[Step]) -> Result<ToolOutput, ToolError> {
    if steps.is_empty() {
        let metadata = metadata(&Done::default(), &Value::Null, &[]);
        return Ok(ToolOutput::new("the files are already as the patch makes them", metadata));
    }
    let mut done = Done::default();
    let mut left = steps.iter();
    while let Some(step) = left.next() {
        match take(ctx, step, &mut done) {
            Ok(()) => {}
            Err(error) if done.lines.is_empty() => return Err(error),
            Err(error) => {
                let left: Vec<&str> = left.map(Step::path).collect();
                return Ok(partial(done, step, &error, &left));
            }
        }
    }
    let files = counted(done.lines.len(), "file");
    let output = format!("applied the patch, {files}:\n{}", done.lines.join("\n"));
    Ok(answer(done, &output, &Value::Null, &[]))
}

fn take(ctx: &ToolContext, step: &Step, done: &mut Done) -> Result<(), ToolError> {
    let outcome = match step {
        Step::Create { path, content, like } => {
            ctx.workspace.write_if_absent(path, content, like.as_deref())?
        }
        Step::Replace { path, content, known_hash } => {
            ctx.workspace.write_if_unchanged(path, content, known_hash)?
        }
        Step::Remove { path, known_hash } => {
            ctx.workspace.remove_if_unchanged(path, known_hash)?;
            done.lines.push(format!("deleted `{path}`"));
            done.deleted.push(path.clone());
            return Ok(());
        }
    };
    let change = written(ctx, outcome);
    let verb = if change.created { "created" } else { "changed" };
    done.lines.push(format!("{verb} `{}`", change.path));
    done.written.push(change);
    Ok(())
}

fn partial(done: Done, step: &Step, error: &ToolError, left: &[&str]) -> ToolOutput {
    let path = step.path();
    let mut lines = vec![format!("the patch was applied only in part: `{path}` failed: {error}")];
    lines.push("done:".to_owned());
    lines.extend(done.lines.iter().cloned());
    lines.push("not done:".to_owned());
    lines.extend([path].iter().chain(left).map(|path| format!("`{path}`")));
    let failed = json!({"path": path, "error": error.to_string()});
    answer(done, &lines.join("\n"), &failed, left)
}

fn answer(done: Done, output: &str, failed: &Value, left: &[&str]) -> ToolOutput {
    let output = ToolOutput::new(output, metadata(&done, failed, left));
    done.written.into_iter().fold(output, ToolOutput::with_change)
}

/// `written`, `deleted`, `failed` (null when nothing did) and `notDone`, what came behind that.
fn metadata(done: &Done, failed: &Value, left: &[&str]) -> Value {
    let written = done
        .written
        .iter()
        .map(|change| json!({"path": change.path, "created": change.created, "hash": change.hash}));
    let written: Vec<Value> = written.collect();
    json!({"written": written, "deleted": done.deleted, "failed": failed, "notDone": left})
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use iris_agent::permissions::Judge;
    use iris_protocol::SessionMode;
    use iris_workspace::Workspace;

    use super::super::plan::plan;
    use super::*;
    use crate::ReadLog;

    const PATCH: &str = "*** Begin Patch\n*** Add File: a\n+new\n*** Update File: b\n-old\n+new\n\
                         *** Update File: c\n-old\n+new\n*** Delete File: d\n*** End Patch";

    /// Plans [`PATCH`], lets `between` change the files, and performs the plan.
    fn performed(between: impl Fn(&std::path::Path)) -> (String, Result<ToolOutput, ToolError>) {
        let temp = tempfile::tempdir().unwrap();
        for name in ["b", "c", "d"] {
            std::fs::write(temp.path().join(name), "old\n").unwrap();
        }
        let workspace = Workspace::open(temp.path()).unwrap();
        let judge = Arc::new(Judge::new(SessionMode::Default, vec![]));
        let ctx = ToolContext::new(workspace, Arc::new(ReadLog::new()), judge);
        let steps = plan(&ctx, &crate::patch::parse(PATCH).unwrap()).unwrap();
        between(temp.path());
        let performed = perform(&ctx, &steps);
        let contents = ["a", "b", "c", "d"].map(|name| {
            let content = std::fs::read_to_string(temp.path().join(name));
            format!("{name}={} ", content.as_deref().unwrap_or("none").trim_end())
        });
        (contents.concat(), performed)
    }

    #[test]
    fn a_file_that_changes_in_between_ends_it_with_a_word_on_what_was_done() {
        let (contents, performed) = performed(|path| {
            std::fs::write(path.join("c"), "theirs\n").unwrap();
        });
        assert_eq!(contents, "a=new b=new c=theirs d=old ");
        let output = performed.unwrap();
        let expected = "the patch was applied only in part: `c` failed: `c` was changed by somebody \
                        else\ndone:\ncreated `a`\nchanged `b`\nnot done:\n`c`\n`d`";
        assert_eq!(output.output, expected);
        let written: Vec<_> = output.changes.iter().map(|change| change.path.as_str()).collect();
        assert_eq!(written, ["a", "b"]);
        assert_eq!(output.metadata["deleted"], json!([]));
        assert_eq!(output.metadata["failed"]["path"], "c");
        assert_eq!(output.metadata["notDone"], json!(["d"]));
    }

    #[test]
    fn a_removal_that_fails_leaves_what_was_written_and_says_so() {
        let (contents, performed) = performed(|path| {
            std::fs::write(path.join("d"), "theirs\n").unwrap();
        });
        assert_eq!(contents, "a=new b=new c=new d=theirs ");
        let output = performed.unwrap();
        assert!(output.output.ends_with("\nnot done:\n`d`"), "{}", output.output);
        assert_eq!(output.changes.len(), 3);
    }

    #[test]
    fn a_first_step_that_fails_is_an_error_and_nothing_was_done() {
        let (contents, performed) = performed(|path| {
            std::fs::write(path.join("a"), "theirs\n").unwrap();
        });
        assert_eq!(contents, "a=theirs b=old c=old d=old ");
        assert_eq!(performed.unwrap_err().to_string(), "`a` was changed by somebody else");
    }
}
