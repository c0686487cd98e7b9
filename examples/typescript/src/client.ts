// A client that comes back by itself: calls are repeated with their keys, and each room goes on after
// the last event that was heard, so that none is missed and none comes twice.
import { Parts, type Text } from "./parts.js";
import type {
  ApiError, ConnectedFrame, ErrorFrame, EventFrame, Heartbeat, Operations, Position, RequestFrame,
  ResponseFrame, RoomOutcome, ServerFrame, SocketOperation,
} from "./protocol.js";
import { browserSocket, type Opener, type Socket } from "./socket.js";

/** What a client is made of. */
export interface Options {
  /** Like `http://127.0.0.1:4747`. */
  url: string;
  /** An access token. */
  token: string;
  /** Gets a new access token, when the old one ends or is refused; without it the client ends then. */
  refresh?: () => Promise<string>;
  /** How sockets are opened: `nodeSocket` in Node; the browser's when absent. */
  socket?: Opener;
  /** Told of each connection, each loss of one, and the end. */
  onStatus?: (status: Status) => void;
}

/** How a client is. */
export type Status =
  | { state: "connected" }
  | { state: "waiting"; code: number; reason: string; delayMs: number }
  | { state: "closed"; code: number; reason: string };

/** A room to follow, and whom to tell what happens in it. */
export interface Follow {
  projectId: string;
  /** `session:ses_..` or `project:prj_..`. */
  room: string;
  /** Where to begin; when absent, with what `onReset` gives, else with what comes. */
  since?: Position;
  /** Takes a snapshot and answers its `asOf`. Called at the start without `since`, and when the server
   * does not have every event since the last one any more. */
  onReset?: () => Promise<Position>;
  /** Each durable event once, in order, and the ephemeral ones but for those of streaming text. */
  onEvent?: (event: EventFrame) => void;
  /** Each change of a text. */
  onText?: (text: Text) => void;
  /** The room cannot be heard any more. */
  onLeft?: (code: string) => void;
}

/** What a call answers. */
export interface Reply<K extends SocketOperation> {
  payload: Operations[K]["response"];
  /** The last durable event that it caused. */
  seq?: number | null;
}

/** The server refused a call. */
export class CallError extends Error {
  constructor(readonly error: ApiError) {
    super(`${error.code}: ${error.message}`);
  }
}

interface Call {
  frame: RequestFrame;
  resolve: (response: ResponseFrame) => void;
  reject: (error: Error) => void;
}

/** What is known of a room. */
interface Place {
  follow: Follow;
  epoch?: string | undefined;
  /** Everything of the room up to here was heard; nothing is known while it is undefined. */
  seq?: number | undefined;
  parts: Parts;
  /** Whether it is being joined. */
  isJoining: boolean;
  /** The connection that it is joined on. */
  joinedOn: number;
}

/** Closes after which the same would happen again are not in here (docs/protocol.md, "Close codes");
 * 1001, 1005, 1006 and 1013 come from what stands between client and server. */
const COME_BACK = [1001, 1005, 1006, 1011, 1012, 1013, 4008, 4012, 4029, 4402, 4409];
const NOT_AUTHENTICATED = 4401;
const BACKOFF_FIRST_MS = 250;
const BACKOFF_MAX_MS = 15_000;
/** How long after a heartbeat was due the connection counts as lost. */
const SILENCE_GRACE_MS = 20_000;

export class Client {
  #options: Options;
  #token: string;
  #socket: Socket | undefined;
  /** Counts connections, so that what an old one still says is told apart. */
  #connection = 0;
  #isConnected = false;
  #isClosed = false;
  #failures = 0;
  /** How often the server sends heartbeats; 0 for never. */
  #heartbeatMs = 0;
  #calls = new Map<string, Call>();
  #places = new Map<string, Place>();
  #retry: ReturnType<typeof setTimeout> | undefined;
  #silence: ReturnType<typeof setTimeout> | undefined;

  /** Begins to connect, and goes on until `close`. */
  constructor(options: Options) {
    this.#options = options;
    this.#token = options.token;
    this.#connect();
  }

