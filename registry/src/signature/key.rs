//! Ed25519 keys, and the short names by which signatures and people call them.

use std::fmt;

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

/// Length of a [`KeyId`].
pub const KEY_ID_BYTES: usize = 12;

/// The points of small order, as keys are written: the second coordinate, the sign of the first left out. The last
/// two are other ways to write the third and the first.
///
/// Under such a key a signature can be made that holds for one message in eight, or for every one, without
/// any secret. Who has a key has none of these, except by intent.
const SMALL_ORDER: [[u8; 32]; 7] = {
    const fn near_p(last: u8) -> [u8; 32] {
        let mut bytes = [0xff; 32];
        bytes[0] = last;
        bytes[31] = 0x7f;
        bytes
    }
    let mut one = [0; 32];
    one[0] = 1;
    [
        one,
        near_p(0xec),
        [0; 32],
        *b"\x26\xe8\x95\x8f\xc2\xb2\x27\xb0\x45\xc3\xf4\x89\xf2\xef\x98\xf0\
           \xd5\xdf\xac\x05\xd3\xc6\x33\x39\xb1\x38\x02\x88\x6d\x53\xfc\x05",
        *b"\xc7\x17\x6a\x70\x3d\x4d\xd8\x4f\xba\x3c\x0b\x76\x0d\x10\x67\x0f\
           \x2a\x20\x53\xfa\x2c\x39\xcc\xc6\x4e\xc7\xfd\x77\x92\xac\x03\x7a",
        near_p(0xed),
        near_p(0xee),
    ]
};

/// The name of a public key: the beginning of a hash that it keys, as `wasmsign2` makes it. A hint, not a proof.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub [u8; KEY_ID_BYTES]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A key that verifies. Its text is one line, as OpenSSH writes it: `ssh-ed25519 AAAA...`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

impl PublicKey {
    /// The key of these bytes; none if anybody can sign for it.
    pub(super) fn from_bytes(bytes: [u8; 32]) -> Option<Self> {
        let mut unsigned = bytes;
        unsigned[31] &= 0x7f;
        (!SMALL_ORDER.contains(&unsigned)).then_some(Self(bytes))
    }

    /// The name of this key.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &self.0);
        let tag = ring::hmac::sign(&key, b"key_id");
        let first = tag.as_ref().first_chunk();
        KeyId(*first.expect("a SHA-256 tag has 32 bytes"))
    }

    /// The 32 bytes of RFC 8032.
    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `signature` is this key's, of `message`.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, &self.0);
        key.verify(message, signature).is_ok()
    }
}

/// A key that signs. Its text is in no log.
pub struct SecretKey {
    pub(super) seed: [u8; 32],
    pair: Ed25519KeyPair,
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.public().id())
    }
}

impl SecretKey {
    /// A new key. `None` if the system gives no random bytes.
    #[must_use]
    pub fn generate() -> Option<Self> {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).ok()?;
        Some(Self::from_seed(seed))
    }

    /// The key that RFC 8032 makes of these 32 bytes.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed);
        Self {
            seed,
            pair: pair.expect("any 32 bytes are a seed"),
        }
    }

    /// The key that verifies what this one signs.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let public = self.pair.public_key().as_ref();
        PublicKey(public.try_into().expect("an Ed25519 key has 32 bytes"))
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What shows that the list is right: without a secret, a signature of zero holds for some message.
    #[test]
    fn no_key_is_one_for_which_anybody_can_sign() {
        let [one, ..] = SMALL_ORDER;
        let signature = [one, [0; 32]].concat();
        for bytes in SMALL_ORDER {
            for sign in [0, 0x80] {
                let mut bytes = bytes;
                bytes[31] |= sign;
                assert_eq!(PublicKey::from_bytes(bytes), None, "{bytes:02x?}");
                let key = PublicKey(bytes);
                let is_forged = (0..=u8::MAX).any(|message| key.verifies(&[message], &signature));
                assert!(is_forged, "{bytes:02x?}");
            }
        }
        let good = SecretKey::from_seed([7; 32]).public();
        assert_eq!(PublicKey::from_bytes(good.0), Some(good));
        assert!((0..=u8::MAX).all(|message| !good.verifies(&[message], &signature)));
    }
}
