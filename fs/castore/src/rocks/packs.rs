//! Chunk bytes in append-only pack files; the database keeps only where each chunk lies.
//!
//! A database's log and tables would copy every byte several times; an append copies it once.
//!
//! On disk
//! - `packs/<id>.pack`: [`MAGIC`], then entries: digest, payload size (u32, little endian), encoding (u8, 0 is plain), three
//!   zero bytes, payload. The index can be made anew from the entries alone.
//! - table `chunks`: digest to pack id (u32), payload offset (u64), payload size (u32), encoding (u8), all little endian;
//! - table `packs`: pack id (u32, big endian) to the bytes of the pack that are durable (u64, little endian).
//!
//! Invariants
//! - the index names durable bytes only: until [`Packs::sync`] has synced the files, a chunk's place is kept in memory;
//! - bytes past a pack's durable size are an interrupted put; the next writer cuts them off;
//! - a file's bytes below its size never change, so readers take no lock.
//!
//! Lock order: `appender`, then `pending`.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use quick_cache::sync::Cache;

use crate::digest::{ChunkDigest, DIGEST_SIZE};

/// Starts every pack.
const MAGIC: &[u8; 16] = b"igloo pack, v1\n\0";
/// Digest, size, encoding, padding.
const ENTRY_HEADER_SIZE: usize = DIGEST_SIZE + 8;
/// Bytes of a place in the index.
const PLACE_SIZE: usize = 17;
const PLAIN: u8 = 0;
/// A pack that has reached this size gets no more entries, bytes.
const PACK_SIZE: u64 = 64 << 20;
/// Packs kept open for reading.
const OPEN_PACKS: usize = 128;
/// With this many places in memory, about 10 MiB, a put syncs by itself.
pub(super) const PENDING_MAX: usize = 100_000;

/// Where a chunk's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pack: u32,
    offset: u64,
    size: u32,
}

impl Place {
    pub(super) fn encode(self) -> [u8; PLACE_SIZE] {
        let mut bytes = [0; PLACE_SIZE];
        bytes[..4].copy_from_slice(&self.pack.to_le_bytes());
        bytes[4..12].copy_from_slice(&self.offset.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.size.to_le_bytes());
        bytes[16] = PLAIN;
        bytes
    }

    /// `None` for what `encode` does not write.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; PLACE_SIZE] = bytes.try_into().ok()?;
        let (pack, rest) = bytes.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let (size, encoding) = rest.split_first_chunk()?;
        (encoding == [PLAIN]).then_some(Self {
            pack: u32::from_le_bytes(*pack),
            offset: u64::from_le_bytes(*offset),
            size: u32::from_le_bytes(*size),
        })
    }
}

/// The pack files of a store.
pub(super) struct Packs {
    dir: PathBuf,
    appender: Mutex<Appender>,
    /// Places that are not in the index yet.
    pending: RwLock<HashMap<ChunkDigest, Place>>,
    readers: Cache<u32, Arc<File>>,
}

#[derive(Default)]
struct Appender {
    current: Option<Open>,
    next_id: u32,
    /// Packs with bytes that are not durable, the current one left out.
    unsynced: Vec<Open>,
    /// Whether files were made since the directory was synced.
    made_files: bool,
}

#[derive(Clone)]
struct Open {
    id: u32,
    file: Arc<File>,
    size: u64,
}

/// What a sync has made durable: goes into the index, in one batch.
pub(super) struct Synced {
    /// Where chunks are.
    pub(super) places: Vec<(ChunkDigest, Place)>,
    /// Durable sizes of packs.
    pub(super) sizes: Vec<(u32, u64)>,
}

