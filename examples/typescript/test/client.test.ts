import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { WebSocket } from "ws";

import { CallError, Client, type Options, type Status } from "../src/client.js";
import { nodeSocket } from "../src/node.js";
import type { Text } from "../src/parts.js";
import { request } from "../src/rest.js";
import { browserSocket } from "../src/socket.js";
import type { EventFrame, EventPayloads, Position } from "../src/protocol.js";
import { Iris, Wire } from "./server.js";

const LIMIT = { timeout: 60_000 };
let iris: Iris;
let token: string;
/** Every client, so that one of a test that fails ends too. */
const clients = new Set<{ close(): void }>();

before(async () => {
  iris = await Iris.start();
  token = (await iris.setUp()).accessToken;
}, LIMIT);
afterEach(() => {
  for (const client of clients) client.close();
  clients.clear();
});
after(() => iris.remove(), LIMIT);

function connect(options: Partial<Options> = {}): Client {
  const client = new Client({ url: iris.url, token, socket: nodeSocket, ...options });
  clients.add(client);
  return client;
}

/** A session that is followed, with all that was heard of it. */
class Talk {
  readonly events: EventFrame[] = [];
  readonly texts = new Map<string, Text>();
  readonly statuses: Status[] = [];
  readonly client: Client;
  resets = 0;
  /** Where the first snapshot stood. */
  asOf: Position | undefined;
  projectId = "";
  sessionId = "";
  #wake = new Set<() => void>();

  constructor(options: Partial<Options> = {}) {
    const onStatus = (status: Status): void => this.#heard(() => this.statuses.push(status));
    this.client = connect({ onStatus, ...options });
  }

  static async begin(options: Partial<Options> = {}): Promise<Talk> {
    const talk = new Talk(options);
    const { project } = (await talk.client.call("project.create", { name: "p" })).payload;
    talk.projectId = project.id;
    talk.sessionId = (await talk.client.call("session.create", {}, talk.here)).payload.session.id;
    talk.follow();
    return talk;
  }

  get here(): { projectId: string } {
    return { projectId: this.projectId };
  }

  follow(since?: Position): void {
    this.client.follow({
      ...this.here,
      ...(since && { since }),
      room: `session:${this.sessionId}`,
      onReset: async () => {
        this.resets += 1;
        const { payload } = await this.client.call("session.get", { sessionId: this.sessionId }, this.here);
        this.asOf ??= payload.asOf;
        return payload.asOf;
      },
      onEvent: (event) => this.#heard(() => this.events.push(event)),
      onText: (text) => this.#heard(() => this.texts.set(text.partId, text)),
    });
  }

  async send(content: string): Promise<string> {
    const payload = { sessionId: this.sessionId, content };
    return (await this.client.call("session.message.send", payload, this.here)).payload.runId;
  }

