//! Sessions with servers that do what they should not: a program in the sandbox of this machine, and a place
//! on the web. The rows M3 to M5 of the threats to a server that talks to servers of others.

#![cfg(target_os = "linux")]
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "what should not happen fails the test"
)]

mod lab;
mod oauth;
mod oauthfake;
mod official;
mod program;
mod web;
mod webfake;
