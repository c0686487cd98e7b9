//! What a linter cannot see: arrows between crates, orphan migrations, documents that lie.
//!
//! Everything here reads files of the repository, and makes databases where it has to; nothing starts a server.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a file that is missing or malformed fails the test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use iris_protocol::{
    Audience, ErrorCode, Event, EventKind, Operation, ProjectId, Right, Role, SupervisionKind,
};
use iris_store::project::ProjectDatabase;
use iris_store::root::RootDatabase;
use toml::{Table, Value};

// The repository.

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("`{path}`: {error}"))
}

/// Files of the repository with one of these endings, relative to its root, sorted.
fn files(endings: &[&str]) -> Vec<String> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).expect("a directory") {
            let entry = entry.expect("an entry");
            let path = entry.path();
            let name = path.file_name().expect("a name").to_string_lossy();
            if name == "target" || name == "node_modules" || name.starts_with('.') {
                continue;
            }
            // What a link leads to has its place elsewhere.
            if entry.file_type().expect("a type").is_dir() {
                walk(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(root(), &mut found);
    let relative = found.iter().filter_map(|path| path.strip_prefix(root()).ok()?.to_str());
    let mut names: Vec<String> = relative.map(str::to_owned).collect();
    names.retain(|name| endings.iter().any(|ending| name.ends_with(ending)));
    names.sort();
    names
}

/// Those of this workspace; fuzz targets are workspaces of their own, for another compiler.
fn manifests() -> BTreeMap<String, Table> {
    let all = files(&["Cargo.toml"]).into_iter().filter(|path| !path.contains("/fuzz/"));
    let all = all.map(|path| {
        let table: Table = read(&path).parse().expect("TOML");
        (table["package"]["name"].as_str().expect("a name").to_owned(), table)
    });
    all.collect()
}

fn dependencies(manifest: &Table, sections: &[&str]) -> BTreeSet<String> {
    let tables = sections.iter().filter_map(|section| manifest.get(*section)?.as_table());
    tables.flat_map(|table| table.keys().cloned()).collect()
}

// Fuzz targets, which nothing here compiles: what they run is compiled and run by tests.

/// The crates that have fuzz targets, as directories.
fn fuzzed() -> Vec<String> {
    let all = files(&["fuzz/Cargo.toml"]);
    all.iter().map(|path| path.trim_end_matches("/fuzz/Cargo.toml").to_owned()).collect()
}

/// The names behind this beginning of a line, up to what is no part of a name.
fn names_after<'a>(text: &'a str, beginning: &str) -> BTreeSet<&'a str> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(beginning));
    let is_end = |c: char| !c.is_alphanumeric() && c != '_';
    lines.map(|rest| rest.split(is_end).next().unwrap_or_default()).collect()
}

#[test]
fn each_fuzz_target_runs_a_body_that_a_test_runs_too() {
    let all = fuzzed();
    assert!(all.len() >= 4, "{all:?}");
    for of in &all {
        let manifest: Table = read(&format!("{of}/fuzz/Cargo.toml")).parse().expect("TOML");
        let targets: BTreeSet<&str> = manifest["bin"]
            .as_array()
            .expect("targets")
            .iter()
            .map(|target| {
                let name = target["name"].as_str().expect("a name");
                assert_eq!(target["path"].as_str(), Some(&*format!("fuzz_targets/{name}.rs")));
                name
            })
            .collect();
        let bodies = read(&format!("{of}/fuzz/bodies.rs"));
        // Those of a module of their own are handed on.
        let mut known = names_after(&bodies, "pub(crate) fn ");
        known.extend(names_after(&bodies, "pub(crate) use applying::"));
        let tests =
            files(&[".rs"]).into_iter().filter(|path| path.starts_with(&format!("{of}/tests/")));
        let tests: String = tests.map(|path| read(&path)).collect();
        for name in &targets {
            assert!(known.contains(name), "`{of}` has a target `{name}` without a body");
            assert!(tests.contains(&format!("bodies::{name}")), "no test of `{of}` runs `{name}`");
            let code = read(&format!("{of}/fuzz/fuzz_targets/{name}.rs"));
            let unused = "#[expect(dead_code, reason = \"each target runs one of the bodies\")]\n";
            let unused = if targets.len() > 1 { unused } else { "" };
            let expected = format!(
                "//! Fuzzes `bodies::{name}`.\n\n#![no_main]\n\n{unused}#[path = \"../bodies.rs\"]\nmod bodies;\n\n\
                 libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::{name}(data));\n"
            );
            assert_eq!(code, expected, "{of}");
        }
        let files = files(&[".rs"]);
        let targets_on_disk =
            files.iter().filter(|path| path.starts_with(&format!("{of}/fuzz/fuzz_targets/")));
        assert_eq!(targets_on_disk.count(), targets.len(), "{of}");
    }
}

