//! `sed`, whose scripts can run programs and write files: only those that print are read.

use super::Call;
use crate::piece::{Piece, Reason};

/// Options that change neither files nor what a script may do.
const FLAGS: &[&str] =
    &["-n", "-E", "-r", "--quiet", "--silent", "--regexp-extended", "-ne", "-nE"];

/// The piece of a call of `sed`.
pub(super) fn pieces(call: &Call<'_>) -> Option<Vec<Piece>> {
    if call.name != "sed" && call.name != "gsed" {
        return None;
    }
    let is_flag = |word: &&String| FLAGS.contains(&word.as_str());
    let flags = call.arguments.iter().take_while(is_flag).count();
    let rest = call.arguments.get(flags..).unwrap_or_default();
    let is_read = rest.split_first().is_some_and(|(script, files)| {
        only_prints(script) && !files.iter().any(|file| file.starts_with('-'))
    });
    Some(vec![if is_read { call.command() } else { call.opaque(Reason::ProgramText) }])
}

/// Whether `script` is a list of `p`, `d`, `q` and `=` behind numbers of lines: `1,20p;$=`.
fn only_prints(script: &str) -> bool {
    script.split(';').all(|part| {
        let part = part.trim();
        let Some(addresses) = part.strip_suffix(['p', 'd', 'q', '=']) else { return false };
        let mut addresses = addresses.split(',');
        let is_address = |text: &str| {
            text.is_empty() || text == "$" || text.bytes().all(|byte| byte.is_ascii_digit())
        };
        addresses.by_ref().take(2).all(is_address) && addresses.next().is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scripts_of_line_numbers_print() {
        for script in ["1,20p", "5p", "$p", "1d;2p", "p", "10q", "$="] {
            assert!(only_prints(script), "{script}");
        }
        for script in ["1e rm", "w x", "s/a/b/", "s/a/b/e", "/x/p", "1,2,3p", "", "r x", "1p w"] {
            assert!(!only_prints(script), "{script}");
        }
    }
}
