//! What approved tools of an MCP server cost a run before the model says something.

#[path = "../../crates/mcp/tests/session/webfake.rs"]
#[expect(dead_code, reason = "the tests of the client use all of it")]
#[expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails like the test itself"
)]
mod webfake;

use anyhow::{Context, ensure};
use iris_client::{ConnectOptions, Socket};
use iris_protocol::{
    Event, McpCreate, McpState, McpStatusGet, McpTransport, McpUpdate, Room, RoomRequest, Subscribe,
};
use serde_json::{Value, json};

use crate::conversation::{Owner, new_project, script};
use crate::server::{Server, data_dir};
use crate::table::{Figure, median, ms};
use webfake::{WebFake, result_of};

const DELAY_MS_MAX: f64 = 5.0;
const TOOLS: usize = 50;
const RUNS: usize = 40;
const NAME: &str = "web";

/// Measures runs one after the other, each in a session of its own: one of a project with the tools and one of
/// a project without, in turns.
pub(crate) async fn figures() -> anyhow::Result<Vec<Figure>> {
    let fake = WebFake::start(|asked| {
        let is_list = asked.says() == "tools/list";
        is_list.then(|| result_of(asked, "", &json!({ "tools": tools() })))
    })
    .await;
    let (data_dir, address) = (data_dir()?, fake.address.to_string());
    let server = Server::start_with(data_dir.path(), &[("IRIS_EGRESS_ALLOW", &address)])?;
    let with = Owner::of(&server).await?;
    let mut without = with.again(&server)?;
    without.project = new_project(&without.client).await?;
    approve(&with, &format!("http://{address}/mcp")).await?;

    // What is read once and kept is not what a run waits for.
    for owner in [&with, &without] {
        first_token_ms(owner).await?;
    }
    let (mut delays, mut firsts, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let (first, bare) = (first_token_ms(&with).await?, first_token_ms(&without).await?);
        delays.push(first - bare);
        firsts.push(first);
        plain.push(bare);
    }
    let calls = fake.asked().iter().filter(|asked| asked.says() == "tools/list").count();
    ensure!(calls == 1, "the server was asked {calls} times for its tools");
    server.stop()?;
    let [first, bare] = [&firsts, &plain].map(|samples| median(samples));
    Ok(vec![Figure {
        name: "first token with 50 approved MCP tools, delay",
        target: Some(DELAY_MS_MAX),
        unit: "ms",
        samples: delays,
        comparison: format!("with them {first:.1} ms - without {bare:.1} ms"),
    }])
}

/// From before the message is sent until text of the model is heard.
async fn first_token_ms(owner: &Owner) -> anyhow::Result<f64> {
    let mut conversation = owner.new_session().await?;
    Ok(ms(conversation.ask(&script(0)).await?.first))
}

fn tools() -> Vec<Value> {
    let properties: serde_json::Map<String, Value> = (0..6)
        .map(|number| {
            let field =
                json!({ "type": "string", "maxLength": 100, "description": "What is looked for." });
            (format!("field{number}"), field)
        })
        .collect();
    let schema = json!({ "type": "object", "properties": properties, "required": ["field0"] });
    let tool = |number| {
        let description = "Looks for something and says where it is. ".repeat(8);
        json!({ "name": format!("tool{number}"), "description": description, "inputSchema": schema })
    };
    (0..TOOLS).map(tool).collect()
}

/// Configures the server and approves all of its tools.
async fn approve(owner: &Owner, url: &str) -> anyhow::Result<()> {
    let (client, project) = (&owner.client, Some(&owner.project));
    let room = client.connect(&ConnectOptions::default()).await?;
    let rooms = vec![RoomRequest::Live(Room::Project(owner.project.clone()).to_string())];
    room.call(project, Subscribe { rooms, deltas: None, presence: None }).await?;
    let create = McpCreate {
        name: NAME.to_owned(),
        transport: McpTransport::Http { url: url.to_owned(), headers: [].into() },
        secret_headers: None,
        oauth: None,
        enabled: None,
        initialize_timeout_ms: None,
        request_timeout_ms: None,
    };
    client.call(project, create).await?;
    until(&room, McpState::NeedsApproval).await?;
    let status = client.call(project, McpStatusGet { name: NAME.to_owned() }).await?.status;
    let update = McpUpdate {
        name: NAME.to_owned(),
        transport: None,
        secret_headers: None,
        oauth: None,
        forget_authorization: None,
        enabled: None,
        initialize_timeout_ms: None,
        request_timeout_ms: None,
        approve: Some(status.offered_hash.context("the server offers nothing")?),
    };
    let tools = client.call(project, update).await?.server.tools.len();
    ensure!(tools == TOOLS, "{tools} tools were approved");
    until(&room, McpState::Ready).await
}

async fn until(room: &Socket, expected: McpState) -> anyhow::Result<()> {
    loop {
        if let Event::McpStatusChanged { state, .. } = room.next_event().await?.event
            && state == expected
        {
            return Ok(());
        }
    }
}
