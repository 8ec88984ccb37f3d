//! Files that arguments name, read whole within a limit.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use tidegate_runtime::module::{FILE_BYTES_MAX, ModuleError, ModuleFile};

/// The bytes of a regular file, which must not have more than `bytes_max`.
pub(crate) fn regular_file(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for a writer that may never come.
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?
        .take(bytes_max as u64 + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        let message = format!("it has more than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

/// The module in a regular file.
pub(crate) fn module_file(path: &Path) -> Result<ModuleFile, ModuleError> {
    let bytes = regular_file(path, FILE_BYTES_MAX).map_err(|source| ModuleError::Read {
        path: path.to_owned(),
        source,
    })?;
    ModuleFile::parse(bytes.into())
}
