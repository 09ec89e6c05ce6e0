//! The contract between the data path and the agent.
#![no_std]
