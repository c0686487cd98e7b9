// The real server, to be killed, and a way to it that can be cut.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";

import { type AuthGrant, request } from "../src/rest.js";

const IRIS = resolve(process.env.IRIS ?? "../../target/debug/iris");
const SETUP_TOKEN = "a token for the first user";

/** A running `iris serve` with the scripted model. */
export class Iris {
  url = "";
  readonly #dir = mkdtempSync(join(tmpdir(), "iris-"));
  #child: ChildProcess | undefined;

  /** `environment` has more variables of its configuration. */
  constructor(private environment: Record<string, string> = {}) {}

  static async start(environment: Record<string, string> = {}): Promise<Iris> {
    const iris = new Iris(environment);
    await iris.start(0);
    return iris;
  }

  /** Starts it on a port, 0 for a free one, with the data that it had. */
  async start(port: number): Promise<void> {
    const child = spawn(IRIS, ["serve", "--bind", `127.0.0.1:${port}`, "--data-dir", this.#dir], {
      env: {
        IRIS_SETUP_TOKEN: SETUP_TOKEN,
        IRIS_PROVIDERS__DEMO__KIND: "scripted",
        IRIS_DEFAULT_MODEL: "demo/script",
        ...this.environment,
      },
      stdio: ["ignore", "pipe", "ignore"],
    });
    this.#child = child;
    for await (const line of createInterface(child.stdout)) {
      this.url = line.replace("listening on ", "");
      return;
    }
    throw new Error("the server did not start");
  }

  get port(): number {
    return Number(new URL(this.url).port);
  }

  /** The first user. */
  async setUp(): Promise<AuthGrant> {
    const account = { email: "ann@example.com", username: "ann", password: "a long password" };
    const body = { token: SETUP_TOKEN, ...account };
    return (await request(this.url, "POST /v1/auth/setup", { path: {}, query: {}, body })).data;
  }

  /** Ends it as `kill -9` does. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  }

  /** Tells it to stop, and waits until it has. */
  async stop(): Promise<void> {
    this.#child?.kill("SIGTERM");
    if (this.#child?.exitCode === null) await once(this.#child, "exit");
  }

  async remove(): Promise<void> {
    await this.kill();
    rmSync(this.#dir, { recursive: true });
  }
}

/** A wire to a server that can be cut. */
export class Wire {
  readonly #ends = new Set<Socket>();
  readonly #server: Server;

  constructor(port: number) {
    this.#server = createServer((near) => {
      const far = connect(port, "127.0.0.1");
      for (const [one, other] of [[near, far], [far, near]] as const) {
        this.#ends.add(one);
        one.pipe(other);
        one.on("error", () => {});
        one.on("close", () => {
          this.#ends.delete(one);
          other.destroy();
        });
      }
    });
  }

  async url(): Promise<string> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  cut(): void {
    for (const end of this.#ends) end.destroy();
  }

  close(): void {
    this.#server.close();
    this.cut();
  }
}
