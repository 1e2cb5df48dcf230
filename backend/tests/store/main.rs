//! Stores from the outside: a queue's thread is played by a small driver; data lies in temporary files.

mod commands;
mod crash;
mod devices;
mod driver;
mod faults;
mod files;
mod grow;
mod hurry;
mod image;
mod opening;
mod overlap;
mod sidecar;
mod support;
