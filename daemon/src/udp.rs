//! The buffers of a UDP socket that carries QUIC.

use std::io;

use socket2::Socket;

/// Bytes that the socket is asked to buffer each way.
const BUFFER_BYTES: usize = 8 << 20;

/// Asks the system for the buffers that QUIC wants, and warns when it gives less.
///
/// Fails only when the system does not say what it gave.
pub fn widen_buffers(socket: &Socket) -> io::Result<()> {
    // A clamped buffer costs packets under load, not correctness.
    let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(BUFFER_BYTES);
    let receive = socket.recv_buffer_size()?;
    let send = socket.send_buffer_size()?;
    if receive < BUFFER_BYTES || send < BUFFER_BYTES {
        tracing::warn!(
            wanted = BUFFER_BYTES,
            receive,
            send,
            "the system clamps UDP buffers; raise net.core.rmem_max and net.core.wmem_max"
        );
    }
    Ok(())
}
