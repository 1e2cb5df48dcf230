//! A medium that fails: the errno reaches the request, and what was written before stays right.
