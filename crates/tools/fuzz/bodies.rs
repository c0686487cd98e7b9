//! What the fuzz targets check; tests run the same functions over mutations of corpora.

mod applying;
mod rendering;

use std::sync::{Arc, LazyLock};

use iris_agent::permissions::{Access, Judge, Target};
use iris_egress::{Config as EgressConfig, Egress, URL_BYTES_MAX, parse_url};
use iris_protocol::{PermissionAction, SessionMode};
use iris_sandbox::{Config as SandboxConfig, Sandbox};
use iris_tools::patch::{
    Applying, Change, FILES_MAX, HEADINGS_MAX, HUNKS_MAX, Hunk, LineKind, Patch, PatchError, parse,
};
use iris_tools::{ToolRegistry, webfetch};
use iris_workspace::{PATH_BYTES_MAX, PATH_COMPONENTS_MAX, RelPath};
use serde_json::Value;

pub(crate) use applying::applies;

/// Stands between a text and a patch for it.
const SEPARATOR: &str = "\n====\n";
/// Longest error about a patch or about arguments, in bytes.
const ERROR_BYTES_MAX: usize = 8 * 1024;
/// Longest sentence about a call, in bytes: the paths of ten files, each character of which is shown by up
/// to ten.
const SUMMARY_BYTES_MAX: usize = 64 * 1024;
/// Most accesses of one call: the commands and files of a line with the directory that it starts in, or the
/// files of a patch, each of which may move.
const ACCESSES_MAX: usize = 2 * FILES_MAX;
/// Most bytes of all that a call touches: each piece of a command line may be all of the line.
const TOUCHED_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A text and a patch, which may be for it.
fn text_and_patch(input: &str) -> (&str, &str) {
    input.split_once(SEPARATOR).unwrap_or(("", input))
}

/// Reading a patch ends, twice with the same result and within its limits; written down again it is read as
/// the same; and putting it into a text changes what it says and nothing else.
pub(crate) fn patches(data: &[u8]) {
    let input = String::from_utf8_lossy(data);
    let (text, patch_text) = text_and_patch(&input);
    let parsed = parse(patch_text);
    assert_eq!(parsed, parse(patch_text), "{patch_text:?} is read in two ways");
    let patch = match parsed {
        Ok(patch) => patch,
        Err(error) => return one_line(&error, patch_text),
    };
    within_limits(&patch);
    rendering::reads_back(&patch);
    for file in &patch.files {
        match &file.change {
            Change::Create { .. } => {}
            Change::Delete { hunks } | Change::Update { hunks, .. } => put_in(text, hunks),
        }
    }
}

/// A URL that may be asked for is one of the web, without a user, and says of itself what it is: read again it
/// is the same.
pub(crate) fn urls(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(url) = parse_url(&text) else { return };
    assert!(matches!(url.scheme(), "http" | "https"), "{text:?} is {url}");
    assert!(url.username().is_empty() && url.password().is_none(), "{text:?} is {url}");
    assert!(url.host_str().is_some_and(|host| !host.is_empty()), "{text:?} has no host: {url}");
    assert!(url.as_str().len() <= URL_BYTES_MAX, "{url} is long");
    assert!(url.as_str().chars().all(|c| c.is_ascii_graphic()), "{text:?} is {url}");
    let again = parse_url(url.as_str()).map(String::from);
    assert_eq!(again.ok().as_deref(), Some(url.as_str()), "{text:?} is read in two ways");
}

/// A path that is taken stays below the project's directory, and is the same when it is read again.
pub(crate) fn paths(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let path = match RelPath::dir(&text) {
        Ok(path) => path,
        Err(error) => {
            assert!(error.to_string().len() < 300, "{error}");
            assert!(RelPath::file(&text).is_err(), "{text:?} is a file of nothing");
            return;
        }
    };
    let again = RelPath::dir(path.as_str()).ok();
    assert_eq!(again.as_ref(), Some(&path), "{text:?} is read in two ways");
    assert_eq!(RelPath::file(&text).is_ok(), !path.is_root(), "{text:?}");
    assert!(path.as_str().len() <= PATH_BYTES_MAX && !path.as_str().contains('\0'), "{path}");
    assert!(path.names().count() <= PATH_COMPONENTS_MAX, "{path}");
    for name in path.names() {
        assert!(!matches!(name, "" | "." | "..") && !name.contains('/'), "{text:?} is {path}");
    }
    let walked = std::path::Path::new(path.as_str()).components();
    let stays = walked
        .into_iter()
        .all(|part| matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir));
    assert!(stays, "{text:?} leads out as {path}");
}

/// An error is short and names a line that exists.
fn one_line(error: &PatchError, patch: &str) {
    assert!(error.to_string().len() <= ERROR_BYTES_MAX, "{error}");
    assert!((1..=patch.split('\n').count()).contains(&error.line), "{error} of {patch:?}");
}

