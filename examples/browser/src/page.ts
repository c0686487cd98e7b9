// The page: who somebody is, where they talk, what is said. All text goes into the page as text, never as HTML.
import { CallError, Client, type Status } from "../../typescript/src/client.js";
import type { Text } from "../../typescript/src/parts.js";
import type { Approval, EventFrame, Message, Position } from "../../typescript/src/protocol.js";

/** What the lists offer besides what there is. */
const NEW = "new";

const status = element("status", HTMLElement);
const login = element("login", HTMLFormElement);
const place = element("place", HTMLFormElement);
const say = element("say", HTMLFormElement);
const log = element("log", HTMLElement);

let client: Client | undefined;
let talk: Talk | undefined;

function element<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`no #${id}`);
  return found;
}

function list(name: string): HTMLSelectElement {
  return place.elements.namedItem(name) as HTMLSelectElement;
}

function field(form: HTMLFormElement, name: string): string {
  return String(new FormData(form).get(name) ?? "");
}

/** Runs what a form or a button asks for; what the server refuses stands in the status. */
function doing(work: () => Promise<void>): void {
  work().catch((error: unknown) => {
    status.textContent = error instanceof CallError ? error.message : String(error);
  });
}

function told(event: Status): void {
  switch (event.state) {
    case "connected":
      status.textContent = "connected";
      return;
    case "waiting":
      status.textContent = `lost the connection (${event.code}), coming back`;
      return;
    case "closed":
      status.textContent = `closed: ${event.code} ${event.reason}`;
  }
}

/** One session that is shown. */
class Talk {
  /** The lines of parts, by their ids. */
  readonly #lines = new Map<string, HTMLElement>();
  readonly #questions = new Map<string, HTMLElement>();
  readonly room: string;

  constructor(private client: Client, private projectId: string, private sessionId: string) {
    this.room = `session:${sessionId}`;
  }

  get #here(): { projectId: string } {
    return { projectId: this.projectId };
  }

  /** Shows the session from its beginning, and all that happens in it from then on. */
  follow(): void {
    this.client.follow({
      ...this.#here,
      room: this.room,
      onReset: () => this.#reset(),
      onText: (text) => this.#text(text),
      onEvent: (event) => this.#event(event),
      onLeft: (code) => this.#line("note", `this session cannot be heard any more: ${code}`),
    });
  }

  async send(content: string): Promise<void> {
    await this.client.call("session.message.send", { sessionId: this.sessionId, content }, this.#here);
  }

  async cancel(): Promise<void> {
    await this.client.call("session.message.cancel", { sessionId: this.sessionId }, this.#here);
  }

  /** Everything as it is now: at the start, and when too much was missed. */
  async #reset(): Promise<Position> {
    const { payload } = await this.client.call("session.get", { sessionId: this.sessionId }, this.#here);
    log.replaceChildren();
    this.#lines.clear();
    this.#questions.clear();
    for (const message of payload.messages) this.#message(message);
    for (const approval of payload.approvals) this.#ask(approval);
    return payload.asOf;
  }

  #message({ role, parts }: Message): void {
    for (const part of parts) {
      if (part.type === "text") this.#part(part.id, role, part.text);
      if (part.type === "reasoning") this.#part(part.id, "reasoning", part.text);
      if (part.type === "tool") this.#line("note", `${part.toolName}: ${part.state}`);
    }
  }

  #part(id: string, kind: string, text: string): void {
    const line = this.#lines.get(id) ?? this.#line(kind, "");
    this.#lines.set(id, line);
    line.textContent = text;
  }

  /** A text that streams: all of it, each time there is more. */
  #text({ partId, kind, text }: Text): void {
    this.#part(partId, kind === "text" ? "assistant" : "reasoning", text);
  }

  #event(event: EventFrame): void {
    switch (event.type) {
      case "message.created":
        return this.#message(event.payload.message);
      case "message.tool.call":
        return void this.#line("note", `${event.payload.toolName}: called`);
      case "tool.approval.required":
        return event.payload.approval ? this.#ask(event.payload.approval) : undefined;
      case "tool.approval.resolved":
        return this.#answered(event.payload.toolCallId, event.payload.state);
      case "run.completed":
        return void this.#line("note", `[${event.payload.status}]`);
      default:
        return;
    }
  }

  #ask(approval: Approval): void {
    const line = this.#line("note", `${approval.message} `);
    for (const operation of ["tool.approve", "tool.reject"] as const) {
      const button = document.createElement("button");
      button.textContent = operation === "tool.approve" ? "Approve" : "Reject";
      button.onclick = () => doing(() => this.#decide(operation, approval));
      line.append(button);
    }
    this.#questions.set(approval.toolCallId, line);
  }

  async #decide(operation: "tool.approve" | "tool.reject", approval: Approval): Promise<void> {
    const { toolCallId } = approval;
    // The hash makes it a yes to what was shown and to nothing else.
    const hash = operation === "tool.approve" ? { inputHash: approval.inputHash } : {};
    await this.client.call(operation, { sessionId: approval.sessionId, toolCallId, ...hash }, this.#here);
  }

  /** Somebody decided, here or elsewhere. */
  #answered(toolCallId: string, state: string): void {
    const line = this.#questions.get(toolCallId);
    for (const button of line?.querySelectorAll("button") ?? []) button.remove();
    line?.append(state);
  }

  #line(kind: string, text: string): HTMLElement {
    const line = document.createElement("p");
    line.className = kind;
    line.textContent = text;
    log.append(line);
    return line;
  }
}

login.onsubmit = (event) => {
  event.preventDefault();
  client?.close();
  talk = undefined;
  log.replaceChildren();
  const next = new Client({ url: field(login, "url"), token: field(login, "token"), onStatus: told });
  client = next;
  doing(async () => {
    const { projects } = (await next.call("project.list", {})).payload;
    fill("project", projects.map(({ id, name }) => [id, name]), "a new project");
    place.hidden = false;
    await showSessions(next);
  });
};

list("project").onchange = () => {
  const current = client;
  if (current) doing(() => showSessions(current));
};

place.onsubmit = (event) => {
  event.preventDefault();
  const current = client;
  if (current) doing(() => enter(current));
};

say.onsubmit = (event) => {
  event.preventDefault();
  const text = field(say, "text");
  const current = talk;
  if (!current) return;
  doing(async () => {
    await current.send(text);
    say.reset();
  });
};

element("cancel", HTMLButtonElement).onclick = () => {
  const current = talk;
  if (current) doing(() => current.cancel());
};

function fill(name: string, options: [string, string][], fresh: string): void {
  const all = [...options, [NEW, fresh] as const];
  list(name).replaceChildren(...all.map(([value, text]) => new Option(text, value)));
}

async function showSessions(current: Client): Promise<void> {
  const projectId = list("project").value;
  const isNew = projectId === NEW;
  const sessions = isNew ? [] : (await current.call("session.list", {}, { projectId })).payload.sessions;
  fill("session", sessions.map(({ id, title }) => [id, title || id]), "a new session");
}

/** Makes what is to be new, and shows the session. */
async function enter(current: Client): Promise<void> {
  let [projectId, sessionId] = [list("project").value, list("session").value];
  if (projectId === NEW) {
    projectId = (await current.call("project.create", { name: "browser" })).payload.project.id;
  }
  if (sessionId === NEW) {
    sessionId = (await current.call("session.create", {}, { projectId })).payload.session.id;
  }
  if (talk) await current.unfollow(talk.room);
  talk = new Talk(current, projectId, sessionId);
  talk.follow();
  say.hidden = false;
}
