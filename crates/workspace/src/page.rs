//! Listing a directory page by page, with facts about each entry.

use crate::Workspace;
use crate::cancel::Cancel;
use crate::error::{WorkspaceError, turns};
use crate::find::invalid_pattern;
use crate::path::RelPath;
use crate::read::EntryKind;
use crate::walk::{Base, Budget, Cut, Found, SearchLimits, Stop, walk_shown};

/// One entry of an [`EntryPage`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the project's directory.
    pub path: String,
    /// What it is; links are not followed.
    pub kind: EntryKind,
    /// Bytes; 0 for anything but a regular file.
    pub size: u64,
    /// Last change of the content, milliseconds since 1970 UTC.
    pub modified_ms: i64,
    /// Whether its name is not UTF-8: then nothing finds it, the path has the other bytes escaped, and the
    /// numbers are 0.
    pub is_unreachable: bool,
}

/// Some entries in the order of the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryPage {
    /// Sorted by name within each directory, a directory before what is in it.
    pub entries: Vec<Entry>,
    /// Whether more follow the last one.
    pub has_more: bool,
    /// Why there may be more that no page shows.
    pub cut: Option<Cut>,
}

impl Workspace {
    /// Lists what is below the directory `path`, `depth` levels deep: what comes after the path `after`,
    /// at most `limit` entries. An entry that is gone when it is looked at is left out.
    ///
    /// # Errors
    ///
    /// As [`Workspace::list`], and `InvalidPattern` for an `after` that is no path.
    pub fn list_page(
        &self,
        path: &str,
        depth: usize,
        with_ignored: bool,
        after: Option<&str>,
        limit: usize,
        cancel: &Cancel,
    ) -> Result<EntryPage, WorkspaceError> {
        let base = Base::open(self, &RelPath::dir(path)?)?;
        let after = after.map(RelPath::file).transpose();
        let after = after.map_err(|_| invalid_pattern("cursor", "it names no entry"))?;
        let after: Option<Vec<&str>> = after.as_ref().map(|after| after.names().collect());
        let limits = SearchLimits { results_max: usize::MAX, ..SearchLimits::default() };
        let mut budget = Budget::new(&limits, cancel);
        let (mut entries, mut has_more) = (Vec::new(), false);
        let visit = &mut |_: &mut Budget<'_>, found: &Found<'_>| {
            if after.as_ref().is_some_and(|after| !comes_after(found.path, after)) {
                return Ok(());
            }
            if entries.len() == limit {
                has_more = true;
                return Err(Stop::Cut(Cut::Results));
            }
            entries.extend(entry(found));
            Ok(())
        };
        let shown = (depth, with_ignored);
        let cut = walk_shown(self, &base, shown, after.as_deref(), &mut budget, visit)?;
        let cut = cut.filter(|cut| *cut != Cut::Results);
        Ok(EntryPage { entries, has_more, cut })
    }
}

/// Whether a path comes after these names in the order of a walk: name by name, a directory before what
/// is in it.
fn comes_after(path: &RelPath, names: &[&str]) -> bool {
    path.names().gt(names.iter().copied())
}

fn entry(found: &Found<'_>) -> Option<Entry> {
    let (path, is_unreachable) = (found.path.to_string(), found.is_unreachable);
    if is_unreachable {
        return Some(Entry { path, kind: found.kind, size: 0, modified_ms: 0, is_unreachable });
    }
    let facts = found.facts()?;
    let (size, modified_ms) = (facts.size(), facts.modified_ms());
    Some(Entry { path, kind: facts.kind, size, modified_ms, is_unreachable })
}

/// The path with what does not print, or turns the direction of text, written as `\u{..}`; none where that
/// is the path itself.
pub fn shown_path(path: &str) -> Option<String> {
    let is_plain =
        |c: char| !turns(c) && (matches!(c, '\'' | '"' | '\\') || c.escape_debug().len() == 1);
    let has_outer_space = path.split('/').any(|name| name.trim() != name || name.ends_with('.'));
    if path.chars().all(is_plain) && !has_outer_space {
        return None;
    }
    let names = path.split('/').map(|name| {
        let kept = name.trim_end_matches([' ', '.']).len();
        let mut shown = String::new();
        for (at, c) in name.char_indices() {
            let is_outer = (c == ' ' && at == 0) || at >= kept;
            if is_plain(c) && !is_outer {
                shown.push(c);
            } else {
                shown.extend(c.escape_unicode());
            }
        }
        shown
    });
    Some(names.collect::<Vec<_>>().join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_like_others_are_shown_escaped() {
        assert_eq!(shown_path("src/grüße/日本.rs"), None);
        assert_eq!(shown_path("a\u{202e}txt.exe").as_deref(), Some("a\\u{202e}txt.exe"));
        assert_eq!(shown_path("dir/name. ").as_deref(), Some("dir/name\\u{2e}\\u{20}"));
        assert_eq!(shown_path(" a/b").as_deref(), Some("\\u{20}a/b"));
        assert_eq!(shown_path("a\nb").as_deref(), Some("a\\u{a}b"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_name_that_is_not_utf_8_is_listed_escaped_and_not_gone_into() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;

        let root = tempfile::tempdir().unwrap();
        let name = |bytes: &'static [u8]| root.path().join(OsStr::from_bytes(bytes));
        std::fs::write(name(b"a\xff\xfe.txt"), "x").unwrap();
        std::fs::create_dir(name(b"d\xc3")).unwrap();
        std::fs::write(name(b"d\xc3").join("in"), "x").unwrap();
        std::fs::write(name(b"z"), "x").unwrap();
        let workspace = Workspace::open(root.path()).unwrap();
        let page = workspace.list_page(".", 9, true, None, 10, &Cancel::new()).unwrap();
        let found: Vec<_> = page
            .entries
            .iter()
            .map(|it| (it.path.as_str(), it.kind, it.size, it.is_unreachable))
            .collect();
        let file = ("a\\x{ff}\\x{fe}.txt", EntryKind::File, 0, true);
        let directory = ("d\\x{c3}", EntryKind::Directory, 0, true);
        assert_eq!(found, [file, directory, ("z", EntryKind::File, 1, false)]);
        let rest = workspace.list_page(".", 9, false, Some(file.0), 10, &Cancel::new()).unwrap();
        assert_eq!(rest.entries, page.entries[1..]);
        let whole = workspace.list(".", 9, &SearchLimits::default(), &Cancel::new()).unwrap();
        assert_eq!(whole.entries.len(), 1);
    }

    #[test]
    fn the_pages_of_a_listing_together_are_the_listing() {
        let root = tempfile::tempdir().unwrap();
        for path in ["a/1", "a/2/x", "a-b", "b", "a.c/y"] {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let workspace = Workspace::open(root.path()).unwrap();
        let whole = workspace.list(".", 9, &SearchLimits::default(), &Cancel::new()).unwrap();
        let whole: Vec<String> = whole.entries.into_iter().map(|entry| entry.path).collect();
        for limit in 1..=whole.len() {
            let (mut paths, mut after) = (Vec::new(), None::<String>);
            loop {
                let page = workspace
                    .list_page(".", 9, false, after.as_deref(), limit, &Cancel::new())
                    .unwrap();
                paths.extend(page.entries.iter().map(|entry| entry.path.clone()));
                after = paths.last().cloned();
                if !page.has_more {
                    break;
                }
            }
            assert_eq!(paths, whole, "{limit} a page");
        }
    }
}
