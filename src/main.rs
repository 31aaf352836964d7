//! The `mxgate` command.

fn main() {}
