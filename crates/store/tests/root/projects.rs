//! Projects and their members.

use iris_protocol::{ErrorCode, Member, Project, ProjectType, Role, limits};
use iris_store::root::{
    Access, AddMember, CreateProject, DeleteProject, ProjectLocation, RemoveMember,
    SetProjectArchived, UpdateMember, UpdateProject,
};
use serde_json::{Map, json};

use crate::{NOW, Root, conflict, create_project, login_id, missing, project_id, user_id};

/// User 1 owns project 1, user 2 is in it with the role `member`, user 3 is not.
async fn shared_project() -> Root {
    let root = Root::new();
    for n in 1..=3 {
        root.user(n).await;
    }
    root.project(1, 1).await;
    root.add_member(1, 2, Role::Member).await;
    root
}

fn update(n: u128, by: u128) -> UpdateProject {
    UpdateProject {
        id: project_id(n),
        name: None,
        description: None,
        settings: None,
        by: user_id(by),
        at: NOW + 1,
    }
}

fn set_archived(n: u128, archived: bool, at: i64) -> SetProjectArchived {
    SetProjectArchived { id: project_id(n), archived, by: user_id(1), at }
}

fn delete(n: u128) -> DeleteProject {
    DeleteProject { id: project_id(n), keep_backups: false, at: NOW }
}

#[tokio::test]
async fn a_new_project_has_its_owner_as_its_one_member() {
    let root = Root::new();
    root.user(1).await;
    let command = CreateProject {
        description: Some("For tests".to_owned()),
        path: Some("/srv/one".to_owned()),
        ..create_project(1, 1)
    };
    let expected = Project {
        id: project_id(1),
        name: "Project 1".to_owned(),
        description: Some("For tests".to_owned()),
        r#type: ProjectType::Local,
        path: Some("/srv/one".to_owned()),
        git: None,
        owner_id: user_id(1),
        role: Role::Owner,
        settings: Map::new(),
        storage: None,
        created_at: NOW,
        updated_at: NOW,
        archived_at: None,
    };
    assert_eq!(root.run(command).await.unwrap(), expected);
    let read = root.reader.project(&user_id(1), &project_id(1)).await.unwrap();
    assert_eq!(read, Some(expected));
    let owner = Member {
        user_id: user_id(1),
        avatar_url: None,
        username: "user1".to_owned(),
        role: Role::Owner,
        joined_at: NOW,
    };
    assert_eq!(root.reader.members(&project_id(1)).await.unwrap(), vec![owner]);
    let location = ProjectLocation {
        path: Some("/srv/one".to_owned()),
        r#type: ProjectType::Local,
        archived: false,
        is_unfinished: false,
    };
    assert_eq!(root.reader.project_location(&project_id(1)).await.unwrap(), Some(location));
}

#[tokio::test]
async fn a_project_needs_its_owner() {
    let root = Root::new();
    assert_eq!(missing(root.run(create_project(1, 1)).await), "user");
    assert!(root.reader.all_project_ids().await.unwrap().is_empty());
}

#[tokio::test]
async fn no_two_projects_share_a_directory() {
    let root = Root::new();
    root.user(1).await;
    root.project(1, 1).await;
    let at = |n, path: &str| CreateProject { path: Some(path.into()), ..create_project(n, 1) };
    root.run(at(2, "/srv/a/b")).await.unwrap();
    for taken in ["/srv/a/b", "/srv/a/b/", "/srv/a/b/c", "/srv/a", "/"] {
        assert_eq!(conflict(root.run(at(3, taken)).await), "path_taken", "{taken}");
    }
    for (n, free) in (3..).zip(["/srv/a/bc", "/srv/a/c", "/srv/b"]) {
        root.run(at(n, free)).await.unwrap();
    }
    root.project(6, 1).await;
    root.run(delete(2)).await.unwrap();
    root.run(at(7, "/srv/a/b")).await.unwrap();
}

#[tokio::test]
async fn a_project_is_visible_to_its_members_alone_each_with_their_role() {
    let root = shared_project().await;
    let seen = root.reader.project(&user_id(2), &project_id(1)).await.unwrap();
    assert_eq!(seen.unwrap().role, Role::Member);
    assert_eq!(root.reader.project(&user_id(3), &project_id(1)).await.unwrap(), None);
    assert_eq!(root.reader.project(&user_id(1), &project_id(9)).await.unwrap(), None);
    let page = root.reader.projects(&user_id(3), 10, None, true).await.unwrap();
    assert_eq!((page.projects, page.next_cursor, page.has_more), (vec![], None, false));
}

