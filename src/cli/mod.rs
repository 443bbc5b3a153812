//! The command line.

pub mod shop;
