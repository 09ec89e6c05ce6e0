//! The data path of `lb` as a pure library.
#![no_std]
#![forbid(unsafe_code)]