fn within_limits(patch: &Patch<'_>) {
    assert!((1..=FILES_MAX).contains(&patch.files.len()), "{patch:?}");
    assert!(patch.paths().all(|path| !path.is_empty() && !path.contains('\n')), "{patch:?}");
    let mut hunk_count = 0;
    for file in &patch.files {
        let hunks = match &file.change {
            Change::Create { .. } => continue,
            Change::Delete { hunks } => hunks,
            Change::Update { move_to, hunks } => {
                assert!(move_to.is_some() || !hunks.is_empty(), "{file:?} changes nothing");
                hunks
            }
        };
        hunk_count += hunks.len();
        for hunk in hunks {
            assert!(hunk.headings.len() <= HEADINGS_MAX, "{hunk:?}");
            let changes = hunk.lines.iter().any(|line| line.kind != LineKind::Keep);
            assert!(changes, "{hunk:?} changes nothing");
        }
    }
    assert!(hunk_count <= HUNKS_MAX, "{hunk_count} hunks");
}

/// All of the hunks fit, and the text has as many lines more as they say; or the first that does not fit is
/// told.
fn put_in(text: &str, hunks: &[Hunk<'_>]) {
    let put = || -> Result<String, PatchError> {
        let mut applying = Applying::new(text, hunks)?;
        for hunk in hunks {
            applying.hunk(hunk)?;
        }
        Ok(applying.finish())
    };
    let done = put();
    assert_eq!(done, put(), "{hunks:?} are put into {text:?} in two ways");
    let Ok(new) = done else { return };
    let lines = || hunks.iter().flat_map(|hunk| &hunk.lines);
    // An added line without an end and without text is none.
    if lines().all(|line| line.has_end || !line.text.is_empty()) {
        let count = |kind| lines().filter(|line| line.kind == kind).count();
        let expected = text.split_inclusive('\n').count() + count(LineKind::Add);
        let found = new.split_inclusive('\n').count() + count(LineKind::Remove);
        assert_eq!(found, expected, "{hunks:?} make {new:?} of {text:?}");
    }
    for added in lines().filter(|line| line.kind == LineKind::Add) {
        assert!(new.contains(added.text), "{added:?} is not in {new:?}");
    }
}

/// All tools of a server. Nothing is run, so that the sandbox needs no launcher.
static TOOLS: LazyLock<ToolRegistry> = LazyLock::new(|| {
    let launcher = Some("/bin/false".into());
    let config = SandboxConfig { launcher, ..SandboxConfig::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let sandbox = runtime.expect("a runtime").block_on(Sandbox::start(config));
    let egress = Arc::new(Egress::new(EgressConfig::default()).expect("an egress"));
    let tools = ToolRegistry::builtin().expect("built-in tools");
    let tools = tools.with_bash(sandbox).expect("bash");
    tools.with(webfetch(egress)).expect("webfetch")
});

/// The names of all tools.
pub(crate) fn names() -> Vec<String> {
    TOOLS.names().map(str::to_owned).collect()
}

/// The first line is the name of a tool, the rest are its arguments: JSON, or a text. Checking them ends with
/// yes or with a short error; what a call touches and what is said of it is bounded, and the same each time.
pub(crate) fn arguments(data: &[u8]) {
    let input = String::from_utf8_lossy(data);
    let (name, rest) = input.split_once('\n').unwrap_or((&input, ""));
    let value: Value = serde_json::from_str(rest).unwrap_or_else(|_| Value::from(rest));
    let Some(tool) = TOOLS.get(name) else {
        let error = TOOLS.validate(name, &value).expect_err("there is no such tool").to_string();
        assert!(error.len() <= ERROR_BYTES_MAX, "{error}");
        return;
    };
    // Whatever the arguments are: a person may be shown those of a call that fails.
    let (accesses, summary) = (tool.accesses(&value), tool.summary(&value));
    assert!(summary.len() <= SUMMARY_BYTES_MAX, "{} bytes about {name}", summary.len());
    assert!(!summary.contains(char::is_control), "{summary:?}");
    let asks = tool.asks(&value);
    if let Err(error) = TOOLS.validate(name, &value) {
        let error = error.to_string();
        assert!(error.len() <= ERROR_BYTES_MAX, "{error}");
        return;
    }
    assert_eq!(accesses, tool.accesses(&value), "{name} of {value}");
    assert!(accesses.len() <= ACCESSES_MAX, "{name} of {value}: {accesses:?}");
    let touched: usize = accesses.iter().map(|access| access.target.as_str().len()).sum();
    assert!(touched <= TOUCHED_BYTES_MAX, "{name} of {value}: {touched} bytes");
    if let Err(error) = asks {
        assert!(error.to_string().len() <= ERROR_BYTES_MAX, "{error}");
    }
    judged(&accesses);
}

/// What leaves the project is denied, and the worst verdict counts.
fn judged(accesses: &[Access]) {
    let judgement = Judge::new(SessionMode::Auto, vec![]).judge(accesses);
    let is_outside = accesses.iter().any(|it| matches!(it.target, Target::Outside(_)));
    let is_opaque = accesses.iter().any(|it| matches!(it.target, Target::Opaque(_)));
    assert!(!is_outside || judgement.action == PermissionAction::Deny, "{accesses:?}");
    assert!(!is_opaque || judgement.action != PermissionAction::Allow, "{accesses:?}");
}
