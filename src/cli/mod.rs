//! The command line: the demo's traffic, the shapes of the server's answers, and how they look in a terminal.

pub mod render;
pub mod shop;
pub mod view;
