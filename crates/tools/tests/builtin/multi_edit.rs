//! `multiEdit`: all edits or none.

use iris_protocol::ErrorCode;
use iris_protocol::limits::FILE_BYTES_MAX;
use iris_workspace::content_hash;
use serde_json::{Value, json};

use crate::fixture::Fixture;

fn edits(edits: &[(&str, &str)]) -> Value {
    let edits = edits.iter().map(|(old, new)| json!({"oldString": old, "newString": new}));
    json!({"path": "./a", "edits": edits.collect::<Vec<_>>()})
}

#[tokio::test]
async fn edits_are_made_in_order_each_in_what_the_ones_before_left() {
    let fixture = Fixture::new(&[("a", "one two two\n")]);
    let mut input = edits(&[("one", "1"), ("1 two", "three"), ("t", "T")]);
    input["edits"][2]["replaceAll"] = json!(true);
    let done = fixture.call("multiEdit", input).await.unwrap();
    assert_eq!(fixture.content("a"), "Three Two\n");
    assert_eq!(done.output, "edited `a`: 3 edits, 4 replacements");
    let hash = content_hash(b"Three Two\n");
    let metadata = json!({"path": "a", "edits": 3, "replacements": 4, "hash": hash});
    assert_eq!(done.metadata, metadata);
    assert_eq!((done.changes.len(), done.changes[0].created), (1, false));
    assert_eq!(done.changes[0].hash, hash);
    let again = fixture.call("multiEdit", edits(&[("Three", "3")])).await;
    assert!(again.is_ok(), "its own change is known");
}

#[tokio::test]
async fn an_edit_that_cannot_be_made_is_named_and_none_is_made() {
    let fixture = Fixture::new(&[("a", "one two two\n")]);
    let cases = [
        (
            ("two", "2"),
            "`oldString` occurs 2 times in `a`; add lines around it until it occurs once",
        ),
        (("none", "2"), "`oldString` does not occur in `a`; it must match exactly"),
        (("one", "1"), "`oldString` does not occur in `a`; it must match exactly"),
        (("two", "two"), "`oldString` and `newString` are the same"),
    ];
    for (bad, problem) in cases {
        let error = fixture.call("multiEdit", edits(&[("one", "2"), bad])).await.unwrap_err();
        let text = error.to_string();
        let expected = format!("no edit was made: `/edits/1`: {problem}");
        assert!(text.starts_with(&expected), "{text}");
        assert_eq!(error.code(), ErrorCode::InvalidRequest);
        assert_eq!(fixture.content("a"), "one two two\n");
    }
}

#[tokio::test]
async fn a_file_that_changed_since_it_was_read_is_refused() {
    let fixture = Fixture::new(&[("a", "old")]);
    fixture.output("read", json!({"path": "a"})).await;
    fixture.put("a", "old, by somebody else");
    let error = fixture.call("multiEdit", edits(&[("old", "new")])).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::VersionConflict);
    assert_eq!(fixture.content("a"), "old, by somebody else");
}

#[tokio::test]
async fn no_step_may_be_larger_than_a_file() {
    let fixture = Fixture::new(&[("a", &"x".repeat(1000))]);
    let grown = "y".repeat(FILE_BYTES_MAX / 1000 + 1);
    let mut input = edits(&[("x", &grown), ("y", "")]);
    for edit in [0, 1] {
        input["edits"][edit]["replaceAll"] = json!(true);
    }
    let error = fixture.call("multiEdit", input).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::PayloadTooLarge);
    assert!(error.to_string().starts_with("no edit was made: `/edits/0`: "), "{error}");
}

#[tokio::test]
async fn there_are_one_to_a_hundred_edits_and_none_looks_for_nothing() {
    let fixture = Fixture::new(&[("a", &"x".repeat(101))]);
    let many = |count: usize| {
        let mut input = edits(&vec![("", "y"); count]);
        for index in 0..count {
            let rest = 101 - index;
            input["edits"][index]["oldString"] = json!("x".repeat(rest));
            input["edits"][index]["newString"] = json!("x".repeat(rest - 1));
        }
        input
    };
    for (count, problem) in [(0, "`/edits` is wrong: "), (101, "`/edits` is wrong: ")] {
        let text = fixture.refusal("multiEdit", many(count)).await;
        assert!(text.contains(problem), "{text}");
    }
    let text = fixture.refusal("multiEdit", edits(&[("x", "y"), ("", "z")])).await;
    assert!(text.contains("`/edits/1/oldString` is wrong"), "{text}");
    assert_eq!(fixture.content("a").len(), 101);
    fixture.output("multiEdit", many(100)).await;
    assert_eq!(fixture.content("a"), "x");
}
