//! Samples as a folder of NumPy files: `in_K_I.npy` is input I of sample K, `out_K_J.npy` its output J.
//!
//! Inputs and outputs are counted from 0, in the manifest's order. Other files in the folder are left
//! alone. Every sample must have every input and every output, so that nothing is left out unnoticed.

mod npy;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use tidegate_inference::{NamedTensor, TensorSpec};
use tidegate_runtime::Manifest;
use tidegate_runtime::samples::{SAMPLES_BYTES_MAX, SAMPLES_MAX, Sample};

use npy::NpyError;

/// Why a folder gives no samples.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadSamplesError {
    /// The folder or a file in it cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The folder or the file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No file has a sample's name.
    #[error("{} has no samples, which are files in_K_I.npy and out_K_J.npy", .0.display())]
    None(PathBuf),
    /// A sample lacks a file.
    #[error("{} is missing: sample {sample} must have every {kind} of the model", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// Its sample.
        sample: usize,
        /// `input` or `output`.
        kind: &'static str,
    },
    /// A file is of a tensor that the model does not have.
    #[error("{}: the model has no {kind} {index}, it has {count}", path.display())]
    Extra {
        /// The file.
        path: PathBuf,
        /// `input` or `output`.
        kind: &'static str,
        /// Which.
        index: usize,
        /// How many the model has.
        count: usize,
    },
    /// A file does not hold the tensor that the model has.
    #[error("{} holds {got}, but {kind} {name:?} is {wanted}", path.display())]
    Fit {
        /// The file.
        path: PathBuf,
        /// `input` or `output`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Datatype and shape in the file.
        got: String,
        /// Datatype and shape in the manifest.
        wanted: String,
    },
    /// A file is not a NumPy array that a model can take.
    #[error("cannot use {}", path.display())]
    Npy {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: NpyError,
    },
    /// More samples than a module holds.
    #[error("{} has {got} samples, a module holds at most {SAMPLES_MAX}", path.display())]
    TooMany {
        /// The folder.
        path: PathBuf,
        /// How many.
        got: usize,
    },
    /// More bytes than a module holds.
    #[error("the samples in {} have more than {SAMPLES_BYTES_MAX} bytes", .0.display())]
    TooLarge(PathBuf),
}

/// Which tensor of which sample a file holds: input or output, sample, place.
type Place = (Kind, usize, usize);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Input,
    Output,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Input => "in",
            Self::Output => "out",
        }
    }
}

/// The samples of a folder for the model that a manifest describes, in the order of their numbers.
pub(crate) fn read(folder: &Path, manifest: &Manifest) -> Result<Vec<Sample>, ReadSamplesError> {
    let files = list(folder)?;
    let numbers: BTreeSet<usize> = files.keys().map(|(_, sample, _)| *sample).collect();
    if numbers.is_empty() {
        return Err(ReadSamplesError::None(folder.to_owned()));
    }
    if numbers.len() > SAMPLES_MAX {
        let (path, got) = (folder.to_owned(), numbers.len());
        return Err(ReadSamplesError::TooMany { path, got });
    }
    for ((kind, _, index), path) in &files {
        let count = match kind {
            Kind::Input => manifest.inputs.len(),
            Kind::Output => manifest.outputs.len(),
        };
        if *index >= count {
            let (path, kind, index) = (path.clone(), kind.name(), *index);
            return Err(ReadSamplesError::Extra {
                path,
                kind,
                index,
                count,
            });
        }
    }
    let mut room = SAMPLES_BYTES_MAX;
    let mut samples = Vec::with_capacity(numbers.len());
    for number in numbers {
        let mut tensors = |kind: Kind, specs: &[TensorSpec]| {
            let tensor = |(index, spec)| {
                let Some(path) = files.get(&(kind, number, index)) else {
                    let name = format!("{}_{number}_{index}.npy", kind.prefix());
                    return Err(ReadSamplesError::Missing {
                        path: folder.join(name),
                        sample: number,
                        kind: kind.name(),
                    });
                };
                read_tensor(path, kind, spec, &mut room).and_then(|tensor| {
                    tensor.ok_or_else(|| ReadSamplesError::TooLarge(folder.to_owned()))
                })
            };
            specs
                .iter()
                .enumerate()
                .map(tensor)
                .collect::<Result<Vec<_>, _>>()
        };
        let inputs = tensors(Kind::Input, &manifest.inputs)?;
        let outputs = tensors(Kind::Output, &manifest.outputs)?;
        samples.push(Sample { inputs, outputs });
    }
    Ok(samples)
}

/// The files of a folder that have a sample's name.
fn list(folder: &Path) -> Result<BTreeMap<Place, PathBuf>, ReadSamplesError> {
    let read = |source| ReadSamplesError::Read {
        path: folder.to_owned(),
        source,
    };
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let place = path.file_name().and_then(|name| place_of(name.to_str()?));
        if let Some(place) = place {
            files.insert(place, path);
        }
    }
    Ok(files)
}

fn place_of(name: &str) -> Option<Place> {
    let (prefix, numbers) = name.strip_suffix(".npy")?.split_once('_')?;
    let kind = match prefix {
        "in" => Kind::Input,
        "out" => Kind::Output,
        _ => return None,
    };
    let (sample, index) = numbers.split_once('_')?;
    let number = |text: &str| {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
        is_plain.then(|| text.parse().ok()).flatten()
    };
    Some((kind, number(sample)?, number(index)?))
}

/// The tensor in a file. `None` if it takes more than the `room` that is left.
fn read_tensor(
    path: &Path,
    kind: Kind,
    spec: &TensorSpec,
    room: &mut usize,
) -> Result<Option<NamedTensor>, ReadSamplesError> {
    let read = || {
        // Opening a pipe would wait for a writer that may never come.
        if !path.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut bytes = Vec::new();
        File::open(path)?
            .take(*room as u64 + 1)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|source| ReadSamplesError::Read {
        path: path.to_owned(),
        source,
    })?;
    let Some(left) = room.checked_sub(bytes.len()) else {
        return Ok(None);
    };
    *room = left;
    let tensor = npy::read(bytes.into()).map_err(|source| ReadSamplesError::Npy {
        path: path.to_owned(),
        source,
    })?;
    if !spec.accepts(tensor.dtype(), tensor.shape()) {
        return Err(ReadSamplesError::Fit {
            path: path.to_owned(),
            kind: kind.name(),
            name: spec.name.clone(),
            got: format!("{} of shape {:?}", tensor.dtype(), tensor.shape()),
            wanted: format!("{} of shape {:?}", spec.dtype, spec.shape),
        });
    }
    let name = spec.name.clone();
    Ok(Some(NamedTensor { name, tensor }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_samples_are_taken() {
        let place =
            |name| place_of(name).map(|(kind, sample, index)| (kind.prefix(), sample, index));
        assert_eq!(place("in_0_1.npy"), Some(("in", 0, 1)));
        assert_eq!(place("out_12_0.npy"), Some(("out", 12, 0)));
        for other in [
            "in_0.npy",
            "in_0_1.npz",
            "in_0_1",
            "input_0_1.npy",
            "in_a_1.npy",
            "in_+1_1.npy",
            "in_0_1_2.npy",
            "in__1.npy",
            "in_99999999999999999999_0.npy",
        ] {
            assert_eq!(place(other), None, "{other}");
        }
    }
}
