//! The form of an entry: a mark, a tag, and what is kept.
//!
//! The tag is HMAC-SHA256 of the payload under a key of the entry's own, which is HMAC-SHA256 of the
//! entry's name under the device's key. So it covers the name too, and `ring` compares it in constant time.

use ring::hmac;

/// What every entry begins with. Another form of entries gets another mark.
const MARK: [u8; MARK_BYTES] = *b"tidegat1";

/// Length of the mark.
const MARK_BYTES: usize = 8;

/// Length of a tag.
const TAG_BYTES: usize = 32;

/// Says what the device's key is used for here.
const PURPOSE: &[u8] = b"tidegate cache entry 1\0";

/// The bytes of an entry that this device made under the name by which it was read.
///
/// Made by [`open`] alone, after the tag was found to be right.
#[derive(Debug)]
pub(crate) struct Authentic(Vec<u8>);

impl Authentic {
    /// What was kept.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.0[MARK_BYTES + TAG_BYTES..]
    }
}

/// An entry of this name and content.
pub(super) fn seal(device: &hmac::Key, name: &str, payload: &[u8]) -> Vec<u8> {
    let tag = hmac::sign(&entry_key(device, name), payload);
    let mut file = Vec::with_capacity(MARK_BYTES + TAG_BYTES + payload.len());
    file.extend_from_slice(&MARK);
    file.extend_from_slice(tag.as_ref());
    file.extend_from_slice(payload);
    file
}

/// The entry, if it was sealed under this key and name and has not changed since.
pub(super) fn open(device: &hmac::Key, name: &str, file: Vec<u8>) -> Option<Authentic> {
    let (mark, rest) = file.split_first_chunk::<MARK_BYTES>()?;
    if *mark != MARK {
        return None;
    }
    let (tag, payload) = rest.split_first_chunk::<TAG_BYTES>()?;
    hmac::verify(&entry_key(device, name), payload, tag).ok()?;
    Some(Authentic(file))
}

fn entry_key(device: &hmac::Key, name: &str) -> hmac::Key {
    let mut context = hmac::Context::with_key(device);
    context.update(PURPOSE);
    context.update(name.as_bytes());
    hmac::Key::new(hmac::HMAC_SHA256, context.sign().as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_name_and_bytes_open_an_entry() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
        let other = hmac::Key::new(hmac::HMAC_SHA256, &[8; 32]);
        let whole = seal(&key, "code-1", b"payload");
        let opened = open(&key, "code-1", whole.clone()).unwrap();
        assert_eq!(opened.payload(), b"payload");
        assert!(open(&other, "code-1", whole.clone()).is_none());
        assert!(open(&key, "code-2", whole.clone()).is_none());
        for len in 0..whole.len() {
            assert!(
                open(&key, "code-1", whole[..len].to_vec()).is_none(),
                "{len}"
            );
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[at] ^= 1 << bit;
                assert!(open(&key, "code-1", changed).is_none(), "{at}.{bit}");
            }
        }
        let longer = [&whole[..], b"x"].concat();
        assert!(open(&key, "code-1", longer).is_none());
        let empty = open(&key, "e", seal(&key, "e", b"")).unwrap();
        assert_eq!(empty.payload(), b"");
    }
}