impl Packs {
    /// The packs in `dir`, for reading.
    pub(super) fn for_reading(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            appender: Mutex::default(),
            pending: RwLock::default(),
            readers: Cache::new(OPEN_PACKS),
        }
    }

    /// The packs in `dir`, for writing; `last` is the last pack in the index with its durable size.
    ///
    /// Cuts off and removes what an interrupted put left.
    pub(super) fn for_writing(dir: &Path, last: Option<(u32, u64)>) -> io::Result<Self> {
        let packs = Self::for_reading(dir);
        let next_id = last.map_or(0, |(id, _)| id.saturating_add(1));
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let id = name
                .to_str()
                .and_then(|name| u32::from_str_radix(name.strip_suffix(".pack")?, 16).ok());
            if id.is_some_and(|id| id >= next_id) {
                fs::remove_file(entry.path())?;
            }
        }
        let current = match last {
            Some((id, size)) if size < PACK_SIZE => reopen(&packs.path(id), size)?.map(|file| Open {
                id,
                file: Arc::new(file),
                size,
            }),
            _ => None,
        };
        *packs.appender() = Appender {
            current,
            next_id,
            ..Appender::default()
        };
        Ok(packs)
    }

    /// Where a chunk lies that is not in the index yet.
    pub(super) fn pending(&self, digest: &ChunkDigest) -> Option<Place> {
        self.pending
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(digest)
            .copied()
    }

    pub(super) fn pending_count(&self) -> usize {
        self.pending.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// A chunk's bytes, unchecked; `None` when its file does not hold them.
    pub(super) fn read(&self, place: Place) -> io::Result<Option<Vec<u8>>> {
        let open = || match File::open(self.path(place.pack)) {
            Ok(file) => Ok(Arc::new(file)),
            Err(error) => Err(error),
        };
        let gone = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => Ok(None),
            _ => Err(error),
        };
        let file = match self.readers.get_or_insert_with(&place.pack, open) {
            Ok(file) => file,
            Err(error) => return gone(error),
        };
        let mut bytes = vec![0; usize::try_from(place.size).unwrap_or(0)];
        match file.read_exact_at(&mut bytes, place.offset) {
            Ok(()) => Ok(Some(bytes)),
            Err(error) => gone(error),
        }
    }

    /// Appends chunks; they can be read at once and are durable after the next sync.
    pub(super) fn append(&self, chunks: &[(ChunkDigest, Bytes)]) -> io::Result<()> {
        let mut appender = self.appender();
        let mut open = match appender.current.take() {
            Some(open) if open.size < PACK_SIZE => open,
            full => {
                appender.unsynced.extend(full);
                self.make(&mut appender)?
            }
        };
        let result = write_entries(&open.file, chunks);
        if let Err(error) = result {
            // whole again, or out of use: then the next writer cuts the rest off
            match open.file.set_len(open.size) {
                Ok(()) => appender.current = Some(open),
                Err(_) => appender.unsynced.push(open),
            }
            return Err(error);
        }
        let mut pending = self.pending.write().unwrap_or_else(PoisonError::into_inner);
        for (digest, bytes) in chunks {
            let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX); // `write_entries` has checked it
            let place = Place {
                pack: open.id,
                offset: open.size + ENTRY_HEADER_SIZE as u64,
                size,
            };
            open.size = place.offset + u64::from(size);
            pending.insert(*digest, place);
        }
        appender.current = Some(open);
        Ok(())
    }

    /// Makes all that was appended durable, and says what the index is to be told. Only one call at a time.
    pub(super) fn sync(&self) -> io::Result<Synced> {
        let (open, made_files, places) = {
            let mut appender = self.appender();
            let mut open = std::mem::take(&mut appender.unsynced);
            open.extend(appender.current.clone());
            let made_files = std::mem::take(&mut appender.made_files);
            let pending = self.pending.read().unwrap_or_else(PoisonError::into_inner);
            let places: Vec<_> = pending.iter().map(|(digest, place)| (*digest, *place)).collect();
            (open, made_files, places)
        };
        let sync_all = || {
            if places.is_empty() {
                return Ok(());
            }
            for open in &open {
                open.file.sync_data()?;
            }
            if made_files {
                File::open(&self.dir)?.sync_all()?;
            }
            Ok(())
        };
        if let Err(error) = sync_all() {
            let mut appender = self.appender();
            let current = appender.current.as_ref().map(|open| open.id);
            appender
                .unsynced
                .extend(open.into_iter().filter(|open| Some(open.id) != current));
            appender.made_files |= made_files;
            return Err(error);
        }
        let sizes = open.into_iter().map(|open| (open.id, open.size)).collect();
        Ok(Synced { places, sizes })
    }

    /// The index has been told.
    pub(super) fn indexed(&self, synced: &Synced) {
        let mut pending = self.pending.write().unwrap_or_else(PoisonError::into_inner);
        for (digest, place) in &synced.places {
            if pending.get(digest) == Some(place) {
                pending.remove(digest);
            }
        }
    }

    fn make(&self, appender: &mut Appender) -> io::Result<Open> {
        let id = appender.next_id;
        let path = self.path(id);
        let mut file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        appender.next_id = id.checked_add(1).ok_or(io::ErrorKind::StorageFull)?;
        appender.made_files = true;
        file.write_all(MAGIC)?;
        Ok(Open {
            id,
            file: Arc::new(file),
            size: MAGIC.len() as u64,
        })
    }

    fn path(&self, id: u32) -> PathBuf {
        self.dir.join(format!("{id:08x}.pack"))
    }

    fn appender(&self) -> MutexGuard<'_, Appender> {
        // a panic while it was held leaves `current` empty: the next put takes a new pack
        self.appender.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last pack, cut to its durable size; `None` when it is not that long.
