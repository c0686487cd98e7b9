//! What git says, in the forms that it promises to programs.

use std::collections::BTreeSet;

use iris_protocol::limits::{GIT_ENTRIES_MAX, GIT_MESSAGE_BYTES_MAX};
use iris_protocol::{
    GitBranch, GitCommitInfo, GitFile, GitFileStat, GitFileState, GitPerson, GitStatusInfo,
};

use super::check_branch;

/// One commit of [`commits`], ended by a null: no line but those of the message can be of several.
pub(super) const COMMIT_FORMAT: &str = "--format=%H%n%P%n%an%n%ae%n%at%n%cn%n%ce%n%ct%n%B";
/// One branch of [`branches`] in a line.
pub(super) const BRANCH_FORMAT: &str = "--format=%(HEAD) %(objectname) %(refname)";

/// Whether a text is the hash of an object.
pub(super) fn is_hash(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The pieces between nulls, as text; the last one of an output that was cut off is not whole.
fn pieces(output: &[u8], is_cut: bool) -> Vec<String> {
    let mut pieces: Vec<_> = output
        .split(|byte| *byte == 0)
        .map(|piece| String::from_utf8_lossy(piece).into_owned())
        .collect();
    let last = pieces.pop();
    // What is behind the last null is nothing, or not whole, or was not ended by one.
    pieces.extend(last.filter(|last| !last.is_empty() && !is_cut));
    pieces
}

/// The paths of a list between nulls, byte by byte.
pub(super) fn paths(output: &[u8]) -> BTreeSet<Vec<u8>> {
    let paths = output.split(|byte| *byte == 0).filter(|path| !path.is_empty());
    paths.map(<[u8]>::to_vec).collect()
}

/// Of `git status --porcelain=v2 -z --branch --no-renames`.
pub(super) fn status(output: &[u8], is_cut: bool) -> GitStatusInfo {
    let mut status = GitStatusInfo {
        branch: None,
        commit: None,
        ahead: None,
        behind: None,
        files: Vec::new(),
        truncated: is_cut,
    };
    for piece in pieces(output, is_cut) {
        if let Some(head) = piece.strip_prefix("# branch.head ") {
            // What git says where none is checked out could be the name of one.
            let is_name = head != "(detached)" && check_branch("branch", head).is_ok();
            status.branch = is_name.then(|| head.to_owned());
        } else if let Some(commit) = piece.strip_prefix("# branch.oid ") {
            status.commit = is_hash(commit).then(|| commit.to_owned());
        } else if let Some(file) = file(&piece) {
            if status.files.len() == GIT_ENTRIES_MAX {
                status.truncated = true;
                break;
            }
            status.files.push(file);
        }
    }
    status
}

fn file(piece: &str) -> Option<GitFile> {
    let (kind, rest) = piece.split_once(' ')?;
    let file = |path: &str, state, staged| Some(GitFile { path: path.to_owned(), state, staged });
    match kind {
        "?" => file(rest, GitFileState::Untracked, false),
        // XY sub mH mI mW hH hI path
        "1" => {
            let (marks, _) = rest.split_once(' ')?;
            let mut marks = marks.chars();
            let (index, tree) = (marks.next()?, marks.next()?);
            let state = match (index, tree) {
                (_, 'D') | ('D', _) => GitFileState::Deleted,
                ('A', _) | (_, 'A') => GitFileState::Added,
                _ => GitFileState::Modified,
            };
            file(rest.splitn(8, ' ').nth(7)?, state, index != '.')
        }
        // XY sub m1 m2 m3 mW h1 h2 h3 path
        "u" => file(rest.splitn(10, ' ').nth(9)?, GitFileState::Conflicted, false),
        _ => None,
    }
}

/// Of `git diff --numstat -z --no-renames`, and whether there are more.
pub(super) fn stats(output: &[u8], is_cut: bool) -> (Vec<GitFileStat>, bool) {
    let mut stats: Vec<_> = pieces(output, is_cut)
        .iter()
        .filter_map(|piece| {
            let mut parts = piece.splitn(3, '\t');
            let (insertions, deletions) = (parts.next()?, parts.next()?);
            let (insertions, deletions) = (insertions.parse().ok(), deletions.parse().ok());
            Some(GitFileStat { path: parts.next()?.to_owned(), insertions, deletions })
        })
        .collect();
    let is_cut = is_cut || stats.len() > GIT_ENTRIES_MAX;
    stats.truncate(GIT_ENTRIES_MAX);
    (stats, is_cut)
}

/// Of `git log -z` with [`COMMIT_FORMAT`].
pub(super) fn commits(output: &[u8], is_cut: bool) -> Vec<GitCommitInfo> {
    let mut pieces = pieces(output, false);
    // One that is not whole is better than none at all.
    if is_cut && pieces.len() > 1 {
        pieces.pop();
    }
    pieces.iter().filter_map(|piece| commit(piece)).collect()
}

fn commit(piece: &str) -> Option<GitCommitInfo> {
    let mut lines = piece.splitn(9, '\n');
    let id = lines.next().filter(|id| is_hash(id))?.to_owned();
    let parents = lines.next()?.split_whitespace().map(str::to_owned).collect();
    let mut person = || {
        let (name, email, at) = (lines.next()?, lines.next()?, lines.next()?);
        let at = at.parse::<i64>().unwrap_or_default().saturating_mul(1_000);
        Some(GitPerson { name: name.to_owned(), email: email.to_owned(), at })
    };
    let (author, committer) = (person()?, person()?);
    let message = lines.next().unwrap_or_default().trim_end();
    let message = message.get(..message.floor_char_boundary(GIT_MESSAGE_BYTES_MAX));
    let message = message.unwrap_or_default().to_owned();
    Some(GitCommitInfo { id, parents, author, committer, message })
}

/// Of `git for-each-ref` with [`BRANCH_FORMAT`], and whether there are more.
pub(super) fn branches(output: &[u8], is_cut: bool) -> (Vec<GitBranch>, bool) {
    let text = String::from_utf8_lossy(output);
    let mut branches: Vec<_> = text.lines().filter_map(branch).collect();
    let is_cut = is_cut || branches.len() > GIT_ENTRIES_MAX;
    branches.truncate(GIT_ENTRIES_MAX);
    (branches, is_cut)
}

fn branch(line: &str) -> Option<GitBranch> {
    let current = line.starts_with('*');
    let (commit, name) = line.get(2..)?.split_once(' ')?;
    let (name, remote) = match name.strip_prefix("refs/remotes/origin/") {
        Some(name) => (name, true),
        None => (name.strip_prefix("refs/heads/")?, false),
    };
    let is_branch = is_hash(commit) && name != "HEAD";
    let (name, commit) = (name.to_owned(), commit.to_owned());
    is_branch.then_some(GitBranch { name, remote, current, commit })
}

/// How many files `git ls-tree -r -l -z` lists, and their bytes.
pub(super) fn tree(output: &[u8]) -> (u64, u64) {
    let sizes = output.split(|byte| *byte == 0).filter_map(|entry| {
        let facts = entry.split(|byte| *byte == b'\t').next()?;
        let text = std::str::from_utf8(facts).ok()?;
        // Of a submodule there is none.
        Some(text.split_whitespace().nth(3)?.parse::<u64>().unwrap_or_default())
    });
    sizes.fold((0, 0), |(count, bytes), size| (count + 1, u64::saturating_add(bytes, size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "0123456789012345678901234567890123456789";

    #[test]
    fn a_status_is_read_with_odd_names() {
        let text = format!(
            "# branch.oid {HASH}\0# branch.head main\0\
             1 .M N... 100644 100644 100644 {HASH} {HASH} a b\nc\0\
             1 A. N... 000000 100644 100644 {HASH} {HASH} new\0\
             1 .D N... 100644 100644 000000 {HASH} {HASH} gone\0\
             u UU N... 100644 100644 100644 100644 {HASH} {HASH} {HASH} both\0? -odd\0"
        );
        let detached = text.replace("head main", "head (detached)");
        assert_eq!(super::status(detached.as_bytes(), false).branch, None);
        let status = status(text.as_bytes(), false);
        assert_eq!(
            (status.branch.as_deref(), status.commit.as_deref()),
            (Some("main"), Some(HASH))
        );
        let found: Vec<_> =
            status.files.iter().map(|it| (it.path.as_str(), it.state, it.staged)).collect();
        let expected = [
            ("a b\nc", GitFileState::Modified, false),
            ("new", GitFileState::Added, true),
            ("gone", GitFileState::Deleted, false),
            ("both", GitFileState::Conflicted, false),
            ("-odd", GitFileState::Untracked, false),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_was_cut_off_is_left_out() {
        let (stats, is_cut) = stats(b"1\t2\ta\0-\t-\tb\x003\t4\thal", true);
        assert!(is_cut);
        assert_eq!(stats.len(), 2);
        assert_eq!((stats[0].insertions, stats[1].insertions), (Some(1), None));
        let one = format!("{HASH}\n{HASH} {HASH}\nAnn\na@x\n7\nBob\nb@x\n8\nTitle\n\nBody\n");
        let found = commits(format!("{one}\0{HASH}\n\nA").as_bytes(), true);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].message.as_str(), found[0].author.at), ("Title\n\nBody", 7_000));
        assert_eq!(found[0].parents.len(), 2);
    }

    #[test]
    fn branches_of_both_sides_are_read() {
        let text = format!(
            "* {HASH} refs/heads/main\n  {HASH} refs/remotes/origin/HEAD\n  {HASH} refs/remotes/origin/x/y\n"
        );
        let (found, is_cut) = branches(text.as_bytes(), false);
        let found: Vec<_> =
            found.iter().map(|it| (it.name.as_str(), it.remote, it.current)).collect();
        assert_eq!((found, is_cut), (vec![("main", false, true), ("x/y", true, false)], false));
        let listed = format!("100644 blob {HASH}      12\ta\0160000 commit {HASH}       -\tsub\0");
        assert_eq!(tree(listed.as_bytes()), (2, 12));
    }
}
