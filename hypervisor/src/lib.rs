//! Grants and event channels: one small seam, Xen or a simulation behind it.
