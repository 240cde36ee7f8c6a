//! Every decoder against what it must take and what it must refuse.

use proptest::prelude::*;

use super::*;

/// What `nix copy --to 'file://…?compression=br'` makes of the NAR of a directory with a file `a` of `hi\n`: brotli has no
/// encoder here.
const BROTLI: &str = "1b1f01e08ed462cd998f4480b7ce30d8944e50834d903e7fa6c5bce9e4b6fbb72440692ba692d45b1058e0367c7e1186\
    5ae3007cfe4df8ed100013900013add00057bb001950320bb1c860688f29df6a08161f5bd5f8c039029e0e0c5c2501";

fn pack(compression: Compression, data: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    if compression == Compression::Bzip2 {
        let mut encoder = bzip2::Compress::new(bzip2::Compression::fast(), 0);
        packed.reserve(data.len() * 2 + 1000);
        let status = encoder
            .compress_vec(data, &mut packed, bzip2::Action::Finish)
            .unwrap();
        assert_eq!(status, bzip2::Status::StreamEnd);
        return packed;
    }
    let mut encoder = Encoder::new(compression).unwrap();
    for piece in data.chunks(7000) {
        encoder
            .encode(piece, false, |out| {
                packed.extend_from_slice(out);
                Ok(())
            })
            .unwrap();
    }
    encoder
        .encode(&[], true, |out| {
            packed.extend_from_slice(out);
            Ok(())
        })
        .unwrap();
    packed
}

/// Unpacks input given in pieces of `cut` bytes into buffers of `room` bytes.
fn unpack(
    compression: Compression,
    packed: &[u8],
    cut: usize,
    room: usize,
) -> Result<Vec<u8>, DecompressError> {
    let mut decoder = Decoder::new(compression)?;
    let mut all = Vec::new();
    let count = packed.len().div_ceil(cut);
    let pieces = packed
        .chunks(cut)
        .enumerate()
        .map(|(index, piece)| (piece, index + 1 == count));
    let none = packed.is_empty().then_some((&[][..], true));
    for (mut piece, last) in pieces.chain(none) {
        loop {
            let mut out = Vec::with_capacity(room);
            decoder.decode(&mut piece, &mut out, last)?;
            all.extend_from_slice(&out);
            if out.len() < out.capacity() {
                assert!(piece.is_empty(), "all input is read where there is room");
                break;
            }
        }
    }
    Ok(all)
}

const PACKED: [Compression; 3] = [Compression::Xz, Compression::Zstd, Compression::Bzip2];

fn any_compression() -> impl Strategy<Value = Compression> {
    prop_oneof![Just(Compression::None), prop::sample::select(&PACKED[..])]
}

fn any_data() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..3000),
        (any::<u8>(), 0usize..200_000).prop_map(|(byte, size)| vec![byte; size]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// However the stream is cut and however little room there is, what was packed comes out.
    #[test]
    fn unpacks_what_was_packed(
        compression in any_compression(), data in any_data(), cut in 1usize..5000, room in 64usize..100_000,
    ) {
        let packed = pack(compression, &data);
        prop_assert_eq!(unpack(compression, &packed, cut, room).unwrap(), data);
    }

    /// A stream that is cut anywhere is never taken for a whole one.
    #[test]
    fn a_cut_stream_is_refused(
        compression in prop::sample::select(&PACKED[..]), data in any_data(), at: prop::sample::Index,
    ) {
        let packed = pack(compression, &data);
        let cut = &packed[..at.index(packed.len())];
        prop_assert_eq!(unpack(compression, cut, 100, 10_000), Err(DecompressError::Truncated));
    }

    /// Several streams one after the other are one; anything else after the end is refused.
    #[test]
    fn what_follows_the_end_counts(compression in prop::sample::select(&PACKED[..]), a in any_data(), b in any_data()) {
        let mut both = pack(compression, &a);
        let one = both.clone();
        both.extend(pack(compression, &b));
        prop_assert_eq!(unpack(compression, &both, 777, 10_000).unwrap(), [a, b].concat());
        let garbage = [&one[..], b"garbage!"].concat();
        prop_assert!(unpack(compression, &garbage, 777, 10_000).is_err());
    }

    /// No bytes make a decoder panic, or give out more than there is room for at a time.
    #[test]
    fn hostile_bytes_are_answered(
        compression in prop::sample::select(&[Compression::Xz, Compression::Zstd, Compression::Bzip2, Compression::Brotli][..]),
        data in prop::collection::vec(any::<u8>(), 0..2000), at: prop::sample::Index, byte: u8, whole: bool,
    ) {
        let packed = if compression == Compression::Brotli || !whole {
            data
        } else {
            let mut packed = pack(compression, &data);
            let at = at.index(packed.len());
            packed[at] = byte;
            packed
        };
        let _ = unpack(compression, &packed, 100, 4096);
    }
}