#[test]
fn fuzz_targets_depend_on_what_their_bodies_use() {
    for of in fuzzed() {
        let manifest: Table = read(&format!("{of}/fuzz/Cargo.toml")).parse().expect("TOML");
        let crate_manifest: Table = read(&format!("{of}/Cargo.toml")).parse().expect("TOML");
        let known = dependencies(&manifest, &["dependencies"]);
        let in_fuzz = format!("{of}/fuzz/");
        let code = files(&[".rs"]).into_iter().filter(|path| path.starts_with(&in_fuzz));
        let code: String = code.map(|path| read(&path)).collect();
        let mut used: BTreeSet<String> =
            names_after(&code, "use ").iter().map(|name| name.replace('_', "-")).collect();
        used.extend(
            ["serde_json", "tempfile", "tokio"]
                .into_iter()
                .filter(|name| code.contains(&format!("{name}::")))
                .map(|name| name.replace('_', "-")),
        );
        for own in ["std", "super", "crate", "applying"] {
            used.remove(own);
        }
        used.insert("libfuzzer-sys".to_owned());
        let known: BTreeSet<String> = known.iter().map(|name| name.replace('_', "-")).collect();
        assert_eq!(used, known, "what `{of}/fuzz` uses is what its Cargo.toml names");
        // Else no test could compile the bodies.
        let tested = dependencies(&crate_manifest, &["dependencies", "dev-dependencies"]);
        let tested: BTreeSet<String> = tested.iter().map(|name| name.replace('_', "-")).collect();
        let own = format!("iris-{}", of.trim_start_matches("crates/"));
        for name in used.iter().filter(|name| **name != own && *name != "libfuzzer-sys") {
            assert!(tested.contains(name), "the tests of `{of}` lack `{name}`");
        }
    }
}

// Manifests.

/// What each crate may depend on among ours: the arrows of docs/architecture.md.
const ARROWS: &[(&str, &[&str])] = &[
    ("iris-protocol", &[]),
    ("iris-shell", &[]),
    ("iris-agent", &["iris-protocol"]),
    ("iris-workspace", &["iris-protocol"]),
    ("iris-redact", &[]),
    ("iris-sandbox", &[]),
    ("iris-store", &["iris-protocol"]),
    ("iris-client", &["iris-protocol"]),
    ("iris-egress", &[]),
    ("iris-backup", &["iris-protocol", "iris-store"]),
    ("iris-auth", &["iris-agent", "iris-protocol"]),
    ("iris-identity", &["iris-auth", "iris-egress"]),
    ("iris-llm", &["iris-agent", "iris-protocol", "iris-redact"]),
    ("iris-mcp", &["iris-egress", "iris-sandbox"]),
    (
        "iris-tools",
        &[
            "iris-agent",
            "iris-egress",
            "iris-protocol",
            "iris-sandbox",
            "iris-shell",
            "iris-workspace",
        ],
    ),
    (
        "iris-actors",
        &[
            "iris-agent",
            "iris-auth",
            "iris-backup",
            "iris-egress",
            "iris-identity",
            "iris-llm",
            "iris-mcp",
            "iris-protocol",
            "iris-redact",
            "iris-sandbox",
            "iris-store",
            "iris-tools",
            "iris-workspace",
        ],
    ),
    (
        "iris",
        &[
            "iris-actors",
            "iris-agent",
            "iris-auth",
            "iris-backup",
            "iris-client",
            "iris-egress",
            "iris-identity",
            "iris-llm",
            "iris-protocol",
            "iris-redact",
            "iris-sandbox",
            "iris-store",
            "iris-tools",
        ],
    ),
];

