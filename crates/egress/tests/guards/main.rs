//! The client against real sockets: rows S1 to S5 of the threat model, and every limit and error.
//!
//! Servers listen on 127.0.0.0/8 and count their connections, so that "blocked" means that nobody even
//! knocked. Where a test needs an address on the internet, 127.0.0.2 plays it, by exception.

#![expect(clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod addresses;
mod failures;
mod fixture;
mod limits;
mod redirects;
mod requests;
mod tls;
