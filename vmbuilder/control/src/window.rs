//! Flow control from guest to host: how much may be on the way unacknowledged.
//!
//! Invariants
//! - both sides count whole frames, length prefixes included, the preface not;
//! - the host acknowledges before the guest can run dry: [`ACK_BYTES`] plus the longest frame fits the window.

use crate::frame::GUEST_FRAME_SIZE_MAX;

/// Most bytes sent and not acknowledged.
pub const WINDOW_BYTES: u64 = 4 << 20;
/// Bytes consumed after which the host acknowledges.
pub const ACK_BYTES: u64 = 1 << 20;

const _: () = assert!(ACK_BYTES + GUEST_FRAME_SIZE_MAX as u64 + 4 <= WINDOW_BYTES);

/// The guest's side: what may still be sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct SendWindow {
    sent_bytes: u64,
    acknowledged_bytes: u64,
}

impl SendWindow {
    /// Whether a frame of that size fits now.
    pub fn has_room(&self, frame_size: usize) -> bool {
        self.in_flight_bytes() + frame_size as u64 <= WINDOW_BYTES
    }

    /// Counts a frame sent.
    pub fn sent(&mut self, frame_size: usize) {
        self.sent_bytes = self.sent_bytes.saturating_add(frame_size as u64);
    }

    /// Takes an acknowledgement.
    ///
    /// # Errors
    /// When it goes back or acknowledges what was not sent.
    pub fn acknowledged(&mut self, bytes: u64) -> Result<(), AckError> {
        if bytes < self.acknowledged_bytes || bytes > self.sent_bytes {
            return Err(AckError {
                bytes,
                sent_bytes: self.sent_bytes,
            });
        }
        self.acknowledged_bytes = bytes;
        Ok(())
    }

    /// Bytes sent and not acknowledged.
    pub fn in_flight_bytes(&self) -> u64 {
        self.sent_bytes - self.acknowledged_bytes
    }
}

/// The host's side: when to acknowledge.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReceiveWindow {
    received_bytes: u64,
    consumed_bytes: u64,
    acknowledged_bytes: u64,
}

impl ReceiveWindow {
    /// Counts a frame taken from the stream.
    ///
    /// # Errors
    /// When the guest has sent more than its window: it is not our agent.
    pub fn received(&mut self, frame_size: usize) -> Result<(), OverrunError> {
        self.received_bytes = self.received_bytes.saturating_add(frame_size as u64);
        let in_flight = self.received_bytes - self.acknowledged_bytes;
        if in_flight > WINDOW_BYTES {
            Err(OverrunError { in_flight })
        } else {
            Ok(())
        }
    }

    /// Counts a frame as done with. Gives the total to send in `Ack` when it is time to.
    #[must_use = "the guest stops without acknowledgements"]
    pub fn consumed(&mut self, frame_size: usize) -> Option<u64> {
        self.consumed_bytes = self
            .consumed_bytes
            .saturating_add(frame_size as u64)
            .min(self.received_bytes);
        if self.consumed_bytes - self.acknowledged_bytes < ACK_BYTES {
            return None;
        }
        self.acknowledged_bytes = self.consumed_bytes;
        Some(self.consumed_bytes)
    }
}

/// An acknowledgement that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the host acknowledged {bytes} bytes, {sent_bytes} were sent")]
pub struct AckError {
    bytes: u64,
    sent_bytes: u64,
}

/// A guest that does not keep to its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the guest has {in_flight} bytes unacknowledged, more than its window of {WINDOW_BYTES}")]
pub struct OverrunError {
    in_flight: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A sender that keeps to its window never stalls for ever and never overruns, whatever the frame sizes.
        #[test]
        fn sender_and_receiver_agree(sizes in prop::collection::vec(1..=GUEST_FRAME_SIZE_MAX + 4, 1..200)) {
            let (mut send, mut receive) = (SendWindow::default(), ReceiveWindow::default());
            let mut on_the_way = std::collections::VecDeque::new();
            for size in sizes {
                while !send.has_room(size) {
                    let front = on_the_way.pop_front().expect("a full window holds frames");
                    if let Some(bytes) = receive.consumed(front) {
                        send.acknowledged(bytes).unwrap();
                    }
                }
                send.sent(size);
                receive.received(size).unwrap();
                on_the_way.push_back(size);
                prop_assert!(send.in_flight_bytes() <= WINDOW_BYTES);
            }
        }
    }

    /// A guest that ignores its window is found out.
    #[test]
    fn overrun_is_an_error() {
        let mut receive = ReceiveWindow::default();
        let frame = 1 << 20;
        for _ in 0..4 {
            receive.received(frame).unwrap();
        }
        assert!(receive.received(1).is_err());
    }

    /// Acknowledgements only go forward, and never past what was sent.
    #[test]
    fn impossible_acknowledgements() {
        let mut send = SendWindow::default();
        send.sent(10);
        assert!(send.acknowledged(11).is_err());
        send.acknowledged(8).unwrap();
        assert!(send.acknowledged(7).is_err());
    }
}
