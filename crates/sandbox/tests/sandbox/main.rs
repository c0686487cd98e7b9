//! The sandbox against the real kernel.
//!
//! As root commands run as a user of their own, as an ordinary user as that user. `IRIS_TEST_TIER=S3`,
//! or `CI=true`, makes it an error that there are no namespaces.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, clippy::panic, reason = "what should not happen fails the test")]

mod ending;
mod escapes;
mod inside;
mod lab;
mod limits;
mod outputs;
mod places;
mod refusals;
mod talking;
