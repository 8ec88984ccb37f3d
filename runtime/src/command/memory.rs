//! A program's memory as host calls see it: every place is checked before it is touched.

/// A place that is not, or not wholly, in the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes at {at:#x} are not in the guest's memory")]
pub(super) struct BadPlace {
    at: u32,
    len: u64,
}

/// The linear memory of a program during one host call.
///
/// Places need not be aligned: a guest's compiler aligns what it passes, and nothing depends on it.
pub(super) struct Memory<'a>(&'a mut [u8]);

impl<'a> Memory<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        Self(bytes)
    }

    /// `len` bytes from `at`.
    pub(super) fn bytes(&self, at: u32, len: u32) -> Result<&[u8], BadPlace> {
        let range = self.range(at, len.into())?;
        Ok(&self.0[range])
    }

    /// `len` bytes from `at`, to write to.
    pub(super) fn bytes_mut(&mut self, at: u32, len: u32) -> Result<&mut [u8], BadPlace> {
        let range = self.range(at, len.into())?;
        Ok(&mut self.0[range])
    }

    /// Checks that a number can be written at `at`.
    pub(super) fn check_number(&self, at: u32) -> Result<(), BadPlace> {
        self.range(at, 4).map(drop)
    }

    /// Writes a number.
    pub(super) fn put_number(&mut self, at: u32, number: u32) -> Result<(), BadPlace> {
        self.bytes_mut(at, 4)?
            .copy_from_slice(&number.to_le_bytes());
        Ok(())
    }

    /// `N` numbers from `at`.
    pub(super) fn record<const N: usize>(&self, at: u32) -> Result<[u32; N], BadPlace> {
        let range = self.range(at, 4 * N as u64)?;
        let (words, _) = self.0[range].as_chunks::<4>();
        let mut record = [0; N];
        for (number, word) in record.iter_mut().zip(words) {
            *number = u32::from_le_bytes(*word);
        }
        Ok(record)
    }

    /// `count` numbers from `at`. The caller has bounded the count.
    pub(super) fn numbers(&self, at: u32, count: u32) -> Result<Vec<u32>, BadPlace> {
        let range = self.range(at, 4 * u64::from(count))?;
        let (words, _) = self.0[range].as_chunks::<4>();
        Ok(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
    }

    fn range(&self, at: u32, len: u64) -> Result<std::ops::Range<usize>, BadPlace> {
        let bad = BadPlace { at, len };
        let start = usize::try_from(at).map_err(|_| bad)?;
        let end = usize::try_from(u64::from(at).checked_add(len).ok_or(bad)?).map_err(|_| bad)?;
        if end > self.0.len() {
            return Err(bad);
        }
        Ok(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_wholly_inside_is_given() {
        let mut bytes: Vec<u8> = (0..16).collect();
        let mut memory = Memory::new(&mut bytes);
        assert_eq!(memory.bytes(15, 1).unwrap(), [15]);
        assert!(memory.bytes(16, 0).unwrap().is_empty());
        for (at, len) in [
            (16, 1),
            (17, 0),
            (0, 17),
            (u32::MAX, 1),
            (1, u32::MAX),
            (u32::MAX, u32::MAX),
        ] {
            let bad = BadPlace {
                at,
                len: len.into(),
            };
            assert_eq!(memory.bytes(at, len), Err(bad));
            assert_eq!(memory.bytes_mut(at, len).unwrap_err(), bad);
        }
        assert_eq!(memory.record::<2>(3).unwrap(), [0x0605_0403, 0x0a09_0807]);
        assert!(memory.record::<4>(1).is_err());
        assert!(memory.numbers(0, u32::MAX).is_err());
        assert!(memory.put_number(13, 1).is_err());
        memory.put_number(12, 1).unwrap();
        assert_eq!(bytes[12..], [1, 0, 0, 0]);
    }
}
