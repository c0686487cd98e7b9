//! Authorizations of MCP servers: begun, finished once, kept, renewed and forgotten.

use iris_protocol::{ErrorCode, McpAuthorization, McpOauth, McpState, UserId};
use iris_store::project::{
    BeginMcpAuthorization, BegunMcpAuthorization, DeleteMcpServer, KeepMcpAuthorization,
    MCP_AUTHORIZATIONS_MAX, McpOauthConfig, McpSecrets, RenewMcpTokens, StoredMcpServer,
    TakeMcpAuthorization, UpdateMcpServer,
};

use crate::fixture::{Fixture, NOW, ann, bob};
use crate::mcp::{create, update, web};

const MINUTE: i64 = 60_000;

fn begin(hash: &str, by: UserId) -> BeginMcpAuthorization {
    BeginMcpAuthorization {
        name: "a".into(),
        state_hash: hash.into(),
        sealed: format!("sealed {hash}"),
        client: Some("client".into()),
        state: McpState::NeedsAuth,
        expires_at: NOW + 10 * MINUTE,
        by,
        at: NOW,
    }
}

fn take(hash: &str, by: UserId, at: i64) -> TakeMcpAuthorization {
    TakeMcpAuthorization { state_hash: hash.into(), by, at }
}

fn keep() -> KeepMcpAuthorization {
    let authorization = McpAuthorization {
        issuer: "https://i.example".into(),
        scopes: vec!["read".into()],
        by: ann(),
        at: NOW,
    };
    KeepMcpAuthorization {
        name: "a".into(),
        transport: web("https://a.example/"),
        oauth: None,
        authorization,
        tokens: "t1".into(),
        at: NOW,
    }
}

async fn stored(fixture: &Fixture) -> StoredMcpServer {
    fixture.reader().mcp_server("a".into()).await.unwrap().unwrap()
}

async fn with_server() -> Fixture {
    let fixture = Fixture::new();
    fixture.write(create("a")).await.unwrap();
    fixture
}

#[tokio::test]
async fn what_was_begun_is_finished_once_by_whoever_began_it_and_in_time() {
    let fixture = with_server().await;
    fixture.write(begin("one", ann())).await.unwrap();
    assert_eq!(stored(&fixture).await.client.as_deref(), Some("client"));
    assert_eq!(fixture.write(take("one", bob(), NOW)).await.unwrap(), None);
    assert_eq!(fixture.write(take("other", ann(), NOW)).await.unwrap(), None);
    let begun = BegunMcpAuthorization { name: "a".into(), sealed: "sealed one".into() };
    assert_eq!(fixture.write(take("one", ann(), NOW)).await.unwrap(), Some(begun));
    assert_eq!(fixture.write(take("one", ann(), NOW)).await.unwrap(), None);
    // One that is begun anew takes the place of the one before, of the same user alone.
    for (hash, by) in [("two", ann()), ("bobs", bob()), ("three", ann())] {
        fixture.write(begin(hash, by)).await.unwrap();
    }
    assert_eq!(fixture.write(take("two", ann(), NOW)).await.unwrap(), None);
    assert!(fixture.write(take("bobs", bob(), NOW)).await.unwrap().is_some());
    let late = fixture.write(take("three", ann(), NOW + 10 * MINUTE)).await.unwrap();
    assert_eq!(late, None);
    let refused = fixture.refusal(BeginMcpAuthorization { name: "b".into(), ..begin("x", ann()) });
    assert_eq!(refused.await.0, ErrorCode::NotFound);
}

#[tokio::test]
async fn there_are_only_so_many_at_once_and_those_that_are_over_make_room() {
    let fixture = with_server().await;
    for number in 0..u128::from(MCP_AUTHORIZATIONS_MAX) {
        fixture.write(begin(&number.to_string(), UserId::from_bits(number))).await.unwrap();
    }
    let refused = fixture.refusal(begin("more", UserId::from_bits(1000))).await;
    assert_eq!(refused, (ErrorCode::Conflict, "too_many_authorizations".into()));
    let later =
        BeginMcpAuthorization { at: NOW + 10 * MINUTE, ..begin("more", UserId::from_bits(1000)) };
    fixture.write(later).await.unwrap();
}

#[tokio::test]
async fn tokens_are_kept_renewed_and_forgotten_with_what_they_were_for() {
    let fixture = with_server().await;
    let kept = fixture.write(keep()).await.unwrap();
    assert_eq!(kept.authorization.map(|it| it.by), Some(ann()));
    let renew = |before: &str, tokens: &str| RenewMcpTokens {
        name: "a".into(),
        before: before.into(),
        tokens: tokens.into(),
    };
    assert!(fixture.write(renew("t1", "t2")).await.unwrap());
    assert!(!fixture.write(renew("t1", "t3")).await.unwrap(), "somebody was faster");
    assert_eq!(stored(&fixture).await.tokens.as_deref(), Some("t2"));
    // What has nothing to do with it leaves it.
    let other = UpdateMcpServer { request_timeout_ms: Some(5), ..update("a") };
    assert!(fixture.write(other).await.unwrap().authorization.is_some());

    let forgets = [
        UpdateMcpServer { forgets_authorization: true, ..update("a") },
        UpdateMcpServer { oauth: Some(McpOauthConfig::default()), ..update("a") },
        UpdateMcpServer {
            secrets: Some(McpSecrets {
                names: vec!["Authorization".into()],
                sealed: Some("s".into()),
            }),
            ..update("a")
        },
        UpdateMcpServer { transport: Some(web("https://b.example/")), ..update("a") },
    ];
    for change in forgets {
        fixture.write(begin("x", ann())).await.unwrap();
        fixture.write(keep()).await.unwrap();
        let changed = fixture.write(change).await.unwrap();
        let stored = stored(&fixture).await;
        assert_eq!((changed.authorization, stored.tokens), (None, None));
        assert_eq!(fixture.write(take("x", ann(), NOW)).await.unwrap(), None);
        assert!(!fixture.write(renew("t1", "t2")).await.unwrap());
    }
    // It is another server by now, or is to be asked otherwise.
    let refused = fixture.refusal(keep()).await;
    assert_eq!(refused, (ErrorCode::Conflict, "server_changed".into()));
    let asked = KeepMcpAuthorization {
        transport: web("https://b.example/"),
        oauth: Some(McpOauth::default()),
        ..keep()
    };
    assert_eq!(fixture.refusal(asked).await.1, "server_changed");

    fixture.write(begin("x", ann())).await.unwrap();
    fixture.write(DeleteMcpServer { name: "a".into(), by: bob(), at: NOW }).await.unwrap();
    assert_eq!(fixture.write(take("x", ann(), NOW)).await.unwrap(), None);
    assert!(!fixture.write(renew("t1", "t2")).await.unwrap());
}
