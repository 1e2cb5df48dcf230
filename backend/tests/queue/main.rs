//! One queue of the daemon against a guest made by hand: what it does, and what it survives.

mod chaos;
mod harness;
mod host;
mod hostile;
mod memory;
mod notify;
mod order;
mod pi;
mod profiles;
mod sleep;
mod trouble;
