//! Xenstore: a client, and an embedded server for machines without Xen.