#[test]
fn memory_is_bounded() {
    // a frame of zstd with a window of 2^31 bytes
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00];
    assert_eq!(
        unpack(Compression::Zstd, &frame, 100, 1000),
        Err(DecompressError::Memory)
    );
    // a block of xz with a dictionary of 4 GiB
    let mut packed = pack(Compression::Xz, b"data");
    let header = 12..12 + (usize::from(packed[12]) + 1) * 4;
    assert_eq!(packed[14..16], [0x21, 1], "LZMA2 with one byte of properties");
    packed[16] = 40;
    let sum = crc32(&packed[header.start..header.end - 4]);
    packed[header.end - 4..header.end].copy_from_slice(&sum.to_le_bytes());
    assert_eq!(
        unpack(Compression::Xz, &packed, 100, 1000),
        Err(DecompressError::Memory)
    );
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| {
        if crc & 1 == 1 {
            (crc >> 1) ^ 0xedb8_8320
        } else {
            crc >> 1
        }
    };
    !bytes
        .iter()
        .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[test]
fn names_are_those_of_narinfos() {
    for compression in [
        Compression::None,
        Compression::Xz,
        Compression::Zstd,
        Compression::Bzip2,
        Compression::Brotli,
    ] {
        assert_eq!(compression.name().parse(), Ok(compression));
    }
    let error = "lzip".parse::<Compression>().unwrap_err();
    assert_eq!(error.name, "lzip");
}

fn brotli() -> Vec<u8> {
    let digits: Vec<u8> = BROTLI
        .bytes()
        .map(|digit| char::from(digit).to_digit(16).unwrap().try_into().unwrap())
        .collect();
    digits.chunks(2).map(|pair| pair[0] * 16 + pair[1]).collect()
}

#[test]
fn brotli_is_read_and_checked() {
    let packed = brotli();
    for (cut, room) in [(1, 64), (7, 100), (1000, 64), (1000, 100_000)] {
        let nar = unpack(Compression::Brotli, &packed, cut, room).unwrap();
        assert_eq!(nar.len(), 288);
        assert!(nar.windows(3).any(|bytes| bytes == b"hi\n"));
    }
    for at in 0..packed.len() {
        let cut = unpack(Compression::Brotli, &packed[..at], 100, 1000);
        assert_eq!(cut, Err(DecompressError::Truncated), "{at}");
    }
    let garbage = [&packed[..], b"x"].concat();
    for cut in [packed.len(), 1000] {
        let refused = unpack(Compression::Brotli, &garbage, cut, 1000);
        assert!(
            matches!(refused, Err(DecompressError::Corrupt { .. })),
            "{refused:?}"
        );
    }
    // a window of 2^30 bytes needs another format, which nothing here asks for
    let large = [0x11, 0x1e, 0, 0, 0, 0];
    assert!(unpack(Compression::Brotli, &large, 100, 1000).is_err());
}
