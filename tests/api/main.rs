//! The whole server through its two doors: HTTP and WebSocket.
fn main() {}
