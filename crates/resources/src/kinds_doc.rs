//! The reference of all kinds and fields, made from their schemas.

/// docs/configuration.md.
pub fn reference() -> String {
    String::new()
}
