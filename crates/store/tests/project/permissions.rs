//! Rules about what tools may touch, and answers that hold for longer than one call.

use iris_protocol::*;
use iris_store::project::*;
use iris_store::{Command, WhenFull};
use serde_json::json;

use crate::fixture::*;

fn id(n: u128) -> PermissionId {
    PermissionId::from_bits(n)
}

fn setting(pattern: &str, action: PermissionAction) -> PermissionSetting {
    PermissionSetting { permission: "edit".into(), pattern: pattern.into(), action }
}

fn create(n: u128, session_id: Option<SessionId>) -> CreatePermission {
    let setting = setting("src/**", PermissionAction::Allow);
    CreatePermission { id: id(n), session_id, setting, by: ann(), at: NOW }
}

fn remembered(n: u128) -> NewRule {
    NewRule { id: id(n), setting: setting("a.txt", PermissionAction::Allow) }
}

fn yes(remember: Remember) -> Yes {
    Yes { remember, rules: vec![remembered(1)], ..Yes::default() }
}

async fn waiting() -> Fixture {
    let fixture = Fixture::with_run().await;
    fixture.write(step(1, 0, vec![call(1, ToolState::Waiting)])).await.unwrap();
    fixture.take_events();
    fixture
}

#[tokio::test]
async fn a_rule_is_made_changed_and_deleted_and_each_time_said_aloud() {
    let fixture = Fixture::with_session().await;
    fixture.take_events();
    let of_project = fixture.write(create(1, None)).await.unwrap();
    assert_eq!((of_project.layer, &of_project.session_id), (PermissionLayer::Project, &None));
    let of_session = fixture.write(create(2, Some(session_id()))).await.unwrap();
    assert_eq!(of_session.layer, PermissionLayer::Session);
    assert_eq!(of_session.session_id, Some(session_id()));

    let update = UpdatePermission {
        id: id(1),
        permission: None,
        pattern: Some("docs".into()),
        action: Some(PermissionAction::Deny),
        by: bob(),
        at: NOW + 1,
    };
    let updated = fixture.write(update.clone()).await.unwrap();
    let expected = PermissionRule {
        pattern: "docs".into(),
        action: PermissionAction::Deny,
        updated_at: Some(NOW + 1),
        ..of_project
    };
    assert_eq!(updated, expected);
    let all = fixture.reader().permissions().await.unwrap();
    assert_eq!(all, [updated.clone(), of_session]);

    let delete = DeletePermission { id: id(1), by: bob(), at: NOW + 2 };
    assert_eq!(fixture.write(delete.clone()).await.unwrap(), updated);
    assert_eq!(fixture.reader().permission(id(1)).await.unwrap(), None);
    assert_eq!(fixture.take_events(), ["P permission.updated"; 4]);
    assert_eq!(fixture.refusal(update).await.0, ErrorCode::NotFound);
    assert_eq!(fixture.refusal(delete).await.0, ErrorCode::NotFound);
    let nowhere = create(3, Some(SessionId::from_bits(99)));
    assert_eq!(fixture.refusal(nowhere).await.0, ErrorCode::NotFound);
}

#[tokio::test]
async fn the_rules_of_a_session_end_with_it() {
    let fixture = Fixture::with_session().await;
    fixture.write(create(1, Some(session_id()))).await.unwrap();
    let purge = PurgeSession { id: session_id(), by: ann(), at: NOW };
    fixture.write(purge).await.unwrap();
    assert_eq!(fixture.reader().permissions().await.unwrap(), []);
}

#[tokio::test]
async fn rules_are_read_behind_a_place_layer_by_layer() {
    use PermissionLayer::{Project, Remembered, Session};
    let fixture = waiting().await;
    fixture.write(create_session(2)).await.unwrap();
    let other = SessionId::from_bits(2);
    // In another order than that of the list.
    fixture.write(resolve(1, Decision::Approve(yes(Remember::Session)))).await.unwrap();
    for (n, session) in
        [(11, Some(session_id())), (12, None), (13, Some(other.clone())), (14, None)]
    {
        fixture.write(create(n, session)).await.unwrap();
    }
    let reader = fixture.reader();
    let all = reader.permissions_behind(None, None, 9).await.unwrap();
    let told: Vec<_> = all.iter().map(|rule| (rule.layer, rule.session_id.clone())).collect();
    let own = Some(session_id());
    let expected = [
        (Project, None),
        (Project, None),
        (Session, own.clone()),
        (Session, Some(other)),
        (Remembered, own),
    ];
    assert_eq!(told, expected);
    assert!(all[0].id < all[1].id && all[2].id < all[3].id);
    // From each place on, as far as is asked for.
    for (from, limit) in (0..5_usize).flat_map(|from| [(from, 1), (from, 2), (from, 9)]) {
        let place = from.checked_sub(1).and_then(|last| RulePlace::of(&all[last]));
        let place = place.map(|place| RulePlace::parse(&place.cursor().unwrap()).unwrap());
        let page = reader.permissions_behind(None, place, limit).await.unwrap();
        assert_eq!(page, all[from..(from + limit).min(5)], "{from} {limit}");
    }
    let of_session = reader.permissions_behind(Some(session_id()), None, 9).await.unwrap();
    let expected = [&all[..3], &all[4..]].concat();
    assert_eq!(of_session, expected);
    let nowhere = reader.permissions_behind(Some(SessionId::from_bits(9)), None, 9).await;
    assert_eq!(nowhere.unwrap_err().code(), ErrorCode::NotFound);
    for cursor in ["", "project", "project.", "project.x", "elsewhere.per_1", "."] {
        let refused = RulePlace::parse(cursor).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::InvalidRequest, "{cursor}");
    }
}

