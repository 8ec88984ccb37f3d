//! Files that arguments name, read whole within a limit.

pub(crate) use tidegate_store::read_regular as regular_file;
