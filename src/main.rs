//! The `mxgate` command.

// Compiled for its tests only, until the commands are wired here.
#[cfg(test)]
mod cli {
    mod status;
}

fn main() {}