#[test]
fn a_full_disk_keeps_no_administrator_from_forbidding_something() {
    let full = |session_id, action| {
        let setting = setting("a", action);
        CreatePermission { setting, ..create(1, session_id) }.when_full()
    };
    assert_eq!(full(None, PermissionAction::Deny), WhenFull::Allow);
    assert_eq!(full(None, PermissionAction::Ask), WhenFull::Allow);
    assert_eq!(full(None, PermissionAction::Allow), WhenFull::Refuse);
    assert_eq!(full(Some(session_id()), PermissionAction::Deny), WhenFull::Refuse);
}

async fn make(fixture: &Fixture, ids: std::ops::Range<u64>, session_id: Option<SessionId>) {
    let ids: Vec<u64> = ids.collect();
    // As many at once as may wait for the writer.
    for some in ids.chunks(1_000) {
        let rules = some.iter().map(|n| fixture.write(create((*n).into(), session_id.clone())));
        futures_util::future::try_join_all(rules).await.unwrap();
    }
}

#[tokio::test]
async fn a_session_and_all_sessions_and_a_project_have_a_bounded_number_of_rules() {
    let fixture = Fixture::new();
    let sessions = PERMISSIONS_OF_SESSIONS_MAX / PERMISSIONS_OF_SESSION_MAX;
    let nth = |n: u64| SessionId::from_bits(n.into());
    for n in 0..=sessions {
        fixture.write(create_session(n.into())).await.unwrap();
    }
    let too_many = (ErrorCode::Conflict, "too_many_permissions".to_owned());
    let another = |session_id| create(PERMISSIONS_MAX.into(), session_id);
    let of_session = PERMISSIONS_OF_SESSION_MAX;
    make(&fixture, 0..of_session, Some(nth(0))).await;
    assert_eq!(fixture.refusal(another(Some(nth(0)))).await, too_many);
    for n in 1..sessions {
        make(&fixture, n * of_session..(n + 1) * of_session, Some(nth(n))).await;
    }
    // What members make leaves room for what administrators make.
    assert_eq!(fixture.refusal(another(Some(nth(sessions)))).await, too_many);
    make(&fixture, PERMISSIONS_OF_SESSIONS_MAX..PERMISSIONS_MAX, None).await;
    assert_eq!(fixture.refusal(another(None)).await, too_many);
}

#[tokio::test]
async fn a_yes_that_is_remembered_becomes_a_rule() {
    let fixture = waiting().await;
    let approved =
        fixture.write(resolve(1, Decision::Approve(yes(Remember::Session)))).await.unwrap();
    assert_eq!(approved.remember, Some(Remember::Session));
    let rules = fixture.reader().permissions().await.unwrap();
    assert_eq!(rules.len(), 1);
    assert_eq!(rules[0].layer, PermissionLayer::Remembered);
    assert_eq!(rules[0].session_id, Some(session_id()));
    assert_eq!((rules[0].pattern.as_str(), &rules[0].created_by), ("a.txt", &Some(bob())));
    assert!(fixture.take_events().contains(&"P permission.updated".to_owned()));
    let read = fixture.reader().approval(session_id(), call_id(1)).await.unwrap().unwrap();
    assert_eq!(read, approved);
}

#[tokio::test]
async fn a_yes_that_is_not_remembered_becomes_none() {
    let fixture = waiting().await;
    fixture.write(resolve(1, Decision::Approve(yes(Remember::Once)))).await.unwrap();
    assert_eq!(fixture.reader().permissions().await.unwrap(), []);
}

#[tokio::test]
async fn a_yes_holds_no_longer_than_the_approval_offers() {
    let fixture = waiting().await;
    let refusal = fixture.refusal(resolve(1, Decision::Approve(yes(Remember::Project)))).await;
    assert_eq!(refusal, (ErrorCode::Conflict, "not_rememberable".into()));
    assert_eq!(fixture.calls(1).await[0].state, ToolState::Waiting);
}

