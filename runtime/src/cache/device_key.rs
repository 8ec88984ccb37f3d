//! The key that authenticates this device's cache: made once, read by its owner alone, never sent.
//!
//! The key appears whole or not at all: it is written beside its place, put on the disk, and linked to
//! its name only if that is free, so that of two processes that start at once both use the first one's.
//! A key that others can read, or that is anything but a file of the right length, proves nothing. It is
//! replaced, and with it goes everything that it vouched for.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::geteuid;

/// Length of the key: as long as its tags, more adds nothing.
const KEY_BYTES: usize = 32;

/// Permissions of everybody but the owner.
const OF_OTHERS: u32 = 0o077;

/// How often a key is looked for and made: more than twice only where another process replaces it over
/// and over.
const ATTEMPTS_MAX: usize = 8;

/// The key at `path`, made now if there is none that can be used.
pub(super) fn load(path: &Path) -> io::Result<hmac::Key> {
    for _ in 0..ATTEMPTS_MAX {
        match read(path) {
            Ok(key) => return Ok(hmac::Key::new(hmac::HMAC_SHA256, &key)),
            Err(Unusable::Absent) => {}
            Err(Unusable::Unsafe(reason)) => {
                tracing::warn!(path = %path.display(), reason, "replacing the key of the cache");
                remove(path)?;
            }
            Err(Unusable::Failed(error)) => return Err(error),
        }
        make(path)?;
    }
    Err(io::Error::other("it is replaced all the time"))
}

/// Why there is no key to use.
enum Unusable {
    Absent,
    Unsafe(&'static str),
    Failed(io::Error),
}

fn read(path: &Path) -> Result<[u8; KEY_BYTES], Unusable> {
    // Neither follows a link to a file that is not ours nor waits for the writer of a pipe.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(Unusable::Absent),
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            return Err(Unusable::Unsafe("it is a symbolic link"));
        }
        Err(error) => return Err(Unusable::Failed(error)),
    };
    let metadata = file.metadata().map_err(Unusable::Failed)?;
    if !metadata.is_file() {
        return Err(Unusable::Unsafe("it is not a file"));
    }
    if metadata.uid() != geteuid().as_raw() || metadata.mode() & OF_OTHERS != 0 {
        return Err(Unusable::Unsafe("others may read or write it"));
    }
    if metadata.len() != KEY_BYTES as u64 {
        return Err(Unusable::Unsafe("it has not the length of a key"));
    }
    let mut key = [0; KEY_BYTES];
    file.read_exact(&mut key).map_err(Unusable::Failed)?;
    Ok(key)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Puts a fresh key at `path`, unless another process was first.
fn make(path: &Path) -> io::Result<()> {
    let mut key = [0; KEY_BYTES];
    SystemRandom::new()
        .fill(&mut key)
        .map_err(|_| io::Error::other("the system gives no random numbers"))?;
    let folder = path
        .parent()
        .ok_or_else(|| io::Error::from(ErrorKind::InvalidInput))?;
    // Temporary files are readable by their owner alone from the beginning.
    let mut file = tempfile::Builder::new()
        .prefix(".code.key-")
        .tempfile_in(folder)?;
    file.write_all(&key)?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Err(error) if error.error.kind() != ErrorKind::AlreadyExists => return Err(error.error),
        Ok(_) | Err(_) => {}
    }
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn tag(path: &Path) -> Vec<u8> {
        let key = load(path).unwrap();
        hmac::sign(&key, b"x").as_ref().to_vec()
    }

    #[test]
    fn a_key_is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("code.key");
        let first = tag(&path);
        assert_eq!(tag(&path), first);
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn processes_that_start_at_once_agree_on_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("code.key");
        let tags: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| tag(&path))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert!(tags.iter().all(|tag| *tag == tags[0]));
    }

    #[test]
    fn a_key_that_proves_nothing_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("code.key");
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, [1; KEY_BYTES]).unwrap();
        fs::set_permissions(&elsewhere, Permissions::from_mode(0o600)).unwrap();
        let spoil: [&dyn Fn(); 5] = [
            &|| fs::write(&path, [1; KEY_BYTES - 1]).unwrap(),
            &|| fs::write(&path, [1; KEY_BYTES + 1]).unwrap(),
            &|| fs::write(&path, []).unwrap(),
            &|| fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap(),
            &|| {
                fs::remove_file(&path).unwrap();
                symlink(&elsewhere, &path).unwrap();
            },
        ];
        for spoil in spoil {
            let before = tag(&path);
            spoil();
            assert_ne!(tag(&path), before);
            assert!(path.symlink_metadata().unwrap().is_file());
            assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read(&elsewhere).unwrap(), [1; KEY_BYTES]);
    }

    #[test]
    fn a_place_where_no_key_can_be_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("code.key");
        fs::create_dir(&path).unwrap();
        assert!(load(&path).is_err());
        assert!(load(&folder.path().join("none/code.key")).is_err());
    }
}
