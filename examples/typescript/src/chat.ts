// Sends one message to an agent and prints what it says:
//
//   IRIS_PASSWORD=... npm run chat -- you@example.com "What is in README.md?" [http://127.0.0.1:4747]
import { createInterface } from "node:readline/promises";

import { Client } from "./client.js";
import { nodeSocket } from "./node.js";
import type { AuthGrant } from "./rest.js";
import { request } from "./rest.js";

const [email, content, url = "http://127.0.0.1:4747"] = process.argv.slice(2);
const password = process.env.IRIS_PASSWORD;
if (!email || !content || !password) {
  throw new Error("usage: IRIS_PASSWORD=... npm run chat -- EMAIL TEXT [URL]");
}

const login = { path: {}, query: {}, body: { email, password } };
let grant: AuthGrant = (await request(url, "POST /v1/auth/login", login)).data;
const client = new Client({
  url,
  token: grant.accessToken,
  socket: nodeSocket,
  refresh: async () => {
    const body = { refreshToken: grant.refreshToken };
    grant = (await request(url, "POST /v1/auth/refresh", { path: {}, query: {}, body })).data;
    return grant.accessToken;
  },
  onStatus: (status) => {
    if (status.state === "waiting") console.error(`[lost the connection (${status.code}), coming back]`);
  },
});

const projects = (await client.call("project.list", {})).payload.projects;
const project = projects[0] ?? (await client.call("project.create", { name: "typescript" })).payload.project;
const here = { projectId: project.id };
const sessions = (await client.call("session.list", {}, here)).payload.sessions;
const session = sessions[0] ?? (await client.call("session.create", {}, here)).payload.session;
const sessionId = session.id;

let runId: string | undefined;
client.follow({
  ...here,
  room: `session:${sessionId}`,
  onReset: async () => (await client.call("session.get", { sessionId, limit: 1 }, here)).payload.asOf,
  onText: ({ kind, text, kept }) => {
    if (kind === "text") process.stdout.write(text.slice(kept));
  },
  onEvent: (event) => {
    if (event.type === "tool.approval.required") void decide(event.payload);
    if (event.type === "run.completed" && event.payload.runId === runId) {
      console.log(`\n[${event.payload.status}]`);
      client.close();
    }
  },
});
({ runId } = (await client.call("session.message.send", { sessionId, content }, here)).payload);

async function decide({ message, toolCallId }: { message: string; toolCallId: string }): Promise<void> {
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  const answer = await terminal.question(`\n${message} [y/N] `);
  terminal.close();
  const operation = answer === "y" ? "tool.approve" : "tool.reject";
  await client.call(operation, { sessionId, toolCallId }, here);
}
