//! The one place that decides whether a caller may run an operation.
//!
//! Every way in (WebSocket, commands, REST) asks here with the caller's role looked up freshly. A new
//! kind of right does not compile until it is answered here.

use iris_protocol::{
    ApiError, ErrorCode, KeyNeeds, Operation, ProjectId, Right, Role, Scope, UserId,
};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Nobody has proved who they are.
    Anonymous,
    /// A user with valid credentials.
    User(CallerUser),
}

/// A user who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerUser {
    /// The user.
    pub user_id: UserId,
    /// May manage the server ([`Right::Admin`]). Gives no right in anybody's project.
    pub is_admin: bool,
    /// What the API key may be used for that they ask with; `None` for a login, which may all.
    pub key: Option<KeyRights>,
}

/// What an API key may be used for, at most: it never gives a right that its user does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRights {
    /// Groups of operations.
    pub scopes: Vec<Scope>,
    /// The only project that it is good for.
    pub project_id: Option<ProjectId>,
}

/// What the operation touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource<'a> {
    /// Nothing in particular, or what belongs to the caller.
    Server,
    /// One project.
    Project {
        /// Which, as far as one was named.
        id: Option<&'a ProjectId>,
        /// The caller's role in it; `None` when they are not a member or there is no such project.
        role: Option<Role>,
    },
}

/// Why the caller may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// They have to say who they are first.
    #[error("authentication required")]
    Unauthenticated,
    /// They may not know whether the project exists.
    #[error("project not found")]
    NotFound,
    /// They are a member, with too small a role.
    #[error("this needs the role `{}` or a higher one", role_name(*needed))]
    Forbidden {
        /// The smallest role that may.
        needed: Role,
    },
    /// They are no administrator of the server.
    #[error("this needs an administrator of the server")]
    NotAdmin,
    /// Their API key is for other things.
    #[error("the API key has no scope `{}`", needed.as_str())]
    ScopeMissing {
        /// What it would need.
        needed: Scope,
    },
    /// Their API key is for one project, and this is about more.
    #[error("the API key is good for one project alone")]
    KeyOfProject,
    /// No API key may.
    #[error("this needs a login: no API key may")]
    NeedsLogin,
}

impl Denied {
    /// The code that a client sees.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unauthenticated => ErrorCode::Unauthenticated,
            Self::NotFound => ErrorCode::NotFound,
            Self::Forbidden { .. }
            | Self::NotAdmin
            | Self::ScopeMissing { .. }
            | Self::KeyOfProject
            | Self::NeedsLogin => ErrorCode::Forbidden,
        }
    }

    /// The error as a client sees it.
    pub fn to_error(&self) -> ApiError {
        let error = ApiError::new(self.code(), self.to_string());
        match self {
            Self::Unauthenticated => error.reason("missing_credentials"),
            Self::NotFound => error,
            Self::Forbidden { needed } => {
                error.reason("insufficient_role").detail("neededRole", role_name(*needed))
            }
            Self::NotAdmin => error.reason("not_admin"),
            Self::ScopeMissing { needed } => {
                error.reason("insufficient_scope").detail("neededScope", needed.as_str())
            }
            Self::KeyOfProject => error.reason("key_of_project"),
            Self::NeedsLogin => error.reason("needs_login"),
        }
    }
}

/// Decides whether `caller` may run `operation` on `resource`: what they are comes first, then what
/// the API key is for that they ask with.
///
/// An operation on a project that is asked for without naming one is refused as not found.
///
/// # Errors
/// [`Denied::Unauthenticated`] for an anonymous caller of anything that is not public,
/// [`Denied::NotFound`] for a project they are not a member of or their key is not for,
/// [`Denied::Forbidden`] for too small a role, [`Denied::NotAdmin`] for what administrators of the server
/// alone may, [`Denied::ScopeMissing`], [`Denied::KeyOfProject`] and [`Denied::NeedsLogin`] for what
/// their key is not for.
pub fn authorize(
    caller: &Caller,
    operation: Operation,
    resource: Resource<'_>,
) -> Result<(), Denied> {
    let user = match (operation.right(), caller) {
        (Right::Public, _) => return Ok(()),
        (Right::User | Right::Project(_) | Right::Admin, Caller::Anonymous) => {
            return Err(Denied::Unauthenticated);
        }
        (Right::User | Right::Project(_) | Right::Admin, Caller::User(user)) => user,
    };
    match operation.right() {
        Right::Public | Right::User => {}
        Right::Admin if user.is_admin => {}
        Right::Admin => return Err(Denied::NotAdmin),
        Right::Project(needed) => check_role(user, needed, resource)?,
    }
    check_key(user, operation)
}

