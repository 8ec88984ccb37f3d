//! The limits of the protocol, and the sums that choose them.
//!
//! They are part of version 1: a peer that exceeds one is refused, whatever it sends. Limits that
//! must agree with each other are compared at compile time.

use std::time::Duration;

use tidegate_inference::{NAME_BYTES_MAX, RANK_MAX};

/// Bytes before each header: magic (4), version (1), kind (1), header length (4, big-endian).
pub const PREFIX_BYTES: usize = 10;

/// Most bytes of the header of a request or reply.
pub const HEADER_BYTES_MAX: usize = 4096;

/// Most bytes of the header of a control message. Holds a hello with [`MODULES_MAX`] modules.
pub const CONTROL_BYTES_MAX: usize = 16 << 10;

/// Most tensor bytes of one request or reply: a 4096 x 4096 image at four bytes a pixel.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// Most tensors, and most names of wanted outputs, in one message. A decoder that passes the keys
/// and values of 32 layers through has 67; [`HEADER_BYTES_MAX`] is reached first with long names.
pub const TENSORS_MAX: usize = 128;

/// Most modules in one hello.
pub const MODULES_MAX: usize = 64;

/// Most bytes of a failure's message; a longer one is cut when it is written.
pub const MESSAGE_BYTES_MAX: usize = 1024;

/// Most bytes of the reason in a go-away; a longer one is cut when it is written.
pub const REASON_BYTES_MAX: usize = 256;

/// Most slots that a load report or reservation speaks of; more is written as this.
pub const SLOTS_MAX: u32 = 1_000_000;

/// Longest duration that a message carries; a longer one is written as this.
pub const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Largest module that can be offered: WebAssembly's own section lengths are 32 bits wide. What a relay takes is
/// its own decision and less, at most what a module file may have; the protocol stays when that grows.
pub const MODULE_BYTES_MAX: u64 = 1 << 32;

/// Most bytes before the content of a CBOR item.
const ITEM_HEAD_BYTES_MAX: usize = 9;
/// Bytes of a map key as this version writes them: all are below 24.
const KEY_BYTES: usize = 1;
/// Bytes of a digest with its head.
const DIGEST_BYTES: usize = 2 + 32;
/// Most bytes of a name with its head.
const NAMED_BYTES_MAX: usize = 2 + NAME_BYTES_MAX;
/// Most bytes of one module of a hello: map head, then name, digest, length.
const OFFER_BYTES_MAX: usize =
    1 + 3 * KEY_BYTES + NAMED_BYTES_MAX + DIGEST_BYTES + ITEM_HEAD_BYTES_MAX;
/// Most bytes of one tensor's description: map head, then name, dtype, shape, length.
const TENSOR_BYTES_MAX: usize = 1
    + 4 * KEY_BYTES
    + NAMED_BYTES_MAX
    + 1
    + (1 + RANK_MAX * ITEM_HEAD_BYTES_MAX)
    + ITEM_HEAD_BYTES_MAX;
/// Most bytes of a load report.
const LOAD_BYTES_MAX: usize = 1 + 6 * (KEY_BYTES + ITEM_HEAD_BYTES_MAX);

// A hello with every module always fits.
const _: () = assert!(
    1 + ITEM_HEAD_BYTES_MAX
        + 1
        + 2 * KEY_BYTES
        + NAMED_BYTES_MAX
        + ITEM_HEAD_BYTES_MAX
        + MODULES_MAX * OFFER_BYTES_MAX
        <= CONTROL_BYTES_MAX
);
// So does a failure, so that a relay can always say why it gives no outputs.
const _: () = assert!(
    1 + 2 * KEY_BYTES
        + LOAD_BYTES_MAX
        + 1
        + 3 * KEY_BYTES
        + ITEM_HEAD_BYTES_MAX
        + (3 + MESSAGE_BYTES_MAX)
        + ITEM_HEAD_BYTES_MAX
        <= HEADER_BYTES_MAX
);
// And so do sixteen tensors with the longest names and shapes.
const _: () = assert!(16 * TENSOR_BYTES_MAX + LOAD_BYTES_MAX + 64 <= HEADER_BYTES_MAX);
const _: () = assert!(REASON_BYTES_MAX + 32 <= CONTROL_BYTES_MAX);
const _: () = assert!(PAYLOAD_BYTES_MAX == 4096 * 4096 * 4);
// Milli-slots and payload offsets fit 32 bits.
const _: () = assert!(SLOTS_MAX <= u32::MAX / 1000);
const _: () = assert!(PAYLOAD_BYTES_MAX <= u32::MAX as usize);
