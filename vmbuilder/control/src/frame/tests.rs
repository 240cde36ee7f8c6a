use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::message::{
    ExitStatus, Exited, FailureClass, FileOwner, Hello, NAME_SIZE_MAX, OutputReason, Resource, Stage, Usage,
};
use crate::spec::{BuildSpec, GuestLimits, Network, Personality};

fn bytes(size_max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..=size_max).prop_map(Bytes::from)
}

fn data() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        vec(any::<u8>(), 1..100),
        (1..=DATA_SIZE_MAX, any::<u8>()).prop_map(|(size, byte)| vec![byte; size])
    ]
    .prop_map(Bytes::from)
}

fn reason() -> impl Strategy<Value = OutputReason> {
    prop_oneof![
        Just(OutputReason::Missing),
        Just(OutputReason::Fifo),
        any::<u16>().prop_map(|mode| OutputReason::Writable { mode }),
        any::<u32>().prop_map(|uid| OutputReason::NotOwned { uid }),
        any::<i32>().prop_map(|errno| OutputReason::Io { errno }),
    ]
}

fn exited() -> impl Strategy<Value = Exited> {
    let status = prop_oneof![
        any::<u8>().prop_map(ExitStatus::Code),
        any::<u8>().prop_map(ExitStatus::Signal)
    ];
    let exhausted = option::of(prop_oneof![Just(Resource::Memory), Just(Resource::Disk)]);
    (status, exhausted, any::<[u64; 4]>()).prop_map(|(status, exhausted, numbers)| Exited {
        status,
        exhausted,
        usage: Usage {
            user_us: numbers[0],
            system_us: numbers[1],
            memory_peak_bytes: numbers[2],
            scratch_bytes: numbers[3],
        },
    })
}

fn guest_message() -> impl Strategy<Value = GuestMessage> {
    let hello = ("[ -~]{0,40}", any::<[u64; 2]>(), any::<u32>()).prop_map(|(text, numbers, cpus)| {
        GuestMessage::Hello(Hello {
            agent_version: text.clone(),
            kernel_release: text.clone(),
            architecture: text,
            memory_bytes: numbers[0],
            cpus,
            uptime_us: numbers[1],
        })
    });
    let failed = ("\\PC{0,80}").prop_map(|message| GuestMessage::Failed {
        stage: Stage::Prepare,
        class: FailureClass::DiskFull,
        message,
    });
    prop_oneof![
        hello,
        failed,
        Just(GuestMessage::Mounted),
        Just(GuestMessage::Started),
        data().prop_map(GuestMessage::Log),
        data().prop_map(GuestMessage::FileData),
        exited().prop_map(GuestMessage::Exited),
        any::<u32>().prop_map(|index| GuestMessage::OutputBegin { index }),
        bytes(NAME_SIZE_MAX).prop_map(|name| GuestMessage::DirectoryBegin { name }),
        Just(GuestMessage::DirectoryEnd),
        (bytes(NAME_SIZE_MAX), any::<bool>(), any::<u64>()).prop_map(|(name, executable, size)| {
            GuestMessage::FileBegin {
                name,
                executable,
                size,
            }
        }),
        (bytes(NAME_SIZE_MAX), bytes(4095)).prop_map(|(name, target)| GuestMessage::Symlink { name, target }),
        Just(GuestMessage::OutputEnd),
        (any::<u32>(), bytes(4095), reason()).prop_map(|(index, path, reason)| GuestMessage::OutputError {
            index,
            path,
            reason
        }),
        Just(GuestMessage::Collected),
    ]
}

fn spec() -> impl Strategy<Value = BuildSpec> {
    let list = || vec(bytes(20), 0..5);
    let limits =
        (option::of(any::<u32>()), any::<[Option<u64>; 4]>()).prop_map(|(processes, bytes)| GuestLimits {
            processes,
            scratch_bytes: bytes[0],
            scratch_files: bytes[1],
            shm_bytes: bytes[2],
            output_bytes: bytes[3],
        });
    (
        list(),
        vec((bytes(9), bytes(9)), 0..5),
        list(),
        any::<[u32; 2]>(),
        any::<[bool; 3]>(),
        limits,
    )
        .prop_map(|(arguments, environment, paths, ids, flags, limits)| BuildSpec {
            program: Bytes::from_static(b"/nix/store/x"),
            arguments,
            environment,
            working_dir: Bytes::from_static(b"build"),
            inputs_dir: Bytes::from_static(b"nix/store"),
            scratch_paths: paths.clone(),
            outputs: paths,
            uid: ids[0],
            gid: ids[1],
            hostname: Bytes::from_static(b"localhost"),
            domainname: Bytes::from_static(b"(none)"),
            personality: if flags[0] {
                Personality::Linux32
            } else {
                Personality::Native
            },
            network: flags[1].then_some(Network {
                address: [10, 0, 2, 15],
                prefix_bits: 24,
                gateway: [10, 0, 2, 2],
            }),
            kvm: flags[2],
            limits,
        })
}

