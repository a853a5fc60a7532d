//! Everything a developer or CI runs on this repository.

fn main() {}
