//! The one place that decides whether a caller may run an operation.
//!
//! Every way in (WebSocket, commands, REST) asks here with the caller's role looked up freshly. A new
//! kind of right does not compile until it is answered here.

use iris_protocol::{ApiError, AuthSessionId, ErrorCode, Operation, Right, Role, UserId};

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
    /// The login behind the request; `None` for credentials that are not a login.
    pub auth_session_id: Option<AuthSessionId>,
    /// May manage the server ([`Right::Admin`]). Gives no right in anybody's project.
    pub is_admin: bool,
}

/// What the operation touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Nothing in particular, or what belongs to the caller.
    Server,
    /// One project.
    Project {
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
}

impl Denied {
    /// The code that a client sees.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unauthenticated => ErrorCode::Unauthenticated,
            Self::NotFound => ErrorCode::NotFound,
            Self::Forbidden { .. } | Self::NotAdmin => ErrorCode::Forbidden,
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
        }
    }
}

/// Decides whether `caller` may run `operation` on `resource`.
///
/// An operation on a project that is asked for without naming one is refused as not found.
///
/// # Errors
/// [`Denied::Unauthenticated`] for an anonymous caller of anything that is not public,
/// [`Denied::NotFound`] for a project they are not a member of, [`Denied::Forbidden`] for too small
/// a role, [`Denied::NotAdmin`] for what administrators of the server alone may.
pub fn authorize(caller: &Caller, operation: Operation, resource: Resource) -> Result<(), Denied> {
    match (operation.right(), caller) {
        (Right::Public, _)
        | (Right::User, Caller::User(_))
        | (Right::Admin, Caller::User(CallerUser { is_admin: true, .. })) => Ok(()),
        (Right::User | Right::Project(_) | Right::Admin, Caller::Anonymous) => {
            Err(Denied::Unauthenticated)
        }
        (Right::Admin, Caller::User(CallerUser { is_admin: false, .. })) => Err(Denied::NotAdmin),
        (Right::Project(needed), Caller::User(_)) => match resource {
            Resource::Server | Resource::Project { role: None } => Err(Denied::NotFound),
            Resource::Project { role: Some(role) } if role < needed => {
                Err(Denied::Forbidden { needed })
            }
            Resource::Project { role: Some(_) } => Ok(()),
        },
    }
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
    const OUTSIDE: Resource = Resource::Project { role: None };

    fn user(is_admin: bool) -> Caller {
        Caller::User(CallerUser { user_id: UserId::from_bits(1), auth_session_id: None, is_admin })
    }

    fn every_resource() -> impl Iterator<Item = Resource> {
        let inside = ROLES.map(|role| Resource::Project { role: Some(role) });
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
                let resource = Resource::Project { role: Some(role) };
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
        let viewer = Resource::Project { role: Some(Role::Viewer) };
        let refused = Err(Denied::Forbidden { needed: Role::Member });
        assert_eq!(authorize(&user(false), Operation::MessageSend, viewer), refused);
        assert_eq!(authorize(&user(false), Operation::FileWrite, viewer), refused);
        assert_eq!(authorize(&user(false), Operation::FileRead, viewer), Ok(()));
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
