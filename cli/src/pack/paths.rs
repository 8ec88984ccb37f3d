//! What the paths that pack is given say: a model's name, and whether two are one file.

use std::ffi::OsStr;
use std::path::Path;

use tidegate_inference::NAME_BYTES_MAX;

/// Whether both paths lead to one file that exists, by whatever names.
pub(super) fn is_same_file(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let id = |path: &Path| {
        path.metadata()
            .map(|metadata| (metadata.dev(), metadata.ino()))
    };
    id(one)
        .ok()
        .zip(id(other).ok())
        .is_some_and(|(one, other)| one == other)
}

/// A model's name from a file's: runs of what a name cannot hold become a hyphen.
pub(super) fn name_from(path: &Path) -> Option<String> {
    let stem = path.file_stem().and_then(OsStr::to_str)?;
    let mut name = String::new();
    for character in stem.chars() {
        match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' => name.push(character),
            '.' | '_' | '-' if !name.is_empty() => name.push(character),
            _ if name.is_empty() || name.ends_with('-') => {}
            _ => name.push('-'),
        }
    }
    name.truncate(NAME_BYTES_MAX);
    let name = name.trim_end_matches('-');
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_what_a_name_can_hold() {
        for (path, name) in [
            ("a/model.onnx", Some("model")),
            ("face_320-v1.2.onnx", Some("face_320-v1.2")),
            ("mein Modell (2).onnx", Some("mein-Modell-2")),
            ("größe.onnx", Some("gr-e")),
            ("--x.onnx", Some("x")),
            (".onnx", Some("onnx")),
            ("模型.onnx", None),
            ("..", None),
            ("", None),
        ] {
            assert_eq!(name_from(Path::new(path)).as_deref(), name, "{path}");
        }
        let long = "a".repeat(NAME_BYTES_MAX + 1);
        assert_eq!(
            name_from(Path::new(&long)),
            Some("a".repeat(NAME_BYTES_MAX))
        );
    }

    #[test]
    fn a_file_is_itself_by_any_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        std::fs::write(&file, "a").unwrap();
        std::fs::write(folder.path().join("c"), "a").unwrap();
        std::fs::hard_link(&file, folder.path().join("hard")).unwrap();
        std::os::unix::fs::symlink(&file, folder.path().join("soft")).unwrap();
        for (other, same) in [
            ("a", true),
            ("hard", true),
            ("soft", true),
            ("c", false),
            ("none", false),
        ] {
            assert_eq!(
                is_same_file(&file, &folder.path().join(other)),
                same,
                "{other}"
            );
        }
    }
}
