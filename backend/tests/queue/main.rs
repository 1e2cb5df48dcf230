//! One queue of the daemon against a guest made by hand: what it does, and what it survives.

mod harness;
mod hostile;
mod memory;
mod order;
mod pi;
