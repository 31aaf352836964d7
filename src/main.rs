//! The `mxgate` command.

fn main() {}

// Compiled for its tests only, until the commands are wired here.
#[cfg(test)]
mod cli {
    mod status;
}
