// The WebSocket of Node, which can send a header with the handshake.
import { WebSocket } from "ws";

import type { Opener } from "./socket.js";

/** The package `ws`. */
export const nodeSocket: Opener = {
  sendsToken: true,
  open(url, token, handlers) {
    const socket = new WebSocket(url, { headers: { authorization: `Bearer ${token}` } });
    let refusal: [code: number, reason: string] | undefined;
    socket.on("open", () => handlers.opened());
    socket.on("message", (data, isBinary) => {
      if (!isBinary) handlers.text(data.toString());
    });
    // A handshake that is refused has a status in place of a close code.
    socket.on("unexpected-response", (_request, response) => {
      const status = response.statusCode ?? 0;
      const seconds = Number(response.headers["retry-after"] ?? 0);
      if (status === 401) refusal = [4401, "not authenticated"];
      else if (status === 429 || status >= 500) refusal = [1013, `retryAfterMs=${seconds * 1000}`];
      else refusal = [1002, `the handshake was answered with ${status}`];
      socket.terminate();
    });
    // A failure always ends with a close, which says the same.
    socket.on("error", () => {});
    socket.on("close", (code, reason) => handlers.closed(...(refusal ?? [code, reason.toString()])));
    return socket;
  },
};
