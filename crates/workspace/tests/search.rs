//! Listing, globbing and searching.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::time::{Duration, Instant};

use iris_workspace::{
    Cancel, Cut, EntryKind, GREP_CONTEXT_MAX, GrepOutcome, GrepQuery, Listing, SearchLimits,
    Workspace, WorkspaceError,
};
use tempfile::TempDir;

fn project(files: &[(&str, &str)]) -> (TempDir, Workspace) {
    let temp = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = temp.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let workspace = Workspace::open(temp.path()).unwrap();
    (temp, workspace)
}

fn glob(workspace: &Workspace, pattern: &str, path: &str) -> Vec<String> {
    let found = workspace.glob(pattern, path, &SearchLimits::default(), &Cancel::new()).unwrap();
    assert_eq!(found.cut, None);
    paths(found)
}

fn paths(listing: Listing) -> Vec<String> {
    listing.entries.into_iter().map(|entry| entry.path).collect()
}

fn grep(workspace: &Workspace, query: GrepQuery) -> Result<GrepOutcome, WorkspaceError> {
    let path = if query.path.is_empty() { ".".to_owned() } else { query.path.clone() };
    workspace.grep(
        &GrepQuery { path, ..query },
        &|_| true,
        &SearchLimits::default(),
        &Cancel::new(),
    )
}

/// `path:number:text` for matches, `path-number-text` for context.
fn lines(outcome: &GrepOutcome) -> Vec<String> {
    let mut lines = Vec::new();
    for file in &outcome.files {
        for line in &file.lines {
            let mark = if line.is_match { ':' } else { '-' };
            lines.push(format!("{}{mark}{}{mark}{}", file.path, line.number, line.text));
        }
    }
    lines
}

fn query(pattern: &str) -> GrepQuery {
    GrepQuery { pattern: pattern.to_owned(), ..GrepQuery::default() }
}

#[test]
fn listing_goes_as_deep_as_asked_in_a_fixed_order() {
    let (_temp, workspace) = project(&[("b/c/d", ""), ("a.txt", ""), ("b/a", ""), (".git/x", "")]);
    let limits = SearchLimits::default();
    let list = |path, depth| workspace.list(path, depth, &limits, &Cancel::new()).unwrap();
    assert_eq!(paths(list(".", 1)), ["a.txt", "b"]);
    assert_eq!(paths(list(".", 2)), ["a.txt", "b", "b/a", "b/c"]);
    assert_eq!(paths(list("b", 9)), ["b/a", "b/c", "b/c/d"]);
    assert_eq!(list(".", 1).entries[1].kind, EntryKind::Directory);
    let error = workspace.list("a.txt", 1, &limits, &Cancel::new()).unwrap_err();
    assert_eq!(error.reason(), Some("not_directory"));
}

#[test]
fn globs_match_names_or_paths_and_come_in_a_fixed_order() {
    let (_temp, workspace) =
        project(&[("z.rs", ""), ("src/m/b.rs", ""), ("src/a.rs", ""), ("src/a.md", "")]);
    assert_eq!(glob(&workspace, "*.rs", "."), ["src/a.rs", "src/m/b.rs", "z.rs"]);
    assert_eq!(glob(&workspace, "./*.rs", "."), ["z.rs"]);
    assert_eq!(glob(&workspace, "src/*.rs", "."), ["src/a.rs"]);
    assert_eq!(glob(&workspace, "**/*.{rs,md}", "src"), ["src/a.md", "src/a.rs", "src/m/b.rs"]);
    assert_eq!(glob(&workspace, "m/*", "src"), ["src/m/b.rs"]);
    assert_eq!(glob(&workspace, "../*", "src"), Vec::<String>::new());
}

#[test]
fn ignore_files_are_respected_the_nearest_first() {
    let (_temp, workspace) = project(&[
        (".gitignore", "*.log\n/build/\n!keep.log\n# comment\n[\n"),
        ("a.log", ""),
        ("keep.log", ""),
        ("build/x", ""),
        ("sub/build/x", ""),
        ("sub/.gitignore", "!a.log\nsecret\n"),
        ("sub/a.log", ""),
        ("sub/b.log", ""),
        ("sub/secret", ""),
    ]);
    let expected = [".gitignore", "keep.log", "sub/.gitignore", "sub/a.log", "sub/build/x"];
    assert_eq!(glob(&workspace, "**", "."), expected);
    assert_eq!(glob(&workspace, "**", "sub"), expected[2..], "files above the start count too");
}

#[test]
fn patterns_that_do_not_compile_or_are_too_large_are_refused() {
    let (_temp, workspace) = project(&[("a", "a")]);
    let long = "a".repeat(1025);
    let nested = format!("{}a{}", "{".repeat(400), "}".repeat(400));
    for pattern in ["", "[", "{", "/etc/*", &long, &nested] {
        let found = workspace.glob(pattern, ".", &SearchLimits::default(), &Cancel::new());
        assert_eq!(found.unwrap_err().reason(), Some("invalid_pattern"), "{pattern}");
    }
    let deep = format!("{}a{}", "(".repeat(400), ")".repeat(400));
    for pattern in ["", "(", "a\\nb", &long, &deep, "(\\w{900}){900}"] {
        let error = grep(&workspace, query(pattern)).unwrap_err();
        assert_eq!(error.reason(), Some("invalid_pattern"), "{pattern}");
    }
}

