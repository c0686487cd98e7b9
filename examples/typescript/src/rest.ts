// The one REST call that a client over WebSocket needs: to log in.
import type { ErrorFrame, Operations } from "./protocol.js";

/** An account with its tokens. */
export type AuthGrant = Operations["auth.login"]["response"];

/** Sends a body and answers its `data`. */
export async function post<T>(url: string, path: string, body: unknown): Promise<T> {
  const headers = { "content-type": "application/json" };
  const response = await fetch(url + path, { method: "POST", headers, body: JSON.stringify(body) });
  const answer = (await response.json()) as { data: T } & Partial<Pick<ErrorFrame, "error">>;
  if (!response.ok) throw new Error(answer.error?.message ?? `${path}: ${response.status}`);
  return answer.data;
}
