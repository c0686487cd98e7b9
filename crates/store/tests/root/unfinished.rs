//! What must go on after a crash: marks of unfinished work, events on their way, directories that are
//! being made or removed.

use iris_protocol::{Event, Role};
use iris_store::root::{
    ClearUnfinished, DeleteProject, ForgetDirectory, IntendDirectory, Leftover, MarkUnfinished,
    OutboxEntry, RemoveMember, SetProjectArchived, SettleOutbox, UpdateMember, UpdateProject,
};

use super::*;

fn mark(n: u128) -> MarkUnfinished {
    MarkUnfinished { project_id: project_id(n), at: NOW }
}

fn rename(n: u128, name: &str, at: i64) -> UpdateProject {
    UpdateProject {
        id: project_id(n),
        name: Some(name.to_owned()),
        description: None,
        settings: None,
        by: user_id(1),
        at,
    }
}

impl Root {
    async fn events(&self, project: u128) -> Vec<Event> {
        let entries = self.reader.outbox(&project_id(project)).await.unwrap();
        assert!(entries.is_sorted_by(|a, b| a.id < b.id), "{entries:?}");
        entries.into_iter().map(|entry| entry.event).collect()
    }

    async fn entry_ids(&self, project: u128) -> Vec<u64> {
        let entries = self.reader.outbox(&project_id(project)).await.unwrap();
        entries.into_iter().map(|entry| entry.id).collect()
    }
}

/// A user with two projects, of which nobody knows anything unfinished.
async fn two_projects() -> Root {
    let root = Root::new();
    root.user(1).await;
    root.user(2).await;
    root.project(1, 1).await;
    root.project(2, 1).await;
    root
}

#[tokio::test]
async fn a_project_is_marked_until_its_mark_is_cleared() {
    let root = two_projects().await;
    assert_eq!(root.reader.unfinished_projects().await.unwrap(), []);
    for _ in 0..2 {
        root.run(mark(2)).await.unwrap();
        assert_eq!(root.reader.unfinished_projects().await.unwrap(), [project_id(2)]);
    }
    let location = root.reader.project_location(&project_id(2)).await.unwrap().unwrap();
    assert!(location.is_unfinished);
    for _ in 0..2 {
        root.run(ClearUnfinished { project_id: project_id(2) }).await.unwrap();
        assert_eq!(root.reader.unfinished_projects().await.unwrap(), []);
    }
    assert_eq!(missing(root.run(mark(9)).await), "project");
}

#[tokio::test]
async fn the_mark_and_the_events_of_a_project_go_with_it() {
    let root = two_projects().await;
    root.run(mark(1)).await.unwrap();
    root.run(rename(1, "new", NOW)).await.unwrap();
    root.run(DeleteProject { id: project_id(1), keep_backups: false, at: NOW }).await.unwrap();
    assert_eq!(root.reader.unfinished_projects().await.unwrap(), []);
    assert_eq!(root.events(1).await, []);
}

#[tokio::test]
async fn whatever_changes_in_a_project_is_on_its_way_in_the_order_of_the_changes() {
    let root = two_projects().await;
    root.run(rename(1, "new", NOW)).await.unwrap();
    root.run(rename(2, "other", NOW)).await.unwrap();
    root.add_member(1, 2, Role::Viewer).await;
    let (project_id, user_id, by) = (project_id(1), user_id(2), user_id(1));
    let update = UpdateMember {
        project_id: project_id.clone(),
        user_id: user_id.clone(),
        role: Role::Admin,
        by: by.clone(),
        at: NOW,
    };
    let member = root.run(update).await.unwrap();
    let removal = RemoveMember {
        project_id: project_id.clone(),
        user_id: user_id.clone(),
        by: by.clone(),
        at: NOW,
    };
    root.run(removal.clone()).await.unwrap();
    // One that is refused tells nobody anything.
    root.run(removal).await.unwrap_err();
    for archived in [true, false] {
        let (id, by) = (project_id.clone(), by.clone());
        root.run(SetProjectArchived { id, archived, by, at: NOW }).await.unwrap();
    }
    let expected = [
        Event::ProjectUpdated { project_id: project_id.clone(), name: "new".to_owned() },
        Event::MemberAdded {
            member: iris_protocol::Member { role: Role::Viewer, ..member.clone() },
        },
        Event::MemberUpdated { member },
        Event::MemberRemoved { user_id },
        Event::ProjectArchived { project_id: project_id.clone() },
        Event::ProjectUnarchived { project_id },
    ];
    assert_eq!(root.events(1).await, expected);
    assert_eq!(root.events(2).await.len(), 1);
    let first: OutboxEntry = root.reader.outbox(&super::project_id(1)).await.unwrap().remove(0);
    assert_eq!((first.by, first.at), (by, NOW));
    let both = [super::project_id(1), super::project_id(2)];
    assert_eq!(root.reader.unfinished_projects().await.unwrap(), both);
}

#[tokio::test]
async fn what_is_published_is_forgotten_and_what_came_later_is_not() {
    let root = two_projects().await;
    for n in 0..3 {
        root.run(rename(1, &n.to_string(), NOW)).await.unwrap();
    }
    root.run(rename(2, "other", NOW)).await.unwrap();
    let ids = root.entry_ids(1).await;
    let settle = SettleOutbox { project_id: project_id(1), up_to: ids[1] };
    root.run(settle).await.unwrap();
    assert_eq!(root.entry_ids(1).await, ids[2..]);
    assert_eq!(root.entry_ids(2).await.len(), 1);
}

#[tokio::test]
async fn ids_rise_with_time_and_when_it_stands_still_or_goes_back() {
    let root = two_projects().await;
    let mut last = 0;
    for at in [NOW, NOW, NOW - 1_000, NOW + 1] {
        root.run(rename(1, "new", at)).await.unwrap();
        let ids = root.entry_ids(1).await;
        let id = *ids.last().unwrap();
        assert!(id > last, "{ids:?}");
        last = id;
        root.run(SettleOutbox { project_id: project_id(1), up_to: id }).await.unwrap();
    }
    // A database that was restored from before all of this uses none of these ids again.
    let restored = two_projects().await;
    restored.run(rename(1, "new", NOW + 2)).await.unwrap();
    assert!(restored.entry_ids(1).await[0] > last);
}

#[tokio::test]
async fn the_directory_of_a_project_is_nobodys_until_it_is_created_and_after_it_is_deleted() {
    let root = two_projects().await;
    let intend = |n| IntendDirectory { project_id: project_id(n), at: NOW };
    root.run(intend(3)).await.unwrap();
    root.run(intend(4)).await.unwrap();
    root.project(3, 1).await;
    let left = |n, with_backups| Leftover { project_id: project_id(n), with_backups };
    assert_eq!(root.reader.leftovers().await.unwrap(), [left(4, false)]);
    root.run(DeleteProject { id: project_id(1), keep_backups: false, at: NOW }).await.unwrap();
    let keep = DeleteProject { id: project_id(2), keep_backups: true, at: NOW };
    root.run(keep).await.unwrap();
    let expected = [left(1, true), left(2, false), left(4, false)];
    assert_eq!(root.reader.leftovers().await.unwrap(), expected);
    for n in [1, 2, 4] {
        root.run(ForgetDirectory { project_id: project_id(n) }).await.unwrap();
    }
    assert_eq!(root.reader.leftovers().await.unwrap(), []);
}
