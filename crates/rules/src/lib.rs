//! Compiled rules, tables and directory: who may send what to whom, and where it goes.
//!
//! Pure: a decision is a function of values. What a decision needs from outside it asks for by name.

mod model;

pub use model::*;