fn host_message() -> impl Strategy<Value = HostMessage> {
    prop_oneof![
        spec().prop_map(|spec| HostMessage::Prepare(Box::new(spec))),
        (bytes(50), 0..=0o7777u16, any::<u64>()).prop_map(|(path, mode, size)| HostMessage::File {
            path,
            owner: FileOwner::Build,
            mode,
            size
        }),
        data().prop_map(HostMessage::FileData),
        Just(HostMessage::Run),
        Just(HostMessage::Kill),
        Just(HostMessage::Collect),
        any::<u64>().prop_map(|bytes| HostMessage::Ack { bytes }),
        Just(HostMessage::PowerOff),
    ]
}

/// Feeds a stream in pieces and takes every message.
fn decode<M: Message>(stream: &[u8], piece: usize) -> (Vec<M>, Result<(), FrameError>) {
    let mut decoder = Decoder::new();
    let mut messages = Vec::new();
    for part in stream.chunks(piece) {
        decoder.push(part);
        loop {
            match decoder.next_frame() {
                Ok(Some((message, _))) => messages.push(message),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.next_frame().err(), Some(error.clone()), "an error stays");
                    return (messages, Err(error));
                }
            }
        }
    }
    (messages, decoder.finish())
}

fn stream_of<M: Message>(messages: &[M]) -> Vec<u8> {
    let mut stream = PREFACE.to_vec();
    for message in messages {
        stream.extend(encode(message).unwrap());
    }
    stream
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// What a guest sends is what the host reads, however the bytes are cut.
    #[test]
    fn guest_messages_round_trip(messages in vec(guest_message(), 0..8), piece in 1usize..5000) {
        let (decoded, end) = decode::<GuestMessage>(&stream_of(&messages), piece);
        prop_assert_eq!(end, Ok(()));
        prop_assert_eq!(decoded, messages);
    }

    /// And the other way.
    #[test]
    fn host_messages_round_trip(messages in vec(host_message(), 0..8), piece in 1usize..5000) {
        let (decoded, end) = decode::<HostMessage>(&stream_of(&messages), piece);
        prop_assert_eq!(end, Ok(()));
        prop_assert_eq!(decoded, messages);
    }

    /// Any bytes after the preface give messages within bounds, or an error; never a panic.
    #[test]
    fn any_bytes(noise in vec(any::<u8>(), 0..400), piece in 1usize..50) {
        let stream = [&PREFACE[..], &noise].concat();
        let (messages, _) = decode::<GuestMessage>(&stream, piece);
        prop_assert!(messages.iter().all(|message| message.check().is_ok()));
        let _ = decode::<HostMessage>(&stream, piece);
        let _ = decode::<GuestMessage>(&noise, piece);
    }

    /// As above, with whole frames of noise, which get past the length.
    #[test]
    fn any_frames(bodies in vec(vec(any::<u8>(), 0..60), 0..6)) {
        let mut stream = PREFACE.to_vec();
        for body in bodies {
            stream.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
            stream.extend(body);
        }
        let _ = decode::<GuestMessage>(&stream, 64);
        let _ = decode::<HostMessage>(&stream, 64);
    }

    /// One changed byte gives an error or other messages, never a panic.
    #[test]
    fn one_byte_changed(messages in vec(guest_message(), 1..4), at: prop::sample::Index, byte: u8) {
        let mut stream = stream_of(&messages);
        let at = at.index(stream.len());
        stream[at] = byte;
        let _ = decode::<GuestMessage>(&stream, 4096);
    }

    /// A stream cut anywhere but between frames is known to be cut.
    #[test]
    fn cut_streams(messages in vec(guest_message(), 1..3), at: prop::sample::Index) {
        let stream = stream_of(&messages);
        let at = at.index(stream.len());
        let (decoded, end) = decode::<GuestMessage>(&stream[..at], 4096);
        let whole = at == 0 || at == PREFACE.len() || stream_of(&decoded).len() == at;
        prop_assert_eq!(end.is_ok(), whole);
    }
}

/// A length no frame may have is refused before anything of it is stored.
#[test]
fn long_frames_are_refused() {
    let mut decoder = Decoder::<GuestMessage>::new();
    decoder.push(&PREFACE);
    decoder.push(&u32::MAX.to_le_bytes());
    assert!(matches!(decoder.next_frame(), Err(FrameError::TooLarge { .. })));
}

/// A peer of another release, or none of ours, is named as such.
#[test]
fn other_peers() {
    let mut decoder = Decoder::<GuestMessage>::new();
    decoder.push(b"SeaBIOS");
    assert_eq!(decoder.next_frame(), Err(FrameError::Magic));
    let mut decoder = Decoder::<GuestMessage>::new();
    decoder.push(b"iglooctl\x09\0\0\0");
    assert_eq!(decoder.next_frame(), Err(FrameError::Version { version: 9 }));
}

/// A message the peer would refuse is not sent.
#[test]
fn oversized_messages_are_not_encoded() {
    let name = Bytes::from(vec![b'n'; 256]);
    assert!(encode(&GuestMessage::DirectoryBegin { name }).is_err());
    assert!(encode(&GuestMessage::Log(Bytes::new())).is_err());
    assert!(encode(&GuestMessage::Log(vec![0; DATA_SIZE_MAX + 1].into())).is_err());
    let frame = encode(&GuestMessage::Log(vec![0; DATA_SIZE_MAX].into())).unwrap();
    assert!(frame.len() <= GUEST_FRAME_SIZE_MAX);
}
