//! Writing a patch down again.

use std::fmt::Write;

use iris_tools::patch::{Change, FilePatch, Hunk, LineKind, PATCH_BYTES_MAX, Patch, parse};

/// What a patch says is what is read of it when it is written down in the form of `*** Begin Patch`, if that
/// form can say it.
pub(crate) fn reads_back(patch: &Patch<'_>) {
    let Some(text) = enveloped(patch).filter(|text| text.len() <= PATCH_BYTES_MAX) else { return };
    match parse(&text) {
        Ok(again) => assert_eq!(without_lines(&again), without_lines(patch), "{text:?}"),
        Err(error) => panic!("{error}: {text:?} of {patch:?}"),
    }
}

fn enveloped(patch: &Patch<'_>) -> Option<String> {
    let mut text = "*** Begin Patch\n".to_owned();
    for FilePatch { path, change, .. } in &patch.files {
        match change {
            Change::Create { content } => {
                // A last line without an end cannot be said.
                if !content.is_empty() && !content.ends_with('\n') {
                    return None;
                }
                writeln!(text, "*** Add File: {path}").ok()?;
                for line in content.split_terminator('\n') {
                    writeln!(text, "+{line}").ok()?;
                }
            }
            Change::Delete { hunks } if hunks.is_empty() => {
                writeln!(text, "*** Delete File: {path}").ok()?;
            }
            // What was in a file that goes cannot be said.
            Change::Delete { .. } => return None,
            Change::Update { move_to, hunks } => {
                writeln!(text, "*** Update File: {path}").ok()?;
                if let Some(to) = move_to {
                    writeln!(text, "*** Move to: {to}").ok()?;
                }
                hunks.iter().try_for_each(|hunk| push_hunk(&mut text, hunk))?;
            }
        }
    }
    text.push_str("*** End Patch\n");
    Some(text)
}

fn push_hunk(text: &mut String, hunk: &Hunk<'_>) -> Option<()> {
    text.push_str("@@\n");
    for heading in &hunk.headings {
        writeln!(text, "@@ {heading}").ok()?;
    }
    if let Some(at) = hunk.at {
        writeln!(text, "@@ -{} +1 @@", at.checked_add(1)?).ok()?;
    }
    for line in &hunk.lines {
        if !line.has_end {
            return None;
        }
        let mark = match line.kind {
            LineKind::Keep => ' ',
            LineKind::Remove => '-',
            LineKind::Add => '+',
        };
        writeln!(text, "{mark}{}", line.text).ok()?;
    }
    if hunk.is_at_end {
        text.push_str("*** End of File\n");
    }
    Some(())
}

/// The patch as it would be if all of it stood on one line.
fn without_lines<'a>(patch: &Patch<'a>) -> Patch<'a> {
    let mut patch = patch.clone();
    for file in &mut patch.files {
        file.line = 0;
        match &mut file.change {
            Change::Create { .. } => {}
            Change::Delete { hunks } | Change::Update { hunks, .. } => {
                for hunk in hunks {
                    hunk.line = 0;
                }
            }
        }
    }
    patch
}