fn reopen(path: &Path, size: u64) -> io::Result<Option<File>> {
    let file = match OpenOptions::new().append(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() < size {
        return Ok(None);
    }
    file.set_len(size)?;
    Ok(Some(file))
}

fn write_entries(mut file: &File, chunks: &[(ChunkDigest, Bytes)]) -> io::Result<()> {
    let mut headers = Vec::with_capacity(chunks.len());
    for (digest, bytes) in chunks {
        let size = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut header = [0; ENTRY_HEADER_SIZE];
        header[..DIGEST_SIZE].copy_from_slice(digest.as_bytes());
        header[DIGEST_SIZE..DIGEST_SIZE + 4].copy_from_slice(&size.to_le_bytes());
        header[DIGEST_SIZE + 4] = PLAIN;
        headers.push(header);
    }
    let mut slices = Vec::with_capacity(chunks.len() * 2);
    for (header, (_, bytes)) in headers.iter().zip(chunks) {
        slices.push(IoSlice::new(header));
        slices.push(IoSlice::new(bytes));
    }
    let mut rest = slices.as_mut_slice();
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut rest, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(text: &'static str) -> (ChunkDigest, Bytes) {
        (
            ChunkDigest::of(text.as_bytes()),
            Bytes::from_static(text.as_bytes()),
        )
    }

    #[test]
    fn places_round_trip() {
        let place = Place {
            pack: 1,
            offset: u64::MAX,
            size: 7,
        };
        assert_eq!(Place::decode(&place.encode()), Some(place));
        assert_eq!(Place::decode(&[0; 16]), None);
        let mut unknown = place.encode();
        unknown[16] = 9;
        assert_eq!(Place::decode(&unknown), None);
    }

    /// What was not synced is cut off, what was is kept and appended to, and an index can be made from the entries.
    #[test]
    fn an_interrupted_put_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let packs = Packs::for_writing(dir.path(), None).unwrap();
        packs.append(&[chunk("one"), chunk("two")]).unwrap();
        let synced = packs.sync().unwrap();
        packs.indexed(&synced);
        assert_eq!(packs.pending_count(), 0);
        packs.append(&[chunk("lost")]).unwrap();
        drop(packs);
        fs::write(dir.path().join("00000001.pack"), "never synced").unwrap();

        let last = synced.sizes.iter().copied().max();
        let packs = Packs::for_writing(dir.path(), last).unwrap();
        assert!(!dir.path().join("00000001.pack").exists());
        packs.append(&[chunk("three")]).unwrap();
        let place = packs.pending(&chunk("three").0).unwrap();
        assert_eq!(packs.read(place).unwrap().unwrap(), b"three");
        let (_, one) = *synced
            .places
            .iter()
            .find(|(digest, _)| *digest == chunk("one").0)
            .unwrap();
        assert_eq!(packs.read(one).unwrap().unwrap(), b"one");

        let bytes = fs::read(dir.path().join("00000000.pack")).unwrap();
        let mut rest = bytes.strip_prefix(MAGIC).unwrap();
        for text in ["one", "two", "three"] {
            let (header, payload) = rest.split_at(ENTRY_HEADER_SIZE);
            assert_eq!(header[..DIGEST_SIZE], *chunk(text).0.as_bytes());
            assert_eq!(payload[..text.len()], *text.as_bytes());
            rest = &payload[text.len()..];
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn lost_files_and_bytes_are_told_apart_from_failures() {
        let dir = tempfile::tempdir().unwrap();
        let packs = Packs::for_reading(dir.path());
        let place = Place {
            pack: 3,
            offset: 0,
            size: 5,
        };
        assert_eq!(packs.read(place).unwrap(), None);
        fs::write(dir.path().join("00000003.pack"), "four").unwrap();
        assert_eq!(packs.read(place).unwrap(), None);
    }
}