#[tokio::test]
async fn an_update_changes_what_it_names() {
    let root = shared_project().await;
    let before = root.reader.project(&user_id(1), &project_id(1)).await.unwrap().unwrap();
    let settings =
        Map::from_iter([("b".to_owned(), json!(1)), ("a".to_owned(), json!([true, null]))]);
    let command = UpdateProject {
        name: Some("Other".to_owned()),
        settings: Some(settings.clone()),
        ..update(1, 1)
    };
    let expected = Project { name: "Other".to_owned(), settings, updated_at: NOW + 1, ..before };
    assert_eq!(root.run(command).await.unwrap(), expected);

    let command = UpdateProject { description: Some("What for".to_owned()), ..update(1, 2) };
    let expected =
        Project { description: Some("What for".to_owned()), role: Role::Member, ..expected };
    assert_eq!(root.run(command).await.unwrap(), expected);
}

#[tokio::test]
async fn an_update_by_somebody_who_is_no_member_changes_nothing() {
    let root = shared_project().await;
    let command = UpdateProject { name: Some("Mine".to_owned()), ..update(1, 3) };
    assert_eq!(missing(root.run(command).await), "project");
    assert_eq!(missing(root.run(update(9, 1)).await), "project");
    let read = root.reader.project(&user_id(1), &project_id(1)).await.unwrap().unwrap();
    assert_eq!((read.name.as_str(), read.updated_at), ("Project 1", NOW));
}

#[tokio::test]
async fn an_archived_project_leaves_the_default_list_and_comes_back() {
    let root = shared_project().await;
    let archived = root.run(set_archived(1, true, NOW + 5)).await.unwrap();
    assert_eq!(archived.archived_at, Some(NOW + 5));
    let again = root.run(set_archived(1, true, NOW + 6)).await.unwrap();
    assert_eq!(again.archived_at, Some(NOW + 5));
    let default = root.reader.projects(&user_id(2), 10, None, false).await.unwrap();
    assert!(default.projects.is_empty());
    let all = root.reader.projects(&user_id(2), 10, None, true).await.unwrap();
    assert_eq!(all.projects.len(), 1);
    let location = root.reader.project_location(&project_id(1)).await.unwrap().unwrap();
    assert!(location.archived);

    let back = root.run(set_archived(1, false, NOW + 7)).await.unwrap();
    assert_eq!(back.archived_at, None);
    assert_eq!(missing(root.run(set_archived(9, true, NOW)).await), "project");
}

#[tokio::test]
async fn a_deleted_project_takes_its_memberships_along() {
    let root = shared_project().await;
    root.run(delete(1)).await.unwrap();
    assert_eq!(missing(root.run(delete(1)).await), "project");
    assert!(root.reader.members(&project_id(1)).await.unwrap().is_empty());
    assert_eq!(root.reader.project(&user_id(2), &project_id(1)).await.unwrap(), None);
    assert_eq!(root.reader.project_location(&project_id(1)).await.unwrap(), None);
}

#[tokio::test]
async fn pages_show_every_project_once_newest_first() {
    let root = Root::new();
    root.user(1).await;
    for n in 1..=5 {
        root.project(n, 1).await;
    }
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = root.reader.projects(&user_id(1), 2, cursor.as_deref(), false).await.unwrap();
        assert_eq!(page.has_more, page.next_cursor.is_some());
        seen.extend(page.projects.into_iter().map(|project| project.id));
        cursor = page.next_cursor;
        if !page.has_more {
            break;
        }
    }
    let expected: Vec<_> = (1..=5).rev().map(project_id).collect();
    assert_eq!(seen, expected);
    let ids: Vec<_> = (1..=5).map(project_id).collect();
    assert_eq!(root.reader.all_project_ids().await.unwrap(), ids);
}

#[tokio::test]
async fn a_page_has_at_least_one_entry_and_at_most_the_limit() {
    let root = Root::new();
    root.user(1).await;
    for n in 1..=u128::from(limits::PAGE_MAX) + 1 {
        root.project(n, 1).await;
    }
    let page = root.reader.projects(&user_id(1), u32::MAX, None, false).await.unwrap();
    assert_eq!((page.projects.len(), page.has_more), (limits::PAGE_MAX as usize, true));
    let page = root.reader.projects(&user_id(1), 0, None, false).await.unwrap();
    assert_eq!((page.projects.len(), page.has_more), (1, true));
}

