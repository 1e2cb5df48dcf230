//! The paired block frontend: correct by default, hostile on request.
