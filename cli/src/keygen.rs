//! `tidegate keygen`: makes a key that signs modules.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use tidegate_registry::signature::SecretKey;

/// Make a key that signs modules: NAME.key, the secret, and NAME.pub, for those who verify.
///
/// The public key is one line, which goes into the table trust of a configuration as it is. Files that are
/// there are never replaced.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where: writes NAME.key, which only you can read, and NAME.pub.
    #[arg(short, long, value_name = "NAME")]
    out: PathBuf,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeygenError {
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// A file is there, or cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Standard output is closed or full.
    #[error("cannot write to standard output")]
    Print(#[source] io::Error),
}

/// Makes both files and says what they are.
pub(crate) fn run(args: &Args) -> Result<(), KeygenError> {
    let key = SecretKey::generate().ok_or(KeygenError::Random)?;
    let (secret, public) = (with(&args.out, ".key"), with(&args.out, ".pub"));
    let comment = args.out.file_name().unwrap_or_default().to_string_lossy();
    let comment = comment.replace(char::is_whitespace, "-");
    let line = format!("{} {comment}\n", key.public());
    write(&secret, 0o600, &key.to_pem())?;
    if let Err(error) = write(&public, 0o644, &line) {
        // Half a pair is of no use, and would be in the way of the next try.
        let _ = fs::remove_file(&secret);
        return Err(error);
    }
    writeln!(
        io::stdout(),
        "{}: the secret, keep it\n{}: key {}, for those who verify",
        secret.display(),
        public.display(),
        key.public().id()
    )
    .map_err(KeygenError::Print)
}

/// The path with an extension behind whatever it ends in.
fn with(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(extension);
    name.into()
}

/// Writes a file that must not be there yet.
fn write(path: &Path, mode: u32, text: &str) -> Result<(), KeygenError> {
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .inspect_err(|_| drop(fs::remove_file(path)))
    };
    write().map_err(|source| KeygenError::Write {
        path: path.to_owned(),
        source,
    })
}