#[test]
fn grep_finds_lines_with_context() {
    let (_temp, workspace) =
        project(&[("b.txt", "one\ntwo\nthree\r\nfour\nfive\n"), ("a/x.md", "Three"), ("c", "no")]);
    let found = grep(&workspace, GrepQuery { context: 1, ..query("three") }).unwrap();
    assert_eq!(lines(&found), ["b.txt-2-two", "b.txt:3:three", "b.txt-4-four"]);
    assert_eq!((found.match_count, found.skipped_count, found.cut), (1, 0, None));
    let found = grep(&workspace, GrepQuery { ignore_case: true, ..query("^THREE") }).unwrap();
    assert_eq!(lines(&found), ["a/x.md:1:Three", "b.txt:3:three"]);
    let include = Some("*.md".to_owned());
    let found = grep(&workspace, GrepQuery { include, ..query("(?i)three") }).unwrap();
    assert_eq!(lines(&found), ["a/x.md:1:Three"]);
    let found = grep(&workspace, GrepQuery { path: "b.txt".into(), ..query("f\\w+") }).unwrap();
    assert_eq!(lines(&found), ["b.txt:4:four", "b.txt:5:five"]);
}

#[test]
fn grep_leaves_out_binary_ignored_and_overlong_content() {
    let long_line = "x".repeat(300 * 1024);
    let text_line = format!("needle{}", "ä".repeat(600));
    let (_temp, workspace) = project(&[
        ("binary", "needle\nneedle\0"),
        ("long", &long_line),
        ("ignored", "needle"),
        (".gitignore", "ignored"),
        ("text", &text_line),
    ]);
    let found = grep(&workspace, query("needle")).unwrap();
    assert_eq!((found.files.len(), found.skipped_count), (1, 2));
    assert_eq!(found.files[0].lines[0].text, format!("needle{}…", "ä".repeat(494)));
}

#[test]
fn ordinary_patterns_with_many_unicode_classes_compile() {
    let (_temp, workspace) = project(&[("a", "pub fn name(arg: Type) -> Result<X, Y>")]);
    let pattern =
        r"(?i)\bpub\s+(async\s+)?fn\s+(\w+)\s*\((\w+):\s*(\w+)\)\s*->\s*Result<\w+,\s*\w+>";
    assert_eq!(grep(&workspace, query(pattern)).unwrap().match_count, 1);
}

#[test]
fn a_pattern_that_explodes_elsewhere_takes_linear_time() {
    let (_temp, workspace) = project(&[("a", &format!("{}!", "a".repeat(100_000)))]);
    let started = Instant::now();
    assert_eq!(grep(&workspace, query("(a+)+$")).unwrap().match_count, 0);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn context_is_bounded() {
    let text: String = (0..100).map(|number| if number == 50 { "hit\n" } else { "x\n" }).collect();
    let (_temp, workspace) = project(&[("a", &text)]);
    let found = grep(&workspace, GrepQuery { context: 1_000_000, ..query("hit") }).unwrap();
    assert_eq!(found.files[0].lines.len(), 2 * GREP_CONTEXT_MAX + 1);
}

#[test]
fn each_limit_ends_a_search_and_says_which() {
    let (_temp, workspace) = project(&[("a", "hit 1\nhit 2\nhit 3"), ("b", "hit"), ("c/d", "hit")]);
    let all = SearchLimits::default();
    let query = GrepQuery { path: ".".into(), ..query("hit") };
    let grep = |limits: SearchLimits| {
        let found = workspace.grep(&query, &|_| true, &limits, &Cancel::new()).unwrap();
        (found.match_count, found.cut)
    };
    assert_eq!(grep(all.clone()), (5, None));
    assert_eq!(grep(SearchLimits { results_max: 2, ..all.clone() }), (2, Some(Cut::Results)));
    assert_eq!(grep(SearchLimits { result_bytes_max: 7, ..all.clone() }), (1, Some(Cut::Bytes)));
    // Which entry is looked at first is up to the file system.
    assert_eq!(grep(SearchLimits { entries_max: 1, ..all.clone() }).1, Some(Cut::Entries));
    let no_time = SearchLimits { time_max: Duration::ZERO, ..all.clone() };
    assert_eq!(grep(no_time), (0, Some(Cut::Time)));

    let limits = SearchLimits { results_max: 2, ..all };
    let listing = workspace.list(".", 9, &limits, &Cancel::new()).unwrap();
    assert_eq!((listing.entries.len(), listing.cut), (2, Some(Cut::Results)));
}

#[test]
fn a_cancelled_search_ends_with_an_error() {
    let (_temp, workspace) = project(&[("a", "hit")]);
    let cancel = Cancel::new();
    cancel.cancel();
    let limits = SearchLimits::default();
    let query = GrepQuery { path: ".".into(), ..query("hit") };
    for error in [
        workspace.list(".", 1, &limits, &cancel).unwrap_err(),
        workspace.glob("*", ".", &limits, &cancel).unwrap_err(),
        workspace.grep(&query, &|_| true, &limits, &cancel).unwrap_err(),
    ] {
        assert!(matches!(error, WorkspaceError::Cancelled));
    }
}
