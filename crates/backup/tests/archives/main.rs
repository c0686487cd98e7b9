//! Archives of real databases and files: made while others write, damaged, hostile, put back.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so"
)]

mod adopting;
mod damage;
mod fixture;
mod hostile;
mod round_trip;
mod whole_server;
mod writing;
