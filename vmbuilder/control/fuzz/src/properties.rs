//! What must hold for any bytes whatever. A violation panics.

use igloo_control::frame::{Decoder, FrameError, Message, PREFACE, encode};
use igloo_control::{GuestMessage, GuestSequence, HostMessage, HostSequence, ReceiveWindow};

/// What a guest may send: frames are decoded alike however they are cut, what is accepted is encoded to a frame that reads
/// the same, and order and window never panic. The first byte says how large the pieces are and how many outputs there are.
pub fn guest_frames(bytes: &[u8]) {
    let Some((messages, head)) = frames::<GuestMessage>(bytes) else {
        return;
    };
    let mut sequence = GuestSequence::new(u32::from(head % 4));
    let mut window = ReceiveWindow::default();
    for (message, size) in &messages {
        let before = sequence.state();
        if sequence.take(message).is_err() {
            assert_eq!(sequence.state(), before, "refused, but taken");
        }
        if window.received(*size).is_ok() {
            let _ = window.consumed(*size);
        }
    }
}

/// What a host may send, likewise.
pub fn host_frames(bytes: &[u8]) {
    let Some((messages, _)) = frames::<HostMessage>(bytes) else {
        return;
    };
    let mut sequence = HostSequence::default();
    for (message, _) in &messages {
        let before = sequence.state();
        if sequence.take(message).is_err() {
            assert_eq!(sequence.state(), before, "refused, but taken");
        }
        if let HostMessage::Prepare(spec) = message {
            let _ = spec.check();
        }
    }
}

type Frames<M> = (Vec<(M, usize)>, u8);

/// The messages in `bytes`, which follow a preface, and the first byte.
fn frames<M: Message + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<Frames<M>> {
    let (&head, bytes) = bytes.split_first()?;
    let (whole, end) = decode::<M>(bytes, bytes.len().max(1));
    let (pieces, other_end) = decode::<M>(bytes, usize::from(head).max(1));
    assert_eq!(
        (&whole, end),
        (&pieces, other_end),
        "how the stream is cut makes a difference"
    );
    for (message, _) in &whole {
        let frame = encode(message).unwrap_or_else(|error| panic!("accepted, but not to be sent: {error}"));
        let (again, end) = decode::<M>(&frame, frame.len());
        assert_eq!(end, None, "encoded, but not to be read");
        assert!(
            matches!(&again[..], [(read, _)] if read == message),
            "encoded, it reads as another"
        );
    }
    Some((whole, head))
}

fn decode<M: Message>(bytes: &[u8], piece_len: usize) -> (Vec<(M, usize)>, Option<FrameError>) {
    let mut decoder = Decoder::<M>::new();
    decoder.push(&PREFACE);
    let mut messages = Vec::new();
    for piece in bytes.chunks(piece_len) {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    let end = decoder.finish().err();
    (messages, end)
}
