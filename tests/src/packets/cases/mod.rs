//! The tables of cases, by what they are about.

mod algorithms;
mod checksums;
mod closing;
mod foreign;
mod malformed;
mod opening;
mod ports;
mod refusing;

use super::Case;

/// All cases.
pub fn all() -> Vec<Case> {
    [
        opening::cases(),
        algorithms::cases(),
        closing::cases(),
        refusing::cases(),
        ports::cases(),
        foreign::cases(),
        malformed::cases(),
        checksums::cases(),
    ]
    .concat()
}
