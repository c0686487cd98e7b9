//! Reading patches and putting them into texts: by example, and by chance.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests fail by panicking, and their helpers too"
)]

mod applying;
mod generated;
mod reading;

use iris_tools::patch::{Applying, Change, Patch, PatchError, parse};

/// The text with the hunks of the one file of `patch` in it.
fn applied(text: &str, patch: &Patch<'_>) -> Result<String, PatchError> {
    let [file] = patch.files.as_slice() else { panic!("{patch:?}") };
    let (Change::Update { hunks, .. } | Change::Delete { hunks }) = &file.change else {
        panic!("{file:?}")
    };
    let mut applying = Applying::new(text, hunks)?;
    for hunk in hunks {
        applying.hunk(hunk)?;
    }
    Ok(applying.finish())
}

/// Hunks in an envelope for one file.
fn enveloped(hunks: &str) -> String {
    format!("*** Begin Patch\n*** Update File: f\n{hunks}*** End Patch\n")
}

fn apply(text: &str, patch: &str) -> Result<String, PatchError> {
    applied(text, &parse(patch)?)
}