  /** Runs an operation. A connection that is lost before the answer does not end it: the request is sent
   * again with its idempotency key, so that it is done once.
   * @throws CallError when the server refuses it, Error when the client ends. */
  async call<K extends SocketOperation>(
    operation: K,
    payload: Operations[K]["request"],
    more: { projectId?: string; idempotencyKey?: string; deadlineMs?: number } = {},
  ): Promise<Reply<K>> {
    if (this.#isClosed) throw new Error("the client is closed");
    const id = crypto.randomUUID();
    const frame: RequestFrame = { idempotencyKey: id, ...more, id, type: operation, payload };
    const response = await new Promise<ResponseFrame>((resolve, reject) => {
      this.#calls.set(id, { frame, resolve, reject });
      if (this.#isConnected) this.#send(frame);
    });
    return { payload: response.payload as Operations[K]["response"], seq: response.seq ?? null };
  }

  /** Follows a room until `unfollow`, through every loss of the connection. */
  follow(follow: Follow): void {
    const parts = new Parts((partId) => {
      // A part that streams no more is refused; its end has all of the text.
      this.call("message.part.sync", { partId }, { projectId: follow.projectId }).catch(() => {});
    });
    const { epoch, seq } = follow.since ?? {};
    const place = { follow, epoch, seq, parts, isJoining: false, joinedOn: 0 };
    this.#places.set(follow.room, place);
    if (this.#isConnected) void this.#join(place);
  }

  /** Hears a room no more. */
  async unfollow(room: string): Promise<void> {
    if (this.#places.delete(room)) await this.call("unsubscribe", { rooms: [room] });
  }

  /** Ends the client and the calls that wait. */
  close(): void {
    this.#end(1000, "closed by the client");
  }

  #connect(): void {
    const connection = ++this.#connection;
    const { url, socket: opener = browserSocket } = this.#options;
    const isCurrent = (): boolean => connection === this.#connection && !this.#isClosed;
    this.#socket = opener.open(`${url.replace(/^http/, "ws")}/v1/ws`, this.#token, {
      opened: () => {
        if (!isCurrent() || opener.sendsToken) return;
        this.#send({ id: "hello", type: "hello", payload: { token: this.#token } });
      },
      text: (text) => {
        if (isCurrent()) this.#receive(JSON.parse(text) as ServerFrame);
      },
      closed: (code, reason) => this.#lost(connection, code, reason),
    });
  }

  #send(frame: RequestFrame): void {
    this.#socket?.send(JSON.stringify(frame));
  }

