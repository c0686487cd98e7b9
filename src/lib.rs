//! Iris: a headless, multi-user, real-time backend for AI agents.
//!
//! This package is transport and composition: configuration, HTTP, WebSocket, the command line. What
//! happens behind them is in `iris-actors` and below. Deliberately absent: any decision about agents,
//! rights or storage.

pub mod account;
pub mod allocator;
pub mod app;
pub mod chat;
pub mod config;
pub mod demo;
pub mod exit;
pub mod http;
pub mod keys;
mod lock;
mod lodging;
pub mod logging;
pub mod login;
pub mod logs;
pub mod maintenance;
pub mod manual;
pub mod models;
pub mod notify;
pub mod reload;
mod remote;
mod server;
pub mod settings_command;
mod sockets;
mod sse;
pub mod tls;
pub mod top;
mod ws;
