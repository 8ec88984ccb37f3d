//! Application error codes of QUIC streams and connections.
//!
//! They say why a side stopped, for logs and for the choice between trying elsewhere and giving
//! up. A request that fails in good order gets a reply with a failure in it, never a code.

/// Nothing is wrong: the connection ends because its owner stops.
pub const NONE: u32 = 0;
/// The caller went away. A relay drops the queued or running job of that stream.
pub const CANCELLED: u32 = 1;
/// More streams or bytes than this side takes now. Safe to try elsewhere.
pub const BUSY: u32 = 2;
/// The bytes are not a message, or break a limit. The same bytes will fail again.
pub const MALFORMED: u32 = 3;
/// This side is draining: in-flight work was given its time. Safe to try elsewhere.
pub const GOING_AWAY: u32 = 4;
/// The peer's certificate does not allow this.
pub const UNAUTHORISED: u32 = 5;
/// A fault of this side. Safe to try elsewhere.
pub const INTERNAL: u32 = 6;
/// The peer opened a stream and then sent too slowly, or not at all.
pub const TIMED_OUT: u32 = 7;