  #receive(frame: ServerFrame): void {
    switch (frame.type) {
      case "connected":
        return this.#connected(frame);
      case "response":
        return this.#answered(frame);
      case "heartbeat":
        return this.#compare(frame.payload);
      case "auth.expiring":
        return void this.#renew();
      case "server.draining": // The close that follows says when to come back.
      case "server.maintenance": // Messages that would begin runs are refused meanwhile.
      case "subscribed":
      case "closing":
      case "transfer.failed": // This client sends no files in chunks.
        return;
      case "room.left":
        return this.#left(frame.payload.room, frame.payload.code);
      default:
        return this.#event(frame);
    }
  }

  #connected({ payload }: ConnectedFrame): void {
    this.#isConnected = true;
    this.#failures = 0;
    this.#heartbeatMs = payload.pingIntervalMs;
    this.#expectHeartbeat();
    for (const { frame } of this.#calls.values()) this.#send(frame);
    for (const place of this.#places.values()) void this.#join(place);
    this.#options.onStatus?.({ state: "connected" });
  }

  #answered(frame: ResponseFrame | ErrorFrame): void {
    const call = frame.id === null ? undefined : this.#calls.get(frame.id);
    if (!call || frame.id === null) return;
    this.#calls.delete(frame.id);
    if (frame.success) call.resolve(frame);
    else call.reject(new CallError(frame.error));
  }

  #event(frame: EventFrame): void {
    const place = this.#places.get(frame.room);
    if (!place) return;
    const { seq, prev } = frame;
    if (typeof seq === "number" && typeof prev === "number") {
      if (place.seq !== undefined && seq <= place.seq) return;
      // What is missing comes again, and this event after it.
      if (place.seq !== undefined && prev > place.seq) return void this.#join(place);
      place.seq = seq;
    }
    for (const text of place.parts.apply(frame)) place.follow.onText?.(text);
    const isOfText = /^message\.(text|reasoning)\.delta$|^message\.part\./.test(frame.type);
    if (!isOfText) place.follow.onEvent?.(frame);
  }

  /** A connection without signs of life counts as lost. */
  #expectHeartbeat(): void {
    clearTimeout(this.#silence);
    if (this.#heartbeatMs === 0) return;
    const connection = this.#connection;
    const lost = () => this.#lost(connection, 1006, "no heartbeat in time");
    this.#silence = setTimeout(lost, this.#heartbeatMs + SILENCE_GRACE_MS);
  }

  /** A heartbeat comes behind all events up to it: whoever is not as far has missed some. */
  #compare({ rooms }: Heartbeat): void {
    this.#expectHeartbeat();
    for (const place of this.#places.values()) {
      const last = rooms[place.follow.room];
      if (!last || place.joinedOn !== this.#connection || place.seq === undefined) continue;
      if (last.epoch !== place.epoch || last.seq > place.seq) void this.#join(place);
    }
  }

  /** Joins a room after what was heard of it, from a snapshot where that is too old. */
  async #join(place: Place): Promise<void> {
    if (place.isJoining) return;
    place.isJoining = true;
    try {
      for (let failures = 1; this.#places.get(place.follow.room) === place; failures++) {
        // Repeated should the connection be lost before the answer, and done on the next one.
        const outcome = await this.#subscribe(place);
        if (outcome.status === "live" || outcome.status === "replayed") {
          place.epoch = outcome.epoch;
          place.seq = Math.max(place.seq ?? 0, outcome.to);
          place.joinedOn = this.#connection;
          return;
        }
        if (outcome.status === "reset") {
          place.epoch = place.seq = undefined;
          place.parts.clear();
        } else if (this.#isClosed) {
          return;
        } else if (isPassing(outcome.code)) {
          await new Promise((resolve) => setTimeout(resolve, backoff(failures)));
        } else {
          this.#places.delete(place.follow.room);
          return place.follow.onLeft?.(outcome.code ?? "FORBIDDEN");
        }
      }
    } finally {
      place.isJoining = false;
    }
  }

  /** Asks once; what is refused as a whole is refused as the room is. */
  async #subscribe(place: Place): Promise<RoomOutcome> {
    const { projectId, room, onReset } = place.follow;
    try {
      if (place.epoch === undefined && onReset) {
        ({ epoch: place.epoch, seq: place.seq } = await onReset());
      }
      const { epoch, seq } = place;
      const since = epoch === undefined || seq === undefined ? null : { epoch, seq };
      const reply = await this.call("subscribe", { rooms: [{ room, since }] }, { projectId });
      const outcome = reply.payload.rooms[0];
      if (outcome) return outcome;
      throw new Error("`subscribe` answered no room");
    } catch (error) {
      // A snapshot that failed by itself is tried again.
      const code = error instanceof CallError ? error.error.code : "OVERLOADED";
      return { room, status: "refused", from: 0, to: 0, epoch: "", code };
    }
  }

  #left(room: string, code: string): void {
    const place = this.#places.get(room);
    if (!place) return;
    if (isPassing(code)) return void this.#join(place);
    this.#places.delete(room);
    place.follow.onLeft?.(code);
  }

  /** Gives the connection a new token before the old one ends. */
  async #renew(): Promise<void> {
    if (!this.#options.refresh) return;
    try {
      this.#token = await this.#options.refresh();
      await this.call("auth.refresh", { token: this.#token });
    } catch {
      // The server closes with 4401 when the time is over, and the token is asked for again.
    }
  }

  /** Waits and connects again, unless the same would happen again. */
  #lost(connection: number, code: number, reason: string): void {
    if (connection !== this.#connection || this.#isClosed) return;
    const socket = this.#socket;
    this.#connection++;
    this.#isConnected = false;
    this.#socket = undefined;
    clearTimeout(this.#silence);
    socket?.close(1000);
    const isRefused = code === NOT_AUTHENTICATED;
    if (!COME_BACK.includes(code) && !(isRefused && this.#options.refresh)) {
      return this.#end(code, reason);
    }
    const atLeast = Number(/retryAfterMs\D*(\d+)/.exec(reason)?.[1] ?? 0);
    const delayMs = Math.max(backoff(++this.#failures), atLeast);
    this.#options.onStatus?.({ state: "waiting", code, reason, delayMs });
    this.#retry = setTimeout(() => void this.#comeBack(isRefused), delayMs);
  }

  async #comeBack(isRefused: boolean): Promise<void> {
    const waiting = this.#connection;
    if (isRefused && this.#options.refresh) {
      try {
        this.#token = await this.#options.refresh();
      } catch (error) {
        return this.#end(NOT_AUTHENTICATED, String(error));
      }
    }
    if (!this.#isClosed && waiting === this.#connection) this.#connect();
  }

  #end(code: number, reason: string): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearTimeout(this.#retry);
    clearTimeout(this.#silence);
    this.#socket?.close(1000);
    for (const { reject } of this.#calls.values()) reject(new Error(`closed with ${code}: ${reason}`));
    this.#calls.clear();
    this.#places.clear();
    this.#options.onStatus?.({ state: "closed", code, reason });
  }
}

/** Whether a room that is refused with this code can be joined after a while. */
function isPassing(code: string | null | undefined): boolean {
  return ["OVERLOADED", "RATE_LIMITED", "SHUTTING_DOWN", "CONFLICT"].includes(code ?? "");
}

/** Doubles with each failure up to a bound; half of it is random, so that clients come back one by one. */
function backoff(failures: number): number {
  const full = Math.min(BACKOFF_FIRST_MS * 2 ** (failures - 1), BACKOFF_MAX_MS);
  return full / 2 + (Math.random() * full) / 2;
}
