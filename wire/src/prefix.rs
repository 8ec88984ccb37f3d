//! The ten bytes before each header: is this our protocol, and how long is the header?
//!
//! | offset | bytes | value |
//! |---|---|---|
//! | 0 | 4 | the ASCII letters `TDGT` |
//! | 4 | 1 | version of the framing, 1 |
//! | 5 | 1 | [`Kind`] |
//! | 6 | 4 | length of the header, big-endian |

use std::fmt;

use crate::{CONTROL_BYTES_MAX, DecodeError, HEADER_BYTES_MAX, PREFIX_BYTES};

const MAGIC: [u8; 4] = *b"TDGT";
const VERSION: u8 = 1;

/// What a message is, as its prefix says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Agent to relay, first on a stream that the agent opened.
    Request,
    /// Relay to agent, the answer on the same stream.
    Reply,
    /// Either way, on control streams and around the transfer of a module.
    Control,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Request, Self::Reply, Self::Control];

    /// Its number in the prefix.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Reply => 2,
            Self::Control => 3,
        }
    }

    /// Most bytes of a header of this kind.
    #[must_use]
    pub fn header_bytes_max(self) -> usize {
        match self {
            Self::Request | Self::Reply => HEADER_BYTES_MAX,
            Self::Control => CONTROL_BYTES_MAX,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "request",
            Self::Reply => "reply",
            Self::Control => "control message",
        })
    }
}

/// What a prefix announces: read [`PREFIX_BYTES`], decode, then read `header_len` bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// Kind of the message.
    pub kind: Kind,
    /// Bytes of header that follow, at most [`Kind::header_bytes_max`].
    pub header_len: usize,
}

impl Prefix {
    /// Parses and checks the prefix.
    pub fn decode(bytes: &[u8; PREFIX_BYTES]) -> Result<Self, DecodeError> {
        let [m0, m1, m2, m3, version, kind, len @ ..] = *bytes;
        let magic = [m0, m1, m2, m3];
        if magic != MAGIC {
            return Err(DecodeError::Magic { got: magic });
        }
        if version != VERSION {
            return Err(DecodeError::Version { got: version });
        }
        let kind = Kind::ALL
            .into_iter()
            .find(|known| known.number() == kind)
            .ok_or(DecodeError::UnknownKind { got: kind })?;
        let len = u32::from_be_bytes(len);
        let max = kind.header_bytes_max();
        match usize::try_from(len) {
            Ok(header_len) if header_len <= max => Ok(Self { kind, header_len }),
            _ => Err(DecodeError::HeaderLen { kind, len, max }),
        }
    }

    /// The header's length, if the message is of the kind that belongs on this stream.
    pub fn expect(self, wanted: Kind) -> Result<usize, DecodeError> {
        let got = self.kind;
        if got == wanted {
            Ok(self.header_len)
        } else {
            Err(DecodeError::WrongKind { wanted, got })
        }
    }

    /// Writes the prefix of a header of `len` bytes.
    pub(crate) fn encode(kind: Kind, len: u32) -> [u8; PREFIX_BYTES] {
        let mut bytes = [0; PREFIX_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5] = kind.number();
        bytes[6..].copy_from_slice(&len.to_be_bytes());
        bytes
    }
}
