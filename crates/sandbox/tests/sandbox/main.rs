//! The sandbox against the real kernel.
mod bench;
