//! A writer that is killed at any moment.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use fastrand::Rng;
use tidegate_store::{Folder, write_whole};
use tidegate_tests::inside;

use crate::everything;

/// Times that a writer is killed.
const ROUNDS: usize = 40;

/// Most bytes of a file: large enough that most moments lie in the middle of a write.
const FILE_BYTES_MAX: u32 = 256 << 10;

const FOLDER_BYTES_MAX: u64 = 4 * FILE_BYTES_MAX as u64;

/// Bytes that tell whether they are whole: each is the same, but the first four, which count them.
fn numbered(rng: &mut Rng) -> Vec<u8> {
    let count = rng.u32(4..FILE_BYTES_MAX);
    let mut bytes = count.to_le_bytes().to_vec();
    bytes.resize(count as usize, rng.u8(..));
    bytes
}

pub(crate) fn is_whole(bytes: &[u8]) -> bool {
    let Some((count, rest)) = bytes.split_first_chunk() else {
        return false;
    };
    u32::from_le_bytes(*count) as usize == bytes.len() && rest.iter().all(|byte| *byte == rest[0])
}

/// Puts files for ever.
fn write_for_ever(path: &Path) {
    let mut rng = Rng::new();
    let folder = Folder::open(path.join("folder"), FOLDER_BYTES_MAX).unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "\nbegins").unwrap();
    out.flush().unwrap();
    loop {
        let name = rng.u8(0..6).to_string();
        folder.put(&name, &numbered(&mut rng)).unwrap();
        write_whole(&path.join("whole"), &numbered(&mut rng)).unwrap();
    }
}

#[test]
fn a_writer_killed_at_any_moment_leaves_whole_files() {
    if let Some(path) = inside::folder() {
        return write_for_ever(&path);
    }
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("folder");
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let (mut files, mut litter) = (0, 0);
    for round in 0..ROUNDS {
        let name = "killed::a_writer_killed_at_any_moment_leaves_whole_files";
        let mut command = inside::command(name, temporary.path(), "");
        let mut writer = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        assert!(
            lines
                .map_while(Result::ok)
                .any(|line| line.ends_with("begins"))
        );
        let (_never, moment) = mpsc::channel::<()>();
        let _ = moment.recv_timeout(Duration::from_micros(rng.u64(0..30_000)));
        writer.kill().unwrap();
        writer.wait().unwrap();
        litter += everything(&path)
            .iter()
            .filter(|name| name.starts_with('.'))
            .count();
        let folder = Folder::open(&path, FOLDER_BYTES_MAX).unwrap();
        let names = folder.names().unwrap();
        assert_eq!(everything(&path), names, "round {round}: litter");
        let mut bytes_total = 0;
        for name in &names {
            let bytes = folder.get(name).unwrap().unwrap();
            assert!(is_whole(&bytes), "round {round}: {name}");
            bytes_total += bytes.len() as u64;
        }
        assert!(bytes_total <= FOLDER_BYTES_MAX, "round {round}");
        files += names.len();
        if let Ok(bytes) = std::fs::read(temporary.path().join("whole")) {
            assert!(is_whole(&bytes), "round {round}: whole");
        }
    }
    // Otherwise the moments were none.
    assert!(files > 0 && litter > 0, "{files} files, {litter} left over");
}
