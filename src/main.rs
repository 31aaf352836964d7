//! The `mxgate` command: runs a command and picks the exit code.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
