//! What must hold for any bytes whatever. A violation panics.

use nix_compat::nar::{NarEvent, NarParser, NarReader, NarWriter, ParseNarError, ReadNarError};
use nix_compat::{Derivation, NarInfo, NixHash, StoreDir, StorePath, StorePathName};

/// An archive parses alike whole, in pieces and through a reader; one that is accepted is what the writer writes. The
/// first byte says how large the pieces are.
pub fn nar(bytes: &[u8]) {
    let Some((&piece_len, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = copy(bytes, bytes.len().max(1));
    let pieces = copy(bytes, usize::from(piece_len).max(1));
    assert_eq!(whole, pieces, "how the input is cut makes a difference");
    match (&whole, read(bytes)) {
        (Ok(copy), Ok(())) => assert_eq!(copy, bytes, "accepted, but written otherwise"),
        (Err(error), Err(ReadNarError::Parse(other))) => assert_eq!(*error, other),
        (whole, read) => panic!("parser {whole:?}, reader {read:?}"),
    }
}

fn copy(bytes: &[u8], piece_len: usize) -> Result<Vec<u8>, ParseNarError> {
    let mut parser = NarParser::new();
    let mut writer = NarWriter::new(Vec::new());
    for piece in bytes.chunks(piece_len) {
        parser.feed::<ParseNarError>(piece, |event| {
            let written = match event {
                NarEvent::Directory { name } => writer.directory(name),
                NarEvent::DirectoryEnd => writer.end_directory(),
                NarEvent::File {
                    name,
                    size,
                    executable,
                } => writer.file(name, size, executable),
                NarEvent::Data(data) => writer.data(data),
                NarEvent::FileEnd => Ok(()),
                NarEvent::Symlink { name, target } => writer.symlink(name, target),
            };
            written.unwrap_or_else(|error| panic!("parsed, but not to be written: {error}"));
            Ok(())
        })?;
    }
    parser.finish()?;
    Ok(writer
        .finish()
        .unwrap_or_else(|error| panic!("parsed, but not to be written: {error}")))
}

fn read(bytes: &[u8]) -> Result<(), ReadNarError> {
    let mut reader = NarReader::new(bytes);
    while reader.next()?.is_some() {}
    Ok(())
}

/// A derivation that is accepted prints as it was.
pub fn aterm(bytes: &[u8]) {
    let dir = StoreDir::default();
    let name = StorePathName::new("name").unwrap_or_else(|error| panic!("{error}"));
    match Derivation::parse(&dir, &name, bytes) {
        Ok(derivation) => {
            let printed = derivation
                .to_aterm(&dir)
                .unwrap_or_else(|error| panic!("parsed, but no text: {error}"));
            assert_eq!(printed, bytes, "accepted, but printed otherwise");
            let _ = derivation.kind();
        }
        Err(error) => assert!(error.offset <= bytes.len()),
    }
}

/// A narinfo that is accepted prints to one that reads the same. So do the texts of hashes and store paths.
pub fn narinfo(bytes: &[u8]) {
    let dir = StoreDir::default();
    if let Ok(path) = StorePath::parse_bytes(bytes) {
        assert_eq!(path.to_string().as_bytes(), bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(info) = NarInfo::parse(&dir, text) {
        assert_eq!(
            NarInfo::parse(&dir, &info.print(&dir)),
            Ok(info),
            "printed, it reads as another"
        );
    }
    if let Ok(hash) = NixHash::parse_any(text, None) {
        assert_eq!(NixHash::parse_any(&hash.to_string(), None), Ok(hash));
    }
}