fn check_role(user: &CallerUser, needed: Role, resource: Resource<'_>) -> Result<(), Denied> {
    let Resource::Project { id, role: Some(role) } = resource else {
        return Err(Denied::NotFound);
    };
    let only = user.key.as_ref().and_then(|key| key.project_id.as_ref());
    if only.is_some() && only != id {
        return Err(Denied::NotFound);
    }
    if role < needed {
        return Err(Denied::Forbidden { needed });
    }
    Ok(())
}

fn check_key(user: &CallerUser, operation: Operation) -> Result<(), Denied> {
    let Some(key) = &user.key else { return Ok(()) };
    let needed = match operation.key_needs() {
        KeyNeeds::Nothing => return Ok(()),
        KeyNeeds::Login => return Err(Denied::NeedsLogin),
        KeyNeeds::Scope(needed) => needed,
    };
    let is_in_project = matches!(operation.right(), Right::Project(_));
    if key.project_id.is_some() && !is_in_project {
        return Err(Denied::KeyOfProject);
    }
    if key.scopes.contains(&needed) { Ok(()) } else { Err(Denied::ScopeMissing { needed }) }
}

/// The role as it stands on the wire.
fn role_name(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Member => "member",
        Role::Admin => "admin",
        Role::Owner => "owner",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ROLES: [Role; 4] = [Role::Viewer, Role::Member, Role::Admin, Role::Owner];
    const OUTSIDE: Resource<'static> = Resource::Project { id: None, role: None };

    fn user(is_admin: bool) -> Caller {
        Caller::User(CallerUser { user_id: UserId::from_bits(1), is_admin, key: None })
    }

    /// An administrator of the server with a key.
    fn key(scopes: &[Scope], project_id: Option<ProjectId>) -> Caller {
        let key = Some(KeyRights { scopes: scopes.to_vec(), project_id });
        Caller::User(CallerUser { user_id: UserId::from_bits(1), is_admin: true, key })
    }

    fn inside(role: Role) -> Resource<'static> {
        Resource::Project { id: None, role: Some(role) }
    }

    fn every_resource() -> impl Iterator<Item = Resource<'static>> {
        let inside = ROLES.map(inside);
        [Resource::Server, OUTSIDE].into_iter().chain(inside)
    }

    #[test]
    fn an_anonymous_caller_reaches_public_operations_only() {
        for &operation in Operation::ALL {
            let expected = match operation.right() {
                Right::Public => Ok(()),
                Right::User | Right::Project(_) | Right::Admin => Err(Denied::Unauthenticated),
            };
            for resource in every_resource() {
                let answer = authorize(&Caller::Anonymous, operation, resource);
                assert_eq!(answer, expected, "{operation:?} on {resource:?}");
            }
        }
    }

    #[test]
    fn a_user_reaches_their_own_things_without_any_role() {
        for &operation in Operation::ALL {
            if matches!(operation.right(), Right::Public | Right::User) {
                for resource in every_resource() {
                    assert_eq!(authorize(&user(false), operation, resource), Ok(()));
                }
            }
        }
    }

    #[test]
    fn a_member_needs_the_role_of_the_operation_or_a_higher_one() {
        for &operation in Operation::ALL {
            let Right::Project(needed) = operation.right() else { continue };
            let needed_place = ROLES.iter().position(|&role| role == needed).unwrap();
            for (place, role) in ROLES.into_iter().enumerate() {
                let resource = inside(role);
                let expected =
                    if place >= needed_place { Ok(()) } else { Err(Denied::Forbidden { needed }) };
                let answer = authorize(&user(false), operation, resource);
                assert_eq!(answer, expected, "{operation:?} as {role:?}");
            }
        }
    }

    #[test]
    fn another_tenant_and_even_a_server_admin_finds_nothing() {
        for &operation in Operation::ALL {
            if let Right::Project(_) = operation.right() {
                for caller in [user(false), user(true)] {
                    for resource in [OUTSIDE, Resource::Server] {
                        let answer = authorize(&caller, operation, resource);
                        assert_eq!(answer, Err(Denied::NotFound), "{operation:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_actors_are_for_server_admins_whatever_their_roles() {
        let of_admins = |operation: &&Operation| operation.right() == Right::Admin;
        let operations: Vec<_> = Operation::ALL.iter().filter(of_admins).collect();
        assert!(operations.contains(&&Operation::ActorStop));
        for &&operation in &operations {
            for resource in every_resource() {
                assert_eq!(authorize(&user(true), operation, resource), Ok(()));
                let refused = Err(Denied::NotAdmin);
                assert_eq!(authorize(&user(false), operation, resource), refused);
            }
        }
    }

    #[test]
    fn a_viewer_changes_nothing() {
        let viewer = inside(Role::Viewer);
        let refused = Err(Denied::Forbidden { needed: Role::Member });
        assert_eq!(authorize(&user(false), Operation::MessageSend, viewer), refused);
        assert_eq!(authorize(&user(false), Operation::FileWrite, viewer), refused);
        assert_eq!(authorize(&user(false), Operation::FileRead, viewer), Ok(()));
    }

    #[test]
    fn a_key_needs_the_scope_of_each_operation_and_no_other_helps() {
        for &operation in Operation::ALL {
            if operation.right() == Right::Public {
                continue;
            }
            let answer =
                |scopes: &[Scope]| authorize(&key(scopes, None), operation, inside(Role::Owner));
            match operation.key_needs() {
                KeyNeeds::Nothing => assert_eq!(answer(&[]), Ok(()), "{operation:?}"),
                KeyNeeds::Login => {
                    assert_eq!(answer(Scope::ALL), Err(Denied::NeedsLogin), "{operation:?}");
                }
                KeyNeeds::Scope(needed) => {
                    let others: Vec<_> =
                        Scope::ALL.iter().copied().filter(|scope| *scope != needed).collect();
                    assert_eq!(answer(&others), Err(Denied::ScopeMissing { needed }));
                    assert_eq!(answer(&[needed]), Ok(()), "{operation:?}");
                    let of_admins = operation.right() == Right::Admin;
                    assert_eq!(needed.is_of_admins(), of_admins, "{operation:?}");
                }
            }
        }
    }

    #[test]
    fn a_key_of_one_project_finds_no_other_and_nothing_that_is_about_all() {
        let (own, other) = (ProjectId::from_bits(1), ProjectId::from_bits(2));
        let caller = key(Scope::ALL, Some(own.clone()));
        let of = |id| Resource::Project { id: Some(id), role: Some(Role::Owner) };
        for &operation in Operation::ALL {
            let found = authorize(&caller, operation, of(&other));
            match (operation.right(), operation.key_needs()) {
                (Right::Public, _) | (Right::User, KeyNeeds::Nothing) => {
                    assert_eq!(found, Ok(()), "{operation:?}");
                }
                (Right::User | Right::Admin, KeyNeeds::Login) => {
                    assert_eq!(found, Err(Denied::NeedsLogin), "{operation:?}");
                }
                (Right::User | Right::Admin, _) => {
                    assert_eq!(found, Err(Denied::KeyOfProject), "{operation:?}");
                }
                (Right::Project(_), _) => {
                    assert_eq!(found, Err(Denied::NotFound), "{operation:?}");
                    assert_eq!(authorize(&caller, operation, of(&own)), Ok(()), "{operation:?}");
                }
            }
        }
    }

    #[test]
    fn a_key_gives_no_right_that_its_user_does_not_have() {
        let caller = key(Scope::ALL, None);
        assert_eq!(authorize(&caller, Operation::FileRead, OUTSIDE), Err(Denied::NotFound));
        let refused = Err(Denied::Forbidden { needed: Role::Member });
        assert_eq!(authorize(&caller, Operation::FileWrite, inside(Role::Viewer)), refused);
    }

    #[test]
    fn each_refusal_has_its_code_and_the_needed_role_is_named() {
        let missing = Denied::NotFound.to_error();
        assert_eq!(missing, ApiError::not_found("project"));
        assert_eq!(Denied::Unauthenticated.to_error().code, ErrorCode::Unauthenticated);
        let not_admin = Denied::NotAdmin.to_error();
        assert_eq!(not_admin.code, ErrorCode::Forbidden);
        assert_eq!(not_admin.details.get("reason"), Some(&json!("not_admin")));

        for needed in ROLES {
            let error = Denied::Forbidden { needed }.to_error();
            assert_eq!(error.code, ErrorCode::Forbidden);
            assert_eq!(error.details.get("reason"), Some(&json!("insufficient_role")));
            assert_eq!(error.details.get("neededRole"), Some(&json!(needed)));
        }
    }
}
