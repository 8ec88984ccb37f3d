//! One file, read whole, or replaced whole or not at all.
//!
//! The bytes go to a temporary file in the same folder, which takes the name by a rename: whoever
//! reads the name sees the old bytes or the new, and a failure leaves the old ones and no litter.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use tempfile::{Builder, NamedTempFile};

/// Permissions of a new file; the process's umask may take some away.
const MODE: u32 = 0o644;

/// Opens a regular file to read, and never waits: what else has this name is an error, not a pipe whose
/// writer may never come.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags).unwrap_or_default())
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

/// The bytes of a regular file, which must not have more than `bytes_max`.
pub fn read_regular(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    read_at_most(open_regular(path)?, bytes_max)
}

/// The bytes of an open file, which must not have more than `bytes_max`. Of one that says so beforehand
/// none is read.
pub fn read_at_most(file: File, bytes_max: usize) -> io::Result<Vec<u8>> {
    let len = file.metadata()?.len();
    let mut bytes = Vec::new();
    if len <= bytes_max as u64 {
        file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    }
    if len > bytes_max as u64 || bytes.len() > bytes_max {
        let message = format!("it has more than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

/// Writes `bytes` to `path`, replacing what is there. On return they are on the disk.
///
/// A file that is there keeps its permissions, and its owner where the process may give files away. A folder
/// that does not exist is an error, and so is a `path` that is one, or a device or a pipe. Through a symbolic
/// link, what it leads to is replaced.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let target = Target::find(path)?;
    let file = target.write_beside(bytes)?;
    file.as_file().sync_all()?;
    file.persist(&target.path).map_err(|error| error.error)?;
    // The name itself is on the disk only when its folder is.
    File::open(target.folder())?.sync_all()
}

/// As [`write_whole`], but does not wait for the disk: for what means nothing after a power failure.
pub fn write_whole_unsynced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let target = Target::find(path)?;
    let file = target.write_beside(bytes)?;
    file.persist(&target.path).map_err(|error| error.error)?;
    Ok(())
}

/// Where the bytes go: a regular file, or a name that nothing has.
struct Target {
    path: PathBuf,
    there: Option<Metadata>,
}

impl Target {
    fn find(path: &Path) -> io::Result<Self> {
        let not_a_file = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        match path.metadata() {
            Ok(metadata) if metadata.is_file() => Ok(Self {
                path: path.canonicalize()?,
                there: Some(metadata),
            }),
            Ok(metadata) if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(_) => not_a_file("it is a device, a pipe or a socket"),
            Err(_) if path.is_symlink() => not_a_file("it is a symbolic link that leads nowhere"),
            Err(_) => Ok(Self {
                path: path.to_owned(),
                there: None,
            }),
        }
    }

    fn write_beside(&self, bytes: &[u8]) -> io::Result<NamedTempFile> {
        let mut builder = Builder::new();
        builder.prefix(".tidegate-");
        if self.there.is_none() {
            builder.permissions(PermissionsExt::from_mode(MODE));
        }
        let mut file = builder.tempfile_in(self.folder())?;
        if let Some(there) = &self.there {
            let _ = fchown(file.as_file(), Some(there.uid()), Some(there.gid()));
            file.as_file().set_permissions(there.permissions())?;
        }
        file.write_all(bytes)?;
        Ok(file)
    }

    fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            Some(_) | None => Path::new("."),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileTypeExt as _;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn the_bytes_replace_what_was_there_and_leave_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        for bytes in [&b"first, and longer"[..], b"second"] {
            write_whole(&path, bytes).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
            write_whole_unsynced(&path, &bytes[1..]).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), &bytes[1..]);
        }
        for bytes in [&b"again"[..], b""] {
            write_whole(&path, bytes).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn only_a_regular_file_is_read_and_nothing_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), b"12345").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        let pipe = std::process::Command::new("mkfifo")
            .arg(at("pipe"))
            .status();
        assert!(pipe.unwrap().success());
        for name in ["file", "link"] {
            assert_eq!(read_regular(&at(name), 5).unwrap(), b"12345");
            let error = read_regular(&at(name), 4).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{name}");
        }
        for path in [at("pipe"), folder.path().to_owned(), "/dev/zero".into()] {
            let error = read_regular(&path, 4).unwrap_err().to_string();
            assert!(error.contains("not a regular file"), "{path:?}: {error}");
        }
    }

    #[test]
    fn a_failure_leaves_no_litter() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        assert!(write_whole(&inner, b"x").is_err());
        assert!(write_whole(&folder.path().join("none").join("a"), b"x").is_err());
        assert_eq!(names(folder.path()), ["inner"]);
    }

    #[test]
    fn a_link_is_followed_and_what_is_no_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), b"old").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        write_whole(&at("link"), b"new").unwrap();
        assert_eq!(std::fs::read(at("file")).unwrap(), b"new");
        assert!(at("link").is_symlink());
        std::os::unix::fs::symlink(at("nothing"), at("dangling")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for name in ["dangling", "socket"] {
            let error = write_whole(&at(name), b"new").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}");
        }
        assert!(at("dangling").is_symlink());
        assert!(
            at("socket")
                .symlink_metadata()
                .unwrap()
                .file_type()
                .is_socket()
        );
    }

    #[test]
    fn a_file_keeps_its_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        for mode in [0o600, 0o444, 0o755] {
            std::fs::write(&path, b"old").unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            write_whole(&path, b"new").unwrap();
            assert_eq!(path.metadata().unwrap().mode() & 0o7777, mode);
            assert_eq!(std::fs::read(&path).unwrap(), b"new");
            std::fs::remove_file(&path).unwrap();
        }
    }
}