/// Who may depend on what is fenced off.
const FENCES: &[(&str, &[&str])] = &[
    ("actix", &["iris-actors"]),
    ("actix-rt", &["iris", "iris-actors"]),
    ("actix-web", &["iris"]),
    ("actix-web-actors", &["iris"]),
    ("actix-http", &["iris"]),
    ("rusqlite", &["iris-store"]),
    ("rusqlite_migration", &["iris-store"]),
    ("r2d2", &["iris-store"]),
    ("r2d2_sqlite", &["iris-store"]),
    ("reqwest", &["iris-client", "iris-egress", "iris-llm"]),
    ("eventsource-client", &["iris-llm"]),
    ("prometheus-client", &["iris-actors"]),
    ("rmcp", &["iris-mcp"]),
    ("launchdarkly-sdk-transport", &["iris-llm"]),
    ("cap-std", &["iris-backup", "iris-workspace"]),
    ("jsonwebtoken", &["iris-auth"]),
    ("argon2", &["iris-auth"]),
    ("landlock", &["iris-sandbox"]),
    ("nix", &["iris-sandbox"]),
    ("seccompiler", &["iris-sandbox"]),
    ("tree-sitter", &["iris-shell"]),
    ("tree-sitter-bash", &["iris-shell"]),
];

/// The crate that only tests use; it may use everything.
const TESTKIT: &str = "iris-testkit";

#[test]
fn arrows_between_crates_point_down() {
    let arrows: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    for (name, manifest) in manifests() {
        if name == TESTKIT {
            continue;
        }
        let allowed = arrows.get(name.as_str()).unwrap_or_else(|| panic!("`{name}` has no arrows"));
        let direct = dependencies(&manifest, &["dependencies", "build-dependencies"]);
        for dependency in direct.iter().filter(|other| other.starts_with("iris")) {
            assert!(allowed.contains(&dependency.as_str()), "`{name}` depends on `{dependency}`");
        }
    }
}

#[test]
fn what_is_fenced_off_is_used_behind_its_fence_alone() {
    for (name, manifest) in manifests() {
        if name == TESTKIT {
            continue;
        }
        let direct = dependencies(&manifest, &["dependencies", "build-dependencies"]);
        for (fenced, allowed) in FENCES {
            let is_used = direct.contains(*fenced);
            assert!(!is_used || allowed.contains(&name.as_str()), "`{name}` uses `{fenced}`");
        }
    }
}

#[test]
fn every_crate_takes_lints_versions_and_features_from_the_workspace() {
    for (name, manifest) in manifests() {
        let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
        assert_eq!(lints.and_then(Value::as_bool), Some(true), "lints of `{name}`");
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(table) = manifest.get(section).and_then(Value::as_table) else { continue };
            for (dependency, source) in table {
                let is_shared = source.get("workspace").and_then(Value::as_bool) == Some(true);
                assert!(is_shared, "`{dependency}` of `{name}` has a version of its own");
            }
        }
    }
}

/// The feature with which tests make things go wrong.
const FAULTS: &str = "faults";

#[test]
fn only_tests_can_make_things_go_wrong() {
    let turns_on = |value: &Value| {
        let enabled = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        enabled.map(|name| name.rsplit('/').next().unwrap_or(name)).any(|name| name == FAULTS)
    };
    let uses = |table: Option<&Value>, section: &str, name: &str| {
        for (dependency, source) in table.and_then(Value::as_table).into_iter().flatten() {
            let is_on = source.get("features").is_some_and(turns_on);
            assert!(!is_on, "`{dependency}` has its faults in `{section}` of `{name}`");
        }
    };
    for (name, manifest) in manifests() {
        let features = manifest.get("features").and_then(Value::as_table);
        for (feature, enabled) in features.into_iter().flatten() {
            assert!(feature == FAULTS || !turns_on(enabled), "`{feature}` of `{name}` has faults");
        }
        let shared = manifest.get("workspace").and_then(|workspace| workspace.get("dependencies"));
        uses(shared, "workspace.dependencies", &name);
        // The arrows keep the crate for tests out of all others.
        if name != TESTKIT {
            for section in ["dependencies", "build-dependencies"] {
                uses(manifest.get(section), section, &name);
            }
        }
    }
}

