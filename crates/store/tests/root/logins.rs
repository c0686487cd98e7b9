//! Logins and their refresh tokens.

use iris_protocol::limits::LOGINS_PER_USER_MAX;
use iris_store::WriteContext;
use iris_store::root::{
    Access, BeginAuthSession, EXPIRED_TOKEN_KEPT_MS, REFRESH_GRACE_MS, RefusalReason,
    RevokeAuthSession, RotateOutcome,
};
use rusqlite::Connection;

use crate::{LIFETIME, NOW, Root, begin_login, login_id, missing, rotate, user_id};

/// A database with user 1, logged in with token 1.
async fn logged_in() -> Root {
    let root = Root::new();
    root.user(1).await;
    root.begin_login(1, 1, 1).await;
    root
}

async fn is_revoked(root: &Root, login: u128) -> bool {
    let access = root.reader.access(&user_id(1), &login_id(login), None).await;
    access.unwrap().unwrap().session_revoked
}

fn refused(reason: RefusalReason) -> RotateOutcome {
    RotateOutcome::Refused { reason }
}

fn reused() -> RotateOutcome {
    refused(RefusalReason::Reused { user_id: user_id(1), auth_session_id: login_id(1) })
}

fn is_rotated(outcome: &RotateOutcome) -> bool {
    matches!(outcome, RotateOutcome::Rotated { .. })
}

#[tokio::test]
async fn a_login_needs_its_user() {
    let root = Root::new();
    assert_eq!(missing(root.run(begin_login(1, 1, 1)).await), "user");
}

#[tokio::test]
async fn a_fresh_token_is_exchanged_for_its_child_and_that_for_the_next() {
    let root = logged_in().await;
    let user = root.reader.user(&user_id(1)).await.unwrap().unwrap();
    let expected = RotateOutcome::Rotated { user, auth_session_id: login_id(1), epoch: 0 };
    assert_eq!(root.rotate(1, 2, NOW + 1).await, expected);
    assert_eq!(root.rotate(2, 3, NOW + 2).await, expected);
}

#[tokio::test]
async fn a_token_that_was_never_issued_is_unknown() {
    let root = logged_in().await;
    assert_eq!(root.rotate(9, 2, NOW).await, refused(RefusalReason::Unknown));
    assert!(!is_revoked(&root, 1).await);
}

#[tokio::test]
async fn a_lost_answer_can_be_asked_for_again_within_the_grace() {
    let root = logged_in().await;
    assert!(is_rotated(&root.rotate(1, 2, NOW).await));
    let repeat = root.rotate(1, 2, NOW + REFRESH_GRACE_MS).await;
    let user = root.reader.user(&user_id(1)).await.unwrap().unwrap();
    let expected = RotateOutcome::Repeated {
        user,
        auth_session_id: login_id(1),
        epoch: 0,
        child_hash: crate::hash(2),
    };
    assert_eq!(repeat, expected);
    assert!(is_rotated(&root.rotate(2, 3, NOW + REFRESH_GRACE_MS).await));
}

#[tokio::test]
async fn a_token_spent_longer_ago_than_the_grace_ends_its_login() {
    let root = logged_in().await;
    assert!(is_rotated(&root.rotate(1, 2, NOW).await));
    assert_eq!(root.rotate(1, 2, NOW + REFRESH_GRACE_MS + 1).await, reused());
    assert!(is_revoked(&root, 1).await);
    assert_eq!(root.rotate(2, 3, NOW + 20_000).await, refused(RefusalReason::Revoked));
}

#[tokio::test]
async fn a_grandparent_ends_its_login_even_within_the_grace() {
    let root = logged_in().await;
    root.begin_login(2, 1, 100).await;
    assert!(is_rotated(&root.rotate(1, 2, NOW).await));
    assert!(is_rotated(&root.rotate(2, 3, NOW + 1).await));
    assert_eq!(root.rotate(1, 2, NOW + 2).await, reused());
    assert!(is_revoked(&root, 1).await);
    assert!(!is_revoked(&root, 2).await, "the user's other login has to go on");
}

#[tokio::test]
async fn a_token_is_good_until_its_time_and_not_at_it() {
    let root = logged_in().await;
    root.begin_login(2, 1, 100).await;
    assert!(is_rotated(&root.rotate(1, 2, NOW + LIFETIME - 1).await));
    assert_eq!(root.rotate(100, 101, NOW + LIFETIME).await, refused(RefusalReason::Expired));
}

#[tokio::test]
async fn of_many_that_present_one_token_at_once_one_rotates_it() {
    let root = logged_in().await;
    let command = rotate(1, 2, NOW);
    let submit = |()| root.db.writer().submit(command.clone(), WriteContext::default());
    let receipts: Vec<_> = [(); 50].map(submit).into();
    let mut rotated = 0;
    for receipt in receipts {
        match receipt.await.unwrap().output {
            RotateOutcome::Rotated { .. } => rotated += 1,
            RotateOutcome::Repeated { .. } => {}
            RotateOutcome::Refused { reason } => panic!("refused: {reason:?}"),
        }
    }
    assert_eq!(rotated, 1);
}

