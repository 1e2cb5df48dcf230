//! T10 protection information: profiles, tuples, guards, generate, verify, remap.