/// They are built into one directory, where the second of a name would take the place of the first.
#[test]
fn every_example_has_a_name_of_its_own() {
    let mut places = BTreeMap::new();
    for path in files(&[".rs"]) {
        let Some((directory, name)) = path.rsplit_once('/') else { continue };
        if directory != "examples" && !directory.ends_with("/examples") {
            continue;
        }
        let earlier = places.insert(name.to_owned(), path.clone());
        assert_eq!(earlier, None, "`{path}` is built in the place of another one");
    }
    assert!(places.len() > 5, "{places:?}");
}

#[test]
fn every_dependency_has_its_line_and_no_line_is_stale() {
    let manifest: Table = read("Cargo.toml").parse().expect("TOML");
    let shared = manifest["workspace"]["dependencies"].as_table().expect("a table");
    let foreign: BTreeSet<String> =
        shared.keys().filter(|name| !name.starts_with("iris")).cloned().collect();
    let described: BTreeSet<String> = rows(&read("docs/dependencies.md")).into_keys().collect();
    assert_eq!(described, foreign, "docs/dependencies.md against [workspace.dependencies]");
}

// Sources.

#[test]
fn every_migration_is_numbered_and_embedded() {
    let sources: String = files(&[".rs"])
        .iter()
        .filter(|path| path.starts_with("crates/store/src"))
        .map(|path| read(path))
        .collect();
    let mut count_of = BTreeMap::new();
    for path in files(&[".sql"]) {
        let embedded = format!("include_str!(\"../{path}\")");
        assert!(sources.contains(&embedded), "`{path}` is not embedded");
        let (folder, name) = path.rsplit_once('/').expect("a folder");
        let count = count_of.entry(folder.to_owned()).or_insert(0);
        *count += 1;
        assert!(name.starts_with(&format!("{count:04}_")), "`{path}` is not number {count}");
    }
    let folders: Vec<&str> = count_of.keys().map(String::as_str).collect();
    assert_eq!(folders, ["migrations/project", "migrations/root"]);
}

/// A database that has run a migration never runs it again: who edits one leaves those databases behind.
#[test]
fn no_migration_is_edited() {
    let listed = read("migrations/SHA256SUMS");
    let found = files(&[".sql"]).into_iter().map(|path| {
        let hash = iris_workspace::content_hash(read(&path).as_bytes());
        let name = path.strip_prefix("migrations/").expect("a migration");
        format!("{hash}  {name}\n")
    });
    let found: String = found.collect();
    assert_eq!(listed, found, "add a migration in place of editing one, and its line to the list");
}

#[test]
fn what_is_to_be_done_names_its_issue() {
    let mark = concat!("TO", "DO");
    for path in files(&[".rs", ".sql", ".toml", ".py", ".md"]) {
        for (number, line) in read(&path).lines().enumerate() {
            let Some((_, after)) = line.split_once(mark) else { continue };
            // A name that begins so is about lists of what is to be done.
            if after.starts_with(|c: char| c == '_' || c.is_alphanumeric()) {
                continue;
            }
            let issue = after.strip_prefix("(#").and_then(|rest| rest.split_once(')'));
            let has_issue = issue.is_some_and(|(issue, _)| issue.parse::<u32>().is_ok());
            assert!(has_issue, "{path}:{}: `{mark}` without `(#issue)`", number + 1);
        }
    }
}

// Documents.

/// The rows of the tables of a document whose first cell begins with a name in backticks.
fn rows(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut rows = BTreeMap::new();
    for line in text.lines() {
        let Some(line) = line.strip_prefix("| `") else { continue };
        let (name, rest) = line.split_once('`').expect("a closing backtick");
        let cells = rest.split('|').skip(1).map(|cell| cell.trim().to_owned()).collect();
        let is_new = rows.insert(name.to_owned(), cells).is_none();
        assert!(is_new, "`{name}` has two rows");
    }
    rows
}

