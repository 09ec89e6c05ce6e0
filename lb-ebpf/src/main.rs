//! The kernel shell: to come.
#![no_std]
#![no_main]
