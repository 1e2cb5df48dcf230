//! The control thread against the embedded xenstore, the simulated hypervisor and the paired frontend.

mod chaos;
mod connect;
mod hostile;
mod logs;
mod nodes;
mod restart;
mod slow;
mod status;
mod support;
mod xenstored;
