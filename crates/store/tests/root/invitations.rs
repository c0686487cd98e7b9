//! Invitations, ownership.

use iris_protocol::{InvitationId, InvitationState, Role};
use iris_store::root::{
    AcceptInvitation, CreateInvitation, CreateInvitedUser, RevokeInvitation, TransferProject,
    UpdateMember, UpdateUser,
};

use crate::{NOW, Root, conflict, create_user, hash, missing, project_id, user_id};

fn invite(n: u8, email: Option<&str>) -> CreateInvitation {
    CreateInvitation {
        id: InvitationId::from_bits(u128::from(n)),
        place: Some((project_id(1), Role::Member)),
        email: email.map(str::to_owned),
        hash: hash(n),
        by: user_id(1),
        expires_at: NOW + 100,
        at: NOW,
    }
}

fn accept(n: u8, user: u128, at: i64) -> AcceptInvitation {
    AcceptInvitation { hash: hash(n), user_id: user_id(user), at }
}

async fn with_people() -> Root {
    let root = Root::new();
    for n in 1..=3 {
        root.user(n).await;
    }
    root.project(1, 1).await;
    root
}

async fn role(root: &Root, user: u128) -> Option<Role> {
    root.reader.role(&user_id(user), &project_id(1)).await.unwrap()
}

#[tokio::test]
async fn an_invitation_is_accepted_once_in_its_time_by_whom_it_is_for() {
    let root = with_people().await;
    root.run(invite(1, Some("user2@example.com"))).await.unwrap();
    assert_eq!(missing(root.run(accept(1, 3, NOW)).await), "invitation");
    assert_eq!(missing(root.run(accept(1, 2, NOW + 100)).await), "invitation");
    assert_eq!(missing(root.run(accept(9, 2, NOW)).await), "invitation");
    let accepted = root.run(accept(1, 2, NOW)).await.unwrap();
    assert_eq!(accepted.project_id, Some(project_id(1)));
    assert_eq!(role(&root, 2).await, Some(Role::Member));
    assert_eq!(missing(root.run(accept(1, 2, NOW)).await), "invitation");
    let listed = root.reader.invitations(Some(&project_id(1)), NOW).await.unwrap();
    assert_eq!(listed[0].state, InvitationState::Accepted);
    assert_eq!(root.reader.outbox(&project_id(1)).await.unwrap().len(), 1);
    let revoke = RevokeInvitation {
        id: InvitationId::from_bits(1),
        project_id: Some(project_id(1)),
        at: NOW,
    };
    assert_eq!(conflict(root.run(revoke).await), "invitation_accepted");
}

#[tokio::test]
async fn an_invitation_is_void_once_it_is_taken_back_or_its_maker_may_invite_no_more() {
    let root = with_people().await;
    root.add_member(1, 2, Role::Admin).await;
    let by_two = |n| CreateInvitation { by: user_id(2), ..invite(n, None) };
    root.run(by_two(1)).await.unwrap();
    root.run(by_two(2)).await.unwrap();
    let id = InvitationId::from_bits(1);
    let elsewhere = RevokeInvitation { id: id.clone(), project_id: None, at: NOW };
    assert_eq!(missing(root.run(elsewhere).await), "invitation");
    let revoke = RevokeInvitation { id, project_id: Some(project_id(1)), at: NOW };
    root.run(revoke).await.unwrap();
    assert_eq!(missing(root.run(accept(1, 3, NOW)).await), "invitation");
    let demote = UpdateMember {
        project_id: project_id(1),
        user_id: user_id(2),
        role: Role::Member,
        by: user_id(1),
        at: NOW,
    };
    root.run(demote).await.unwrap();
    assert_eq!(missing(root.run(accept(2, 3, NOW)).await), "invitation");
    assert_eq!(role(&root, 3).await, None);
}

#[tokio::test]
async fn a_higher_role_is_kept_and_a_new_user_comes_with_the_invitation_or_not_at_all() {
    let root = with_people().await;
    root.add_member(1, 2, Role::Admin).await;
    root.run(invite(1, None)).await.unwrap();
    root.run(accept(1, 2, NOW)).await.unwrap();
    assert_eq!(role(&root, 2).await, Some(Role::Admin));

    let invited = |hash| CreateInvitedUser { user: create_user(9), hash };
    assert_eq!(missing(root.run(invited(hash(7))).await), "invitation");
    assert_eq!(root.reader.user(&user_id(9)).await.unwrap(), None);
    root.run(invite(2, Some("user9@example.com"))).await.unwrap();
    root.run(invited(hash(2))).await.unwrap();
    assert_eq!(role(&root, 9).await, Some(Role::Member));
}

#[tokio::test]
async fn there_is_one_owner_before_and_after_a_transfer() {
    let root = with_people().await;
    root.add_member(1, 2, Role::Viewer).await;
    let transfer = |from, to| TransferProject {
        project_id: project_id(1),
        from: user_id(from),
        to: user_id(to),
        at: NOW,
    };
    assert_eq!(missing(root.run(transfer(1, 3)).await), "member");
    assert_eq!(missing(root.run(transfer(2, 1)).await), "project");
    assert_eq!(conflict(root.run(transfer(1, 1)).await), "owner_role");
    let close = UpdateUser { disabled: Some(true), ..UpdateUser::of(user_id(2), NOW) };
    root.run(close).await.unwrap();
    assert_eq!(conflict(root.run(transfer(1, 2)).await), "user_disabled");
    let open = UpdateUser { disabled: Some(false), ..UpdateUser::of(user_id(2), NOW) };
    root.run(open).await.unwrap();
    root.run(transfer(1, 2)).await.unwrap();
    let roles = (role(&root, 1).await, role(&root, 2).await);
    assert_eq!(roles, (Some(Role::Admin), Some(Role::Owner)));
    let project = root.reader.project(&user_id(2), &project_id(1)).await.unwrap().unwrap();
    assert_eq!(project.owner_id, user_id(2));
}