  /** Waits until something is true of what was heard. */
  async until<T>(find: () => T | undefined | false): Promise<T> {
    for (;;) {
      const found = find();
      if (found) return found;
      await new Promise<void>((resolve) => this.#wake.add(resolve));
    }
  }

  event<N extends keyof EventPayloads>(type: N): Promise<EventPayloads[N]> {
    return this.until(() => this.events.find((event) => event.type === type)?.payload as EventPayloads[N]);
  }

  ended(runId: string): Promise<EventPayloads["run.completed"]> {
    return this.until(() => {
      const of = (event: EventFrame) => event.type === "run.completed" && event.payload.runId === runId;
      return this.events.find(of)?.payload as EventPayloads["run.completed"] | undefined;
    });
  }

  /** The text of the last answer, as it streamed. */
  get text(): string {
    return [...this.texts.values()].at(-1)?.text ?? "";
  }

  /** The same as the server has it. */
  async stored(): Promise<string> {
    const { payload } = await this.client.call("session.get", { sessionId: this.sessionId }, this.here);
    const parts = payload.messages.at(-1)?.parts ?? [];
    return parts.map((part) => (part.type === "text" ? part.text : "")).join("");
  }

  get numbers(): number[] {
    return this.events.flatMap(({ seq }) => (typeof seq === "number" ? [seq] : []));
  }

  /** Everything that the log has since the first snapshot was heard, in order and once. */
  async assertWhole(): Promise<void> {
    const again = new Talk();
    again.projectId = this.projectId;
    again.sessionId = this.sessionId;
    again.follow(this.asOf);
    const last = this.numbers.at(-1);
    await again.until(() => again.numbers.at(-1) === last);
    assert.deepEqual(this.numbers, again.numbers);
  }

  #heard(change: () => void): void {
    change();
    for (const wake of this.#wake) wake();
    this.#wake.clear();
  }
}

test("a conversation with an approval", LIMIT, async () => {
  const talk = await Talk.begin();
  const run = await talk.send('call write {"path": "a.txt", "content": "1"}\nstep\nsay Written with care.');
  const { toolCallId } = await talk.event("tool.approval.required");
  await talk.client.call("tool.approve", { sessionId: talk.sessionId, toolCallId }, talk.here);
  assert.equal((await talk.ended(run)).status, "completed");
  assert.equal(talk.text, "Written with care.");
  const { payload } = await talk.client.call("file.read", { path: "a.txt" }, talk.here);
  assert.equal(payload.content, "1");
  await talk.assertWhole();
});

test("what was said is read over REST, page by page", LIMIT, async () => {
  const talk = await Talk.begin();
  await talk.ended(await talk.send("say one"));
  const route = "GET /v1/projects/{projectId}/sessions/{sessionId}/messages";
  const path = { projectId: talk.projectId, sessionId: talk.sessionId };
  const newest = await request(iris.url, route, { path, query: { limit: 1 }, body: undefined }, token);
  assert.deepEqual(newest.data.map(({ role }) => role), ["assistant"]);
  assert.ok(newest.meta.nextCursor, "there is a page before");
  const query = { before: newest.meta.nextCursor };
  const first = await request(iris.url, route, { path, query, body: undefined }, token);
  assert.deepEqual(first.data.map(({ role }) => role), ["user"]);
  const refused = request(iris.url, route, { path, query: {}, body: undefined });
  await assert.rejects(refused, /./, "nobody reads it without a token");
});

test("what the server refuses is an error", LIMIT, async () => {
  const client = connect();
  const refused = client.call("project.create", { name: "" });
  await assert.rejects(refused, (error) => error instanceof CallError && error.error.code === "INVALID_REQUEST");
  const projectId = (await client.call("project.create", { name: "p" })).payload.project.id;
  const room = `session:ses_${"0".repeat(32)}`;
  assert.equal(await new Promise((onLeft) => client.follow({ projectId, room, onLeft })), "NOT_FOUND");
  client.close();
  await assert.rejects(client.call("ping", {}), /closed/);
});

test("a connection that is cut in the middle of a run costs nothing", LIMIT, async () => {
  const wire = new Wire(iris.port);
  clients.add(wire);
  const talk = await Talk.begin({ url: await wire.url() });
  // Cut before the answer: the request is repeated, and done once.
  const sending = talk.send("delay 5\nchunks 300 grüße");
  wire.cut();
  const run = await sending;
  for (const length of [20, 200, 600]) {
    await talk.until(() => talk.text.length > length);
    wire.cut();
  }
  assert.equal((await talk.ended(run)).status, "completed");
  assert.equal(talk.text, "grüße ".repeat(300));
  assert.equal(talk.text, await talk.stored());
  const created = talk.events.filter((event) => event.type === "message.created");
  assert.equal(created.length, 2);
  assert.equal(talk.resets, 1);
  assert.ok(talk.statuses.filter(({ state }) => state === "connected").length > 1);
  await talk.assertWhole();
});

test("a client finds its server again that was killed", LIMIT, async () => {
  const talk = await Talk.begin();
  // Killed before anything of the text was kept, and after.
  for (const length of [1, 600]) {
    const run = await talk.send("delay 10\nchunks 10000 tick");
    await talk.until(() => talk.text.length > length);
    const { port } = iris;
    await iris.kill();
    // A call that is made meanwhile waits.
    const asked = talk.client.call("user.get", {});
    await iris.start(port);
    assert.equal((await talk.ended(run)).status, "interrupted");
    assert.equal((await asked).payload.user.username, "ann");
    assert.match(talk.text, /^(tick )*$/);
    assert.equal(talk.text, await talk.stored());
    assert.equal(talk.text.length > 0, length > 1);
    await talk.ended(await talk.send("say still here"));
    assert.equal(talk.text, "still here");
  }
  await talk.assertWhole();
});

test("a server that stops says when to come back, and its clients do then", LIMIT, async () => {
  const talk = await Talk.begin();
  const { port } = iris;
  await iris.stop();
  const waits = (status: Status) => (status.state === "waiting" ? status : undefined);
  const first = await talk.until(() => talk.statuses.map(waits).find(Boolean));
  assert.equal(first.code, 1012);
  assert.ok(first.delayMs >= 1000 && first.delayMs <= 2000, `${first.delayMs} for ${first.reason}`);
  await iris.start(port);
  await talk.ended(await talk.send("say back"));
});

test("a position that the server does not know is a reset", LIMIT, async () => {
  const talk = await Talk.begin();
  await talk.ended(await talk.send("say one"));
  const again = new Talk();
  again.projectId = talk.projectId;
  again.sessionId = talk.sessionId;
  again.follow({ epoch: "another", seq: 1 });
  await again.until(() => again.statuses.length > 0);
  await talk.ended(await talk.send("say two"));
  await again.until(() => again.text === "two");
  assert.equal(again.resets, 1);
});

test("a browser says hello, and asks for a token when its own is refused", LIMIT, async () => {
  (globalThis as { WebSocket: unknown }).WebSocket = WebSocket;
  let asked = 0;
  const refresh = async (): Promise<string> => {
    asked += 1;
    return token;
  };
  const client = connect({ token: "no token", refresh, socket: browserSocket });
  assert.equal((await client.call("user.get", {})).payload.user.username, "ann");
  assert.equal(asked, 1);
});

test("a token that is refused ends a client that has no other", LIMIT, async () => {
  const talk = new Talk({ token: "no token" });
  const end = await talk.until(() => talk.statuses.at(-1));
  assert.deepEqual([end.state, "code" in end && end.code], ["closed", 4401]);
});