#[tokio::test]
async fn a_yes_to_other_arguments_than_those_that_wait_is_refused() {
    let fixture = waiting().await;
    let seen = |hash: &str| {
        let input_hash = Some(hash.to_owned());
        resolve(1, Decision::Approve(Yes { input_hash, ..Yes::default() }))
    };
    let refusal = fixture.refusal(seen(&"0".repeat(64))).await;
    assert_eq!(refusal, (ErrorCode::Conflict, "input_changed".into()));
    let waits = fixture.reader().approval(session_id(), call_id(1)).await.unwrap().unwrap();
    // SHA-256 of `{"path":"a.txt"}`.
    let expected = "5aff422311aaf6f4983b3d9ae0b75826621e553375d62a2f03fa5578e5e64be1";
    assert_eq!(waits.input_hash, expected);
    fixture.write(seen(&waits.input_hash)).await.unwrap();
}

#[tokio::test]
async fn edited_arguments_are_those_that_run_and_the_models_are_kept() {
    let fixture = waiting().await;
    let edited = json!({ "path": "b.txt" });
    let decision = Decision::Approve(Yes {
        edited: Some((edited.clone(), vec![asked("b.txt")])),
        ..Yes::default()
    });
    let before = fixture.reader().approval(session_id(), call_id(1)).await.unwrap().unwrap();
    let approved = fixture.write(resolve(1, decision)).await.unwrap();
    assert_eq!(approved.input, edited);
    assert_eq!(approved.original_input, Some(json!({ "path": "a.txt" })));
    assert_eq!(approved.accesses, [asked("b.txt")]);
    assert_ne!(approved.input_hash, before.input_hash);
    assert_eq!(fixture.calls(1).await[0].input, edited);
    let told = fixture.take_stored();
    let resolved: Vec<_> = told.iter().filter(|it| it.name == "tool.approval.resolved").collect();
    for event in resolved {
        let says_what = event.payload.contains("b.txt");
        assert_eq!(says_what, matches!(event.room, Room::Session(_)), "{}", event.payload);
    }
}

#[tokio::test]
async fn a_page_of_approvals_has_a_bounded_size_and_at_least_one() {
    let fixture = Fixture::with_run().await;
    let large = |n: u128| {
        let NewPart::Tool(mut call) = call(n, ToolState::Waiting) else { unreachable!() };
        call.input = json!({ "path": "a.txt", "content": "x".repeat(PAGE_BYTES_MAX / 2 + 1) });
        NewPart::Tool(call)
    };
    fixture.write(step(1, 0, (1..=3).map(large).collect())).await.unwrap();
    let reader = fixture.reader();
    let (mut cursor, mut calls) = (None, Vec::new());
    loop {
        let page = reader.approvals(None, ApprovalState::Pending, 200, cursor).await.unwrap();
        assert_eq!(page.approvals.len(), 1);
        calls.push(page.approvals[0].tool_call_id.clone());
        assert_eq!(page.has_more, page.next_cursor.is_some());
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(calls, [call_id(3), call_id(2), call_id(1)]);
}

#[tokio::test]
async fn approvals_are_listed_by_state_and_session_newest_first() {
    let fixture = Fixture::with_run().await;
    let calls = (1..=3).map(|n| call(n, ToolState::Waiting)).collect();
    fixture.write(step(1, 0, calls)).await.unwrap();
    fixture.write(resolve(2, Decision::yes())).await.unwrap();
    let reader = fixture.reader();
    let page =
        |session_id, state, limit, cursor| reader.approvals(session_id, state, limit, cursor);
    let calls = |page: &ApprovalPage| -> Vec<ToolCallId> {
        page.approvals.iter().map(|it| it.tool_call_id.clone()).collect()
    };
    let first = page(None, ApprovalState::Pending, 1, None).await.unwrap();
    assert_eq!((calls(&first), first.has_more), (vec![call_id(3)], true));
    let second = page(None, ApprovalState::Pending, 1, first.next_cursor).await.unwrap();
    assert_eq!((calls(&second), second.has_more), (vec![call_id(1)], false));
    let of_session = page(Some(session_id()), ApprovalState::Approved, 9, None).await.unwrap();
    assert_eq!(calls(&of_session), [call_id(2)]);
    let nowhere = page(Some(SessionId::from_bits(99)), ApprovalState::Pending, 9, None).await;
    assert_eq!(nowhere.unwrap_err().code(), ErrorCode::NotFound);
    let cursor = Some("somewhere".to_owned());
    let strange = page(None, ApprovalState::Pending, 9, cursor).await;
    assert_eq!(strange.unwrap_err().code(), ErrorCode::InvalidRequest);
}
