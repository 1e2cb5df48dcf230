//! The Xen block protocol: ABIs, ring, requests, responses, DIX pairing, features.