/// One section (`## heading`) of a document.
fn section_of<'a>(document: &'a str, heading: &str) -> &'a str {
    let mark = format!("\n## {heading}\n");
    let (_, after) = document.split_once(&mark).unwrap_or_else(|| panic!("no section `{heading}`"));
    after.split("\n## ").next().unwrap_or_default()
}

/// The rows of one section of docs/protocol.md.
fn section(heading: &str) -> BTreeMap<String, Vec<String>> {
    rows(section_of(&read("docs/protocol.md"), heading))
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let names: BTreeSet<&str> = names.collect();
    names.into_iter().map(str::to_owned).collect()
}

fn right(right: Right) -> &'static str {
    match right {
        Right::Public => "anybody",
        Right::User => "user",
        Right::Project(Role::Viewer) => "viewer",
        Right::Project(Role::Member) => "member",
        Right::Project(Role::Admin) => "admin",
        Right::Project(Role::Owner) => "owner",
        Right::Admin => "server admin",
    }
}

#[test]
fn operations_are_documented_with_right_and_route() {
    let rows = section("Operations");
    let all = Operation::ALL.iter().map(|operation| operation.name());
    assert_eq!(rows.keys().cloned().collect::<Vec<_>>(), names(all));
    for operation in Operation::ALL {
        let spec = operation.spec();
        let route = spec.rest.map_or("socket only".to_owned(), |route| {
            format!("`{} {}`", route.method.as_str(), route.path)
        });
        assert_eq!(rows[spec.name][..2], [right(spec.right).to_owned(), route], "`{}`", spec.name);
    }
}

#[test]
fn events_are_documented_with_kind_and_rooms() {
    let rows = section("Events");
    assert_eq!(
        rows.keys().cloned().collect::<Vec<_>>(),
        names(Event::ALL.iter().map(|spec| spec.name))
    );
    for spec in Event::ALL {
        let kind = match spec.kind {
            EventKind::Durable => "D",
            EventKind::Ephemeral => "E",
        };
        let rooms = spec.rooms.iter().map(|room| match room {
            Audience::Session => "S",
            Audience::Project => "P",
            Audience::User => "U",
            Audience::Admin => "A",
            Audience::Connection => "the connection",
        });
        let rooms = rooms.collect::<Vec<_>>().join(", ");
        assert_eq!(rows[spec.name][..2], [kind.to_owned(), rooms], "`{}`", spec.name);
    }
}

#[test]
fn error_codes_are_documented_with_their_status() {
    let rows = section("Errors");
    assert_eq!(
        rows.keys().cloned().collect::<Vec<_>>(),
        names(ErrorCode::ALL.iter().map(|code| code.as_str()))
    );
    for code in ErrorCode::ALL {
        let retry = if code.is_retryable() { "yes" } else { "no" };
        let expected = [code.http_status().to_string(), retry.to_owned()];
        assert_eq!(rows[code.as_str()][..2], expected, "`{code}`");
    }
}

#[test]
fn limits_are_documented_with_their_values() {
    let source = read("crates/protocol/src/limits.rs");
    let constants = source.lines().filter_map(|line| line.strip_prefix("pub const "));
    let expected: BTreeMap<String, u64> = constants
        .map(|constant| {
            let (name, rest) = constant.split_once(':').expect("a type");
            let (_, value) = rest.split_once('=').expect("a value");
            let factors = value.trim_end_matches(';').split('*');
            let factors =
                factors.map(|f| f.trim().replace('_', "").parse::<u64>().expect("digits"));
            (name.to_owned(), factors.product())
        })
        .collect();
    let documented = section("Limits").into_iter().map(|(name, cells)| {
        (name, cells[0].replace(' ', "").parse::<u64>().expect("a number without unit"))
    });
    assert_eq!(documented.collect::<BTreeMap<_, _>>(), expected);
}

