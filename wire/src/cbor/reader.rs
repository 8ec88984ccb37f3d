//! Reads a header, refusing whatever the writer could not have written.

use std::time::Duration;

use minicbor::Decoder;
use minicbor::data::Type;
use tidegate_inference::{Digest, NAME_BYTES_MAX};

use crate::{CONTROL_BYTES_MAX, DURATION_MAX, DecodeError};

/// Deepest nesting of arrays in the value of an extension.
const EXTENSION_DEPTH_MAX: usize = 4;

pub(crate) struct Reader<'b> {
    cbor: Decoder<'b>,
}

/// A map whose keys are being read.
pub(crate) struct Map {
    name: &'static str,
    /// Entries whose key has not been read.
    entries_left: u64,
    /// A key that has been read but not taken, and its offset.
    next: Option<(usize, i128)>,
}

impl<'b> Reader<'b> {
    pub(crate) fn new(header: &'b [u8]) -> Self {
        Self {
            cbor: Decoder::new(header),
        }
    }

    /// Refuses bytes behind the header's one value.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        let at = self.at();
        match self.cbor.input().len() - at {
            0 => Ok(()),
            len => Err(DecodeError::Trailing { at, len }),
        }
    }

    /// Offset of the next value.
    pub(crate) fn at(&self) -> usize {
        self.cbor.position()
    }

    pub(crate) fn uint(&mut self, what: &'static str, max: u64) -> Result<u64, DecodeError> {
        let at = self.at();
        let got = self.read(what, "an unsigned integer", Decoder::u64)?;
        self.check_shortest(what, at, got, 0)?;
        within(what, at, got, max)
    }

    pub(crate) fn flag(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        self.read(what, "a boolean", Decoder::bool)
    }

    pub(crate) fn text(&mut self, what: &'static str, max: usize) -> Result<&'b str, DecodeError> {
        let at = self.at();
        let text = self.read(what, "UTF-8 text of definite length", Decoder::str)?;
        self.check_shortest(what, at, text.len() as u64, text.len())?;
        within(what, at, text.len() as u64, max as u64)?;
        Ok(text)
    }

    /// Text that is at most [`NAME_BYTES_MAX`] bytes long.
    pub(crate) fn name(&mut self, what: &'static str) -> Result<String, DecodeError> {
        self.text(what, NAME_BYTES_MAX).map(str::to_owned)
    }

    pub(crate) fn digest(&mut self, what: &'static str) -> Result<Digest, DecodeError> {
        let at = self.at();
        let bytes = self.bytes(what)?;
        let len = bytes.len();
        <[u8; 32]>::try_from(bytes)
            .map(Digest)
            .map_err(|_| DecodeError::DigestLen { what, at, len })
    }

    /// Microseconds, at most [`DURATION_MAX`].
    pub(crate) fn micros(&mut self, what: &'static str) -> Result<Duration, DecodeError> {
        self.uint(what, super::micros(DURATION_MAX))
            .map(Duration::from_micros)
    }

    /// Thousandths of a number that is at most `max`.
    pub(crate) fn milli(&mut self, what: &'static str, max: u32) -> Result<f64, DecodeError> {
        let milli = self.count(what, max * 1000)?;
        Ok(f64::from(milli) / 1000.0)
    }

    /// A number of at most 32 bits.
    pub(crate) fn count(&mut self, what: &'static str, max: u32) -> Result<u32, DecodeError> {
        let count = self.uint(what, u64::from(max))?;
        Ok(u32::try_from(count).expect("at most `max`"))
    }

    /// The value among `all` whose number comes next.
    pub(crate) fn one_of<T: Copy>(
        &mut self,
        what: &'static str,
        all: &[T],
        number: impl Fn(T) -> u64,
    ) -> Result<T, DecodeError> {
        let at = self.at();
        let got = self.uint(what, u64::MAX)?;
        all.iter()
            .copied()
            .find(|one| number(*one) == got)
            .ok_or(DecodeError::Unknown { what, at, got })
    }

    /// Starts a list and gives its number of entries, at most `max`.
    pub(crate) fn list(&mut self, what: &'static str, max: usize) -> Result<usize, DecodeError> {
        let at = self.at();
        let len = self.open(what, "an array of definite length", Decoder::array)?;
        within(what, at, len, max as u64)?;
        Ok(usize::try_from(len).expect("at most `max`"))
    }

    /// Starts an array of exactly two.
    pub(crate) fn pair(&mut self, what: &'static str) -> Result<(), DecodeError> {
        let wanted = "an array of two";
        let at = self.at();
        match self.open(what, wanted, Decoder::array)? {
            2 => Ok(()),
            _ => Err(DecodeError::Type { what, at, wanted }),
        }
    }

    /// Reads a map: `fields` takes the keys that it knows, in order.
    pub(crate) fn map<T>(
        &mut self,
        name: &'static str,
        fields: impl FnOnce(&mut Self, &mut Map) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let entries_left = self.open(name, "a map of definite length", Decoder::map)?;
        let mut map = Map {
            name,
            entries_left,
            next: None,
        };
        let value = fields(self, &mut map)?;
        self.end(map)?;
        Ok(value)
    }

    /// Reads `key`, which must come next in `map`.
    pub(crate) fn key(&mut self, map: &mut Map, wanted: u64) -> Result<(), DecodeError> {
        if self.optional_key(map, wanted)? {
            return Ok(());
        }
        let name = map.name;
        Err(match map.next {
            Some((at, got)) => DecodeError::Key {
                map: name,
                at,
                got,
                wanted,
            },
            None => DecodeError::MissingKey {
                map: name,
                at: self.at(),
                key: wanted,
            },
        })
    }

    /// Reads `key` if it comes next in `map`.
    pub(crate) fn optional_key(&mut self, map: &mut Map, key: u64) -> Result<bool, DecodeError> {
        self.look_ahead(map)?;
        let found = map.next.is_some_and(|(_, got)| got == i128::from(key));
        if found {
            map.next = None;
        }
        Ok(found)
    }

    /// Steps over the extensions at the end of `map`, and refuses any other key that is left.
    fn end(&mut self, mut map: Map) -> Result<(), DecodeError> {
        let mut last = 0;
        loop {
            self.look_ahead(&mut map)?;
            let Some((at, got)) = map.next.take() else {
                return Ok(());
            };
            if got >= last {
                let map = map.name;
                return Err(DecodeError::UnknownKey { map, at, got });
            }
            last = got;
            self.extension(EXTENSION_DEPTH_MAX)?;
        }
    }

    /// Reads the next key of `map`, unless that was done already.
    fn look_ahead(&mut self, map: &mut Map) -> Result<(), DecodeError> {
        if map.next.is_none() && map.entries_left > 0 {
            let at = self.at();
            let key = i128::from(self.read(map.name, "a map with integer keys", Decoder::int)?);
            self.check_shortest(map.name, at, argument(key), 0)?;
            map.entries_left -= 1;
            map.next = Some((at, key));
        }
        Ok(())
    }

    /// Steps over an extension's value: an integer, text, bytes, boolean, or array of such.
    fn extension(&mut self, depth: usize) -> Result<(), DecodeError> {
        const WHAT: &str = "an extension";
        let at = self.at();
        match self.cbor.datatype() {
            Ok(Type::Bool) => self.flag(WHAT).map(drop),
            Ok(Type::Bytes) => self.bytes(WHAT).map(drop),
            Ok(Type::String) => self.text(WHAT, CONTROL_BYTES_MAX).map(drop),
            Ok(Type::Array) if depth > 0 => {
                let entries = self.list(WHAT, CONTROL_BYTES_MAX)?;
                (0..entries).try_for_each(|_| self.extension(depth - 1))
            }
            _ => {
                let wanted = "an integer, text, bytes, boolean or array of such";
                let value = i128::from(self.read(WHAT, wanted, Decoder::int)?);
                self.check_shortest(WHAT, at, argument(value), 0)
            }
        }
    }

    fn bytes(&mut self, what: &'static str) -> Result<&'b [u8], DecodeError> {
        let at = self.at();
        let bytes = self.read(what, "bytes of definite length", Decoder::bytes)?;
        self.check_shortest(what, at, bytes.len() as u64, bytes.len())?;
        Ok(bytes)
    }

    /// Reads the head of an array or map, which must give a length.
    fn open(
        &mut self,
        what: &'static str,
        wanted: &'static str,
        read: impl FnOnce(&mut Decoder<'b>) -> Result<Option<u64>, minicbor::decode::Error>,
    ) -> Result<u64, DecodeError> {
        let at = self.at();
        let len = self
            .read(what, wanted, read)?
            .ok_or(DecodeError::Type { what, at, wanted })?;
        self.check_shortest(what, at, len, 0)?;
        Ok(len)
    }

    fn read<T>(
        &mut self,
        what: &'static str,
        wanted: &'static str,
        read: impl FnOnce(&mut Decoder<'b>) -> Result<T, minicbor::decode::Error>,
    ) -> Result<T, DecodeError> {
        let at = self.at();
        read(&mut self.cbor).map_err(|error| {
            if error.is_end_of_input() {
                let at = self.cbor.input().len();
                DecodeError::Truncated { what, at }
            } else {
                DecodeError::Type { what, at, wanted }
            }
        })
    }

    /// Refuses the item read since `start` if its head took more bytes than `argument` needs.
    fn check_shortest(
        &self,
        what: &'static str,
        start: usize,
        argument: u64,
        content_len: usize,
    ) -> Result<(), DecodeError> {
        let head_len = match argument {
            0..24 => 1,
            24..=0xff => 2,
            0x100..=0xffff => 3,
            0x1_0000..=0xffff_ffff => 5,
            _ => 9,
        };
        if self.at() - start == head_len + content_len {
            Ok(())
        } else {
            Err(DecodeError::NotShortest { what, at: start })
        }
    }
}

/// What the head of an integer carries: the value, or -1 less the value (RFC 8949, section 3.1).
fn argument(value: i128) -> u64 {
    let carried = if value < 0 { -1 - value } else { value };
    u64::try_from(carried).expect("a CBOR integer has 64 bits and a sign")
}

fn within(what: &'static str, at: usize, got: u64, max: u64) -> Result<u64, DecodeError> {
    if got <= max {
        Ok(got)
    } else {
        Err(DecodeError::Range { what, at, got, max })
    }
}
