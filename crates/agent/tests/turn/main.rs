//! The turn machine: examples, one test for each limit, and properties over generated runs.

mod cancelled;
mod compacting;
mod driver;
mod examples;
mod generated;
mod limits;
mod model_call;
mod provider;
mod resumed;
mod script;