#[test]
fn every_key_of_the_configuration_is_in_the_readme() {
    let source = read("src/config/reference.rs");
    let readme = rows(&read("README.md"));
    let list = |name: &str| {
        let (_, after) = source.split_once(&format!("const {name}: &[Key] = &[")).expect("a list");
        let list = after.split("\n];").next().unwrap_or_default().to_owned();
        let entries = list.replace("live(", "key(");
        let entries = entries.split("key(").skip(1);
        let names = entries.filter_map(|entry| entry.split('"').nth(1).map(str::to_uppercase));
        names.collect::<Vec<_>>()
    };
    let top = list("TOP").into_iter().map(|key| format!("IRIS_{key}"));
    let providers = list("PROVIDERS").into_iter();
    let providers = providers.map(|key| format!("IRIS_PROVIDERS__NAME__{key}"));
    let logins = list("OAUTH").into_iter().map(|key| format!("IRIS_OAUTH__NAME__{key}"));
    let mut expected: BTreeSet<String> = top.chain(providers).chain(logins).collect();
    expected.insert("IRIS_CONFIG".to_owned());
    let documented: BTreeSet<String> =
        readme.into_keys().filter(|name| name.starts_with("IRIS_")).collect();
    assert_eq!(documented, expected);
}

#[test]
fn paths_and_links_in_documents_exist() {
    const FOLDERS: &[&str] = &[
        "actors/",
        "benches/",
        "crates/",
        "deploy/",
        "docs/",
        "examples/",
        "migrations/",
        "src/",
        "tests/",
    ];
    for document in files(&[".md"]) {
        let text = read(&document);
        let here = Path::new(&document).parent().expect("a folder");
        let spans = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
        for path in spans.filter(|span| FOLDERS.iter().any(|folder| span.starts_with(folder))) {
            let is_template = path.contains(['*', '{', ' ', '<']) || path.contains("NNNN");
            assert!(is_template || root().join(path).exists(), "{document} names `{path}`");
        }
        let links = text.split("](").skip(1).filter_map(|after| after.split(')').next());
        for link in links.filter(|link| !link.contains("://") && !link.starts_with('#')) {
            let path = here.join(link.split('#').next().unwrap_or_default());
            assert!(root().join(path).exists(), "{document} links to `{link}`");
        }
    }
}

/// The documents of the book.
fn documents() -> impl Iterator<Item = String> {
    files(&[".md"]).into_iter().filter(|path| path.starts_with("docs/"))
}

#[test]
fn the_book_has_every_document_once() {
    let summary = read("docs/SUMMARY.md");
    let links = summary.split("](").skip(1).filter_map(|after| after.split(')').next());
    let chapters: Vec<String> = links.map(|link| format!("docs/{link}")).collect();
    let mut sorted = chapters.clone();
    sorted.sort();
    let expected: Vec<String> = documents().filter(|path| path != "docs/SUMMARY.md").collect();
    assert_eq!(sorted, expected, "docs/SUMMARY.md against docs/");
}

/// The anchors of a document's headings, as GitHub and mdBook make them.
fn anchors(document: &str) -> BTreeSet<String> {
    let mut is_code = false;
    let mut found = BTreeSet::new();
    for line in read(document).lines() {
        is_code ^= line.trim_start().starts_with("```");
        let heading = line.trim_start_matches('#');
        if is_code || heading == line || !heading.starts_with(' ') {
            continue;
        }
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let text: String = heading.trim().to_lowercase().chars().filter(kept).collect();
        let anchor = text.replace(' ', "-");
        let again = (1..).map(|number| format!("{anchor}-{number}"));
        let free = std::iter::once(anchor.clone()).chain(again).find(|one| !found.contains(one));
        found.extend(free);
    }
    found
}

#[test]
fn links_into_documents_find_their_headings() {
    for document in files(&[".md"]) {
        let text = read(&document);
        let here = Path::new(&document).parent().expect("a folder");
        let links = text.split("](").skip(1).filter_map(|after| after.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let Some((path, anchor)) = link.split_once('#') else { continue };
            let target = if path.is_empty() { PathBuf::from(&document) } else { here.join(path) };
            let target = target.to_str().expect("a path of text");
            assert!(anchors(target).contains(anchor), "{document} links to `{link}`");
        }
    }
}

/// The tables of a database with their columns, but for those that SQLite keeps for itself.
fn tables(database: &Path) -> BTreeMap<String, Vec<String>> {
    let conn = rusqlite::Connection::open(database).expect("a database");
    let names = |sql: &str| {
        let mut query = conn.prepare(sql).expect("SQL");
        let rows = query.query_map([], |row| row.get::<_, String>(0)).expect("rows");
        rows.map(|name| name.expect("a name")).collect::<Vec<_>>()
    };
    let own = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type <> 'shadow'
        AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    let columns = |table: &String| names(&format!("SELECT name FROM pragma_table_info('{table}')"));
    names(own).into_iter().map(|table| (table.clone(), columns(&table))).collect()
}