#[tokio::test]
async fn a_login_that_was_ended_stays_ended() {
    let root = logged_in().await;
    let end = |at| RevokeAuthSession { id: login_id(1), at };
    root.run(end(NOW)).await.unwrap();
    root.run(end(NOW + 1)).await.unwrap();
    root.run(RevokeAuthSession { id: login_id(9), at: NOW }).await.unwrap();
    assert!(is_revoked(&root, 1).await);
    assert_eq!(root.rotate(1, 2, NOW).await, refused(RefusalReason::Revoked));
}

#[tokio::test]
async fn a_disabled_user_gets_no_token() {
    let root = logged_in().await;
    let conn = Connection::open(root.path()).unwrap();
    conn.execute("UPDATE users SET disabled = 1, epoch = 7", []).unwrap();
    assert_eq!(root.rotate(1, 2, NOW).await, refused(RefusalReason::Disabled));
    let access = root.reader.access(&user_id(1), &login_id(1), None).await.unwrap();
    let expected = Access {
        user_epoch: 7,
        disabled: true,
        is_admin: false,
        session_revoked: false,
        role: None,
        project_archived: false,
        project_uncloned: false,
    };
    assert_eq!(access, Some(expected));
}

#[tokio::test]
async fn a_login_of_another_user_or_of_nobody_counts_as_ended() {
    let root = logged_in().await;
    root.user(2).await;
    root.begin_login(2, 2, 100).await;
    assert!(!is_revoked(&root, 1).await);
    assert!(is_revoked(&root, 2).await);
    assert!(is_revoked(&root, 3).await);
    let nobody = root.reader.access(&user_id(9), &login_id(1), None).await.unwrap();
    assert_eq!(nobody, None);
}

#[tokio::test]
async fn a_new_login_forgets_those_of_the_user_whose_time_is_over() {
    let root = logged_in().await;
    let later = BeginAuthSession {
        at: NOW + LIFETIME,
        expires_at: NOW + 2 * LIFETIME,
        ..begin_login(2, 1, 100)
    };
    root.run(later).await.unwrap();
    assert_eq!(root.rotate(1, 2, NOW + LIFETIME).await, refused(RefusalReason::Unknown));
    assert!(is_revoked(&root, 1).await);
    assert!(!is_revoked(&root, 2).await);
}

#[tokio::test]
async fn a_spent_token_is_forgotten_when_its_expiry_is_long_past() {
    let root = logged_in().await;
    let forgotten_at = NOW + LIFETIME + EXPIRED_TOKEN_KEPT_MS;
    assert!(is_rotated(&root.rotate(1, 2, NOW).await));
    let conn = Connection::open(root.path()).unwrap();
    let keep = "UPDATE refresh_tokens SET expires_at = ?1 WHERE used_at IS NULL";
    conn.execute(keep, [i64::MAX]).unwrap();

    assert!(is_rotated(&root.rotate(2, 3, forgotten_at).await));
    let count = |conn: &Connection| -> i64 {
        conn.query_row("SELECT count(*) FROM refresh_tokens", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(count(&conn), 3);
    conn.execute(keep, [i64::MAX]).unwrap();
    assert!(is_rotated(&root.rotate(3, 4, forgotten_at + 1).await));
    assert_eq!(count(&conn), 3);
    assert_eq!(root.rotate(1, 2, forgotten_at + 1).await, refused(RefusalReason::Unknown));
}

#[tokio::test]
async fn logins_that_ended_take_no_place_from_those_that_have_not() {
    let root = Root::new();
    root.user(1).await;
    root.begin_login(1, 1, 1).await;
    let is_good = async |n: u128| {
        let access = root.reader.access(&user_id(1), &login_id(n), None).await.unwrap();
        access.is_some_and(|access| !access.session_revoked)
    };
    let most = LOGINS_PER_USER_MAX as u128;
    // A program that logs in for each thing that it does, and out again.
    for n in 2..=2 * most {
        let mut login = begin_login(n, 1, 0);
        login.refresh_hash[..16].copy_from_slice(&n.to_be_bytes());
        root.run(login).await.unwrap();
        root.run(RevokeAuthSession { id: login_id(n), at: NOW }).await.unwrap();
    }
    assert!(is_good(1).await, "the login that stays is there");
    // Of those that have not ended the oldest goes.
    for n in 2 * most + 1..=3 * most {
        assert!(is_good(1).await, "{n}");
        let mut login = begin_login(n, 1, 0);
        login.refresh_hash[..16].copy_from_slice(&n.to_be_bytes());
        root.run(login).await.unwrap();
    }
    assert!(!is_good(1).await && is_good(2 * most + 1).await && is_good(3 * most).await);
}
