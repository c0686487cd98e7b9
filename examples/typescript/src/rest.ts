// Requests over REST, typed by the routes that the server has.
import type { ErrorFrame, Operations } from "./protocol.js";
import type { Routes } from "./routes.js";

/** An account with its tokens. */
export type AuthGrant = Operations["auth.login"]["response"];

/** The routes that answer with JSON. */
export type JsonRoute = {
  [R in keyof Routes]: Routes[R]["response"] extends Response ? never : R;
}[keyof Routes];

/** What goes with a request of a route. */
export type Given<R extends keyof Routes> = Pick<Routes[R], "path" | "query" | "body">;

/** Asks, as whoever the token says, and answers what the server does. An error of the server is thrown. */
export async function request<R extends JsonRoute>(
  url: string,
  route: R,
  { path, query, body: sent }: Given<R>,
  token?: string,
): Promise<Routes[R]["response"]> {
  const [method = "", template = ""] = route.split(" ");
  const places = Object.entries<unknown>(path);
  const filled = places.reduce((rest, [name, value]) => rest.replace(`{${name}}`, encodeURIComponent(String(value))), template);
  const asked = Object.entries<unknown>(query).filter(([, value]) => value !== undefined && value !== null);
  const search = new URLSearchParams(asked.map(([name, value]) => [name, String(value)]));
  const headers: Record<string, string> = token ? { authorization: `Bearer ${token}` } : {};
  const init: RequestInit = { method, headers };
  const body: unknown = sent;
  if (body instanceof FormData || body instanceof Blob) {
    init.body = body;
  } else if (body !== undefined) {
    headers["content-type"] = "application/json";
    init.body = JSON.stringify(body);
  }
  const response = await fetch(`${url}${filled}${search.size > 0 ? `?${search}` : ""}`, init);
  const answer = (await response.json()) as Routes[R]["response"] & Partial<Pick<ErrorFrame, "error">>;
  if (!response.ok) throw new Error(answer.error?.message ?? `${route}: ${response.status}`);
  return answer;
}
