//! A whole server.
