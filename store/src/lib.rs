//! A bounded folder of files that survives crashes: written whole or not at all.
