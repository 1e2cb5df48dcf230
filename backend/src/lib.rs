//! A userspace Xen block backend that carries protection information end to end.