#[test]
fn every_table_and_column_is_in_the_data_model() {
    let directory = tempfile::tempdir().expect("a directory");
    let (root, project) = (directory.path().join("root.db"), directory.path().join("project.db"));
    RootDatabase::open_or_create(&root, 0).expect("a root database").close();
    let id: ProjectId = format!("prj_{:032}", 0).parse().expect("an id");
    ProjectDatabase::create(&project, &id, "epoch", 0).expect("a project database");
    let document = read("docs/data-model.md");
    for (heading, database) in [("The root database", root), ("A project's database", project)] {
        let documented = rows(section_of(&document, heading)).into_iter().map(|(table, cells)| {
            let columns = cells[0].split('`').skip(1).step_by(2).map(str::to_owned).collect();
            (table, columns)
        });
        let documented: BTreeMap<String, Vec<String>> = documented.collect();
        assert_eq!(documented, tables(&database), "docs/data-model.md, \"{heading}\"");
    }
}

/// What the log lines of one level say, wherever the server writes one.
fn log_lines(level: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for path in files(&[".rs"]) {
        let is_of_server =
            path.contains("src/") && !path.contains("test") && !path.contains("/fuzz/");
        let text = if is_of_server { read(&path) } else { String::new() };
        for after in text.split(&format!("tracing::{level}!(")).skip(1) {
            // The text stands last; what is before it are fields.
            let ends = after.match_indices(')').map(|(end, _)| after[..end].trim_end());
            let call = ends.map(|call| call.trim_end_matches(',')).find(|call| call.ends_with('"'));
            let text = call.and_then(|call| call.rsplit('"').nth(1)).unwrap_or_default();
            found.insert(text.to_owned());
        }
    }
    found
}

#[test]
fn the_guide_to_incidents_knows_every_error_and_names_no_line_that_is_not_written() {
    let guide = read("docs/incidents.md");
    let spans =
        |line: &str| line.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let first_cells = guide.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let named: BTreeSet<String> = first_cells.flat_map(|cell| spans(&format!("`{cell}"))).collect();
    let errors = log_lines("error");
    let missing: Vec<_> = errors.difference(&named).collect();
    assert!(missing.is_empty(), "docs/incidents.md lacks {missing:?}");
    let kinds = SupervisionKind::ALL.iter().map(|kind| kind.as_str().to_owned());
    let mut written: BTreeSet<String> = errors.into_iter().chain(kinds.clone()).collect();
    written.extend(log_lines("warn"));
    let stale: Vec<_> = named.difference(&written).collect();
    assert!(stale.is_empty(), "no log line says {stale:?}");
    for kind in kinds {
        assert!(guide.contains(&format!("| `{kind}`")), "docs/incidents.md lacks `{kind}`");
    }
}

#[test]
fn every_test_that_shows_a_promise_exists() {
    // Sentences; what has fewer words is the name of something else.
    const WORDS_MIN: usize = 6;
    let sources: String = files(&[".rs"]).iter().map(|path| read(path)).collect();
    let document = read("docs/durability.md") + &read("docs/conformance.md");
    let mut count = 0;
    for span in document.lines().flat_map(|line| line.split('`').skip(1).step_by(2)) {
        let is_name =
            span.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if is_name && span.split('_').count() >= WORDS_MIN {
            assert!(sources.contains(&format!("fn {span}(")), "no test is called `{span}`");
            count += 1;
        }
    }
    assert!(count > 0, "no promise is shown");
}

#[test]
fn invariants_that_the_code_names_are_in_the_architecture() {
    let architecture = read("docs/architecture.md");
    for path in files(&[".rs", ".md"]) {
        for after in read(&path).split("INV-").skip(1) {
            let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
            let row = format!("| `INV-{digits}` |");
            let is_number = !digits.is_empty();
            assert!(!is_number || architecture.contains(&row), "{path} names INV-{digits}");
        }
    }
}
