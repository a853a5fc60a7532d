//! Fuzz targets: what must hold for any bytes at each place where bytes of others arrive.
//!
//! `cargo xtask fuzz` runs them under libFuzzer, guided by coverage, from the programs in `bin/`; `seeds/` is what it
//! begins with. As a test of the ordinary suite they go through their seeds, so that neither rots.
#![cfg_attr(
    test,
    expect(
        clippy::disallowed_methods,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::missing_panics_doc,
        clippy::panic,
        clippy::unwrap_used,
        reason = "a target that fails is a finding"
    )
)]

pub mod conf;
pub mod lists;
pub mod order;
pub mod requests;
pub mod sidecar;
pub mod wire;

#[cfg(test)]
mod seeds;
