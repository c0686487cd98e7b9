//! The smallest program that a sandbox can be started with.

use std::process::ExitCode;

fn main() -> ExitCode {
    iris_sandbox::launcher_main()
}
