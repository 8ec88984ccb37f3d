//! Files that survive crashes: written whole or not at all, in folders that cannot outgrow their disk.
//!
//! What a daemon keeps between runs (modules, compiled code) can always be had again, so losing a file is
//! cheap and reading half of one is not. Every write goes to a temporary file in the same folder, is
//! forced to the disk, takes its name by a rename, and is complete only when the folder is on the disk
//! too: after a power failure a name leads to the old bytes, the new ones, or nothing.
//!
//! Nothing here detects damage. Disks flip bits, so callers authenticate what [`Folder::get`] gives and
//! call [`Folder::remove`] when it is not what they put.

mod error;
mod folder;
mod lock;
mod survey;
mod whole;

pub use error::FolderError;
pub use folder::{FILES_MAX, Folder, Held, Limits, NAME_BYTES_MAX};
pub use lock::WAIT_MAX;
pub use whole::{open_regular, read_at_most, read_regular, write_whole, write_whole_unsynced};
