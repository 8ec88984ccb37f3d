//! A module file on this machine, which somebody may replace.
//!
//! A new version is best put in place by a rename, so that no half of it is ever seen; one that is
//! written in place and seen too early is refused as a module and looked at again when it has changed.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tidegate_inference::Digest;
use tidegate_runtime::module::{FILE_BYTES_MAX, sha256};

/// A path, and what was seen there last.
#[derive(Debug)]
pub(crate) struct WatchedFile {
    path: PathBuf,
    seen: Option<Stamp>,
}

/// What changes when a file is replaced or written, as far as the system tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

impl WatchedFile {
    /// A file of which nothing has been seen.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, seen: None }
    }

    /// The file and its digest, if it is another than at the last look. What is no regular file, or has more
    /// than [`FILE_BYTES_MAX`] bytes, is an error.
    pub(crate) async fn look(&mut self) -> io::Result<Option<(Digest, Bytes)>> {
        let (path, seen) = (self.path.clone(), self.seen);
        let reading = tokio::task::spawn_blocking(move || {
            let read = read(&path, seen)?;
            Ok::<_, io::Error>(read.map(|(bytes, stamp)| (sha256(&bytes), bytes, stamp)))
        });
        let read = reading.await.expect("reading a file does not panic")?;
        Ok(read.map(|(digest, bytes, stamp)| {
            self.seen = Some(stamp);
            (digest, bytes)
        }))
    }

    /// Lets the next look give the file whether it has changed or not.
    pub(crate) fn forget(&mut self) {
        self.seen = None;
    }
}

fn read(path: &Path, seen: Option<Stamp>) -> io::Result<Option<(Bytes, Stamp)>> {
    let file = tidegate_store::open_regular(path)?;
    let metadata = file.metadata()?;
    let stamp = Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        len: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    };
    if seen == Some(stamp) {
        return Ok(None);
    }
    let bytes = tidegate_store::read_at_most(file, FILE_BYTES_MAX)?;
    Ok(Some((bytes.into(), stamp)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn what_is_no_file_is_an_error_and_the_watch_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let put = |bytes: &str| {
            fs::write(at("new"), bytes).unwrap();
            fs::rename(at("new"), at("m.wasm")).unwrap();
        };
        put("first");
        let mut file = WatchedFile::new(at("m.wasm"));
        assert_eq!(file.look().await.unwrap().unwrap().1, "first");
        let pipe = std::process::Command::new("mkfifo")
            .arg(at("pipe"))
            .status();
        assert!(pipe.unwrap().success());
        fs::rename(at("pipe"), at("m.wasm")).unwrap();
        let error = file.look().await.unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
        fs::remove_file(at("m.wasm")).unwrap();
        fs::create_dir(at("m.wasm")).unwrap();
        let error = file.look().await.unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
        fs::remove_dir(at("m.wasm")).unwrap();
        put("second");
        assert_eq!(file.look().await.unwrap().unwrap().1, "second");
        assert!(file.look().await.unwrap().is_none());
    }
}
