// What the client needs of a WebSocket, and that of a browser.

/** One WebSocket. Each call of `opened` and `text` comes before the one call of `closed`. */
export interface Handlers {
  /** It is open. */
  opened(): void;
  /** A text frame came. */
  text(text: string): void;
  /** It is gone, or could not be opened. */
  closed(code: number, reason: string): void;
}

/** A WebSocket that was begun. */
export interface Socket {
  send(text: string): void;
  close(code: number): void;
}

/** How sockets are opened. */
export interface Opener {
  /** Whether the token goes with the handshake. Browsers cannot: there `hello` brings it. */
  readonly sendsToken: boolean;
  open(url: string, token: string, handlers: Handlers): Socket;
}

/** The WebSocket of browsers. */
export const browserSocket: Opener = {
  sendsToken: false,
  open(url, _token, handlers) {
    const socket = new WebSocket(url);
    socket.onopen = () => handlers.opened();
    socket.onmessage = ({ data }) => handlers.text(String(data));
    socket.onclose = ({ code, reason }) => handlers.closed(code, reason);
    return socket;
  },
};
