//! The tools tests.
