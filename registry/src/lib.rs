//! Where modules come from: OCI registries, the local store, signatures and trust.