#[tokio::test]
async fn a_cursor_that_no_page_gave_is_refused() {
    let root = shared_project().await;
    let error = root.reader.projects(&user_id(1), 2, Some("prj_'--"), false).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn members_are_added_changed_and_removed() {
    let root = shared_project().await;
    let (project_id, owner, user_id) = (project_id(1), user_id(1), user_id(3));
    let command = AddMember {
        project_id: project_id.clone(),
        user_id: user_id.clone(),
        role: Role::Viewer,
        by: owner.clone(),
        at: NOW - 1,
    };
    let viewer = Member {
        user_id: user_id.clone(),
        avatar_url: None,
        username: "user3".to_owned(),
        role: Role::Viewer,
        joined_at: NOW - 1,
    };
    assert_eq!(root.run(command.clone()).await.unwrap(), viewer);
    assert_eq!(conflict(root.run(command).await), "already_member");
    let members = root.reader.members(&project_id).await.unwrap();
    let order: Vec<_> = members.into_iter().map(|member| member.username).collect();
    assert_eq!(order, ["user3", "user1", "user2"]);

    let command = UpdateMember {
        project_id: project_id.clone(),
        user_id: user_id.clone(),
        role: Role::Admin,
        by: owner.clone(),
        at: NOW,
    };
    let admin = Member { role: Role::Admin, ..viewer };
    assert_eq!(root.run(command.clone()).await.unwrap(), admin);
    assert_eq!(root.reader.member(&project_id, &user_id).await.unwrap(), Some(admin));

    let removal = RemoveMember {
        project_id: project_id.clone(),
        user_id: user_id.clone(),
        by: owner,
        at: NOW,
    };
    root.run(removal.clone()).await.unwrap();
    assert_eq!(missing(root.run(removal).await), "member");
    assert_eq!(missing(root.run(command).await), "member");
    assert_eq!(root.reader.member(&project_id, &user_id).await.unwrap(), None);
}

#[tokio::test]
async fn a_membership_needs_its_project_and_its_user() {
    let root = shared_project().await;
    let add = |project, user| AddMember {
        project_id: project_id(project),
        user_id: user_id(user),
        role: Role::Viewer,
        by: user_id(1),
        at: NOW,
    };
    assert_eq!(missing(root.run(add(9, 3)).await), "project");
    assert_eq!(missing(root.run(add(1, 9)).await), "user");
}

#[tokio::test]
async fn ownership_is_neither_given_nor_taken_away() {
    let root = shared_project().await;
    let project_id = project_id(1);
    let give = AddMember {
        project_id: project_id.clone(),
        user_id: user_id(3),
        role: Role::Owner,
        by: user_id(1),
        at: NOW,
    };
    assert_eq!(conflict(root.run(give).await), "owner_role");
    for (user, role) in [(1, Role::Viewer), (2, Role::Owner)] {
        let (project_id, by) = (project_id.clone(), user_id(1));
        let change = UpdateMember { project_id, user_id: user_id(user), role, by, at: NOW };
        assert_eq!(conflict(root.run(change).await), "owner_role");
    }
    let removal = RemoveMember {
        project_id: project_id.clone(),
        user_id: user_id(1),
        by: user_id(1),
        at: NOW,
    };
    assert_eq!(conflict(root.run(removal).await), "last_owner");
    let roles: Vec<_> =
        root.reader.members(&project_id).await.unwrap().into_iter().map(|m| m.role).collect();
    assert_eq!(roles, [Role::Owner, Role::Member]);
}

#[tokio::test]
async fn access_tells_role_and_archive_of_the_project_asked_for() {
    let root = shared_project().await;
    root.begin_login(1, 2, 1).await;
    let access = async |project: Option<u128>| {
        let project_id = project.map(project_id);
        root.reader.access(&user_id(2), &login_id(1), project_id.as_ref()).await.unwrap()
    };
    let outside = Access {
        user_epoch: 0,
        disabled: false,
        is_admin: false,
        session_revoked: false,
        role: None,
        project_archived: false,
        project_uncloned: false,
    };
    let inside = Access { role: Some(Role::Member), ..outside };
    assert_eq!(access(None).await, Some(outside));
    assert_eq!(access(Some(9)).await, Some(outside));
    assert_eq!(access(Some(1)).await, Some(inside));

    root.project(2, 1).await;
    assert_eq!(access(Some(2)).await, Some(outside));
    root.run(set_archived(1, true, NOW)).await.unwrap();
    assert_eq!(access(Some(1)).await, Some(Access { project_archived: true, ..inside }));
}
