//! Who users are at other providers of logins.

use iris_protocol::{Identity, IdentityId, limits::IDENTITIES_PER_USER_MAX};
use iris_store::root::{
    BeginAuthSession, BeginPasswordReset, CreateLinkedUser, CreateUser, DeleteUser,
    FinishPasswordReset, IdentityUse, LinkIdentity, NewIdentity, UnlinkIdentity,
};

use crate::{NOW, Root, begin_login, conflict, create_user, hash, missing, user_id};

fn identity_id(n: usize) -> IdentityId {
    IdentityId::from_bits(n as u128)
}

fn new(n: usize) -> NewIdentity {
    NewIdentity {
        id: identity_id(n),
        provider: "fake".to_owned(),
        issuer: "https://i.example".to_owned(),
        subject: format!("subject {n}"),
        email: None,
    }
}

fn link(user: u128, n: usize) -> LinkIdentity {
    LinkIdentity { user_id: user_id(user), identity: new(n), at: NOW }
}

fn unlink(user: u128, n: usize) -> UnlinkIdentity {
    let issuers = vec!["https://i.example".to_owned()];
    UnlinkIdentity { user_id: user_id(user), id: identity_id(n), issuers, keep: None, at: NOW }
}

fn stranger(user: u128, n: usize) -> CreateLinkedUser {
    let user = CreateUser { password_hash: None, ..create_user(user) };
    CreateLinkedUser { user, identity: new(n), invitation: None }
}

async fn own(root: &Root, user: u128) -> Vec<Identity> {
    root.reader.identities(&user_id(user)).await.unwrap()
}

/// Whose the identity is.
async fn whose(root: &Root, n: usize) -> Option<iris_protocol::UserId> {
    let found = root.reader.identity("https://i.example", &format!("subject {n}")).await.unwrap();
    found.map(|(id, account)| {
        assert_eq!(id, identity_id(n));
        account.user.id
    })
}

/// Whoever got in before may have linked one.
#[tokio::test]
async fn a_password_that_is_set_with_a_link_leaves_no_other_way_in() {
    let root = Root::new();
    root.user(1).await;
    root.user(2).await;
    for command in [link(1, 1), link(1, 2), link(2, 3)] {
        root.run(command).await.unwrap();
    }
    let begin = BeginPasswordReset { user_id: user_id(1), hash: hash(1), expires_at: NOW + 10 };
    root.run(begin).await.unwrap();
    let finish = |n| FinishPasswordReset { hash: hash(n), password_hash: "$new".into(), at: NOW };
    assert_eq!(root.run(finish(2)).await.unwrap(), None);
    assert_eq!(own(&root, 1).await.len(), 2);
    assert_eq!(root.run(finish(1)).await.unwrap(), Some(user_id(1)));
    assert!(own(&root, 1).await.is_empty());
    assert_eq!(whose(&root, 3).await, Some(user_id(2)));
}

#[tokio::test]
async fn an_identity_is_one_users_and_found_by_issuer_and_subject() {
    let root = Root::new();
    root.user(1).await;
    root.user(2).await;
    let made = root.run(link(1, 1)).await.unwrap();
    assert_eq!(own(&root, 1).await, [made]);
    assert_eq!(whose(&root, 1).await, Some(user_id(1)));
    for (issuer, subject) in
        [("https://i.example/", "subject 1"), ("https://i.example", "Subject 1")]
    {
        assert_eq!(root.reader.identity(issuer, subject).await.unwrap(), None);
    }
    for user in [1, 2] {
        let again = LinkIdentity {
            identity: NewIdentity { id: identity_id(9), ..new(1) },
            ..link(user, 1)
        };
        assert_eq!(conflict(root.run(again).await), "identity_taken");
    }
    assert_eq!(missing(root.run(link(3, 2)).await), "user");
    for n in 2..=IDENTITIES_PER_USER_MAX {
        root.run(link(1, n)).await.unwrap();
    }
    assert_eq!(conflict(root.run(link(1, 99)).await), "too_many_identities");
}

#[tokio::test]
async fn a_user_is_made_with_an_identity_or_not_at_all() {
    let root = Root::new();
    let made = root.run(stranger(1, 1)).await.unwrap();
    assert_eq!((made.user.id, made.project_id), (user_id(1), None));
    assert_eq!(whose(&root, 1).await, Some(user_id(1)));
    assert_eq!(conflict(root.run(stranger(2, 1)).await), "identity_taken");
    assert_eq!(conflict(root.run(stranger(1, 2)).await), "email_taken");
    let invited = CreateLinkedUser { invitation: Some(hash(1)), ..stranger(2, 2) };
    assert_eq!(missing(root.run(invited).await), "invitation");
    assert_eq!(root.reader.user(&user_id(2)).await.unwrap(), None);
    assert_eq!(whose(&root, 2).await, None);
}

#[tokio::test]
async fn the_last_way_in_stays() {
    let root = Root::new();
    root.run(stranger(1, 1)).await.unwrap();
    root.user(2).await;
    root.run(link(2, 2)).await.unwrap();
    assert_eq!(conflict(root.run(unlink(1, 1)).await), "last_way_in");
    assert_eq!(missing(root.run(unlink(1, 2)).await), "identity");
    root.run(unlink(2, 2)).await.unwrap();
    assert_eq!(missing(root.run(unlink(2, 2)).await), "identity");
    root.run(link(1, 3)).await.unwrap();
    // One at a provider that is gone is no way in.
    let gone = UnlinkIdentity { issuers: Vec::new(), ..unlink(1, 1) };
    assert_eq!(conflict(root.run(gone).await), "last_way_in");
    root.run(unlink(1, 1)).await.unwrap();
    assert_eq!(conflict(root.run(unlink(1, 3)).await), "last_way_in");
}

#[tokio::test]
async fn a_login_notes_its_identity_and_none_begins_by_one_that_is_gone() {
    let root = Root::new();
    root.user(1).await;
    root.run(link(1, 1)).await.unwrap();
    let used = |n| Some(IdentityUse { id: identity_id(n), email: Some("a@b.c".to_owned()) });
    let by = |n, token| BeginAuthSession {
        identity: used(n),
        at: NOW + 5,
        ..begin_login(n as u128, 1, token)
    };
    root.run(by(1, 1)).await.unwrap();
    let noted = own(&root, 1).await.remove(0);
    assert_eq!((noted.last_login_at, noted.email.as_deref()), (Some(NOW + 5), Some("a@b.c")));
    assert_eq!(missing(root.run(by(2, 2)).await), "identity");
    assert_eq!(root.reader.logins(&user_id(1), NOW).await.unwrap().len(), 1);
}

#[tokio::test]
async fn identities_go_with_their_user() {
    let root = Root::new();
    root.run(stranger(1, 1)).await.unwrap();
    root.run(DeleteUser { id: user_id(1), by: user_id(1), at: NOW }).await.unwrap();
    assert_eq!((whose(&root, 1).await, own(&root, 1).await), (None, Vec::new()));
    root.run(stranger(2, 1)).await.unwrap();
    assert_eq!(whose(&root, 1).await, Some(user_id(2)));
}
