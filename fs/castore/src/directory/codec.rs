//! The canonical encoding of a directory: protobuf's wire format, written by hand so that there is exactly one
//! encoding of each directory and no way to accept another.
//!
//! Source: `snix.castore.v1` (field numbers 1 directories, 2 files, 3 symlinks; DirectoryEntry 1 name, 2 digest, 3 size;
//! FileEntry the same and 4 executable; SymlinkEntry 1 name, 2 target) and protobuf.dev/programming-guides/encoding.
//!
//! Invariants
//! - fields in the order of their numbers, proto3 defaults left out, minimal varints, no unknown fields;
//! - `decode(b)` is `Ok(d)` only if `encode(d) == b`.

use bytes::Bytes;
use igloo_status::Code;

use super::{Directory, MakeDirectoryError};
use crate::digest::{Digest, ParseDigestError};
use crate::node::{Node, NodeName, ParseNameError, ParseTargetError, SymlinkTarget};

const FIELD_DIRECTORIES: u64 = 1;
const FIELD_FILES: u64 = 2;
const FIELD_SYMLINKS: u64 = 3;
const FIELD_NAME: u64 = 1;
const FIELD_DIGEST: u64 = 2;
const FIELD_TARGET: u64 = 2;
const FIELD_SIZE: u64 = 3;
const FIELD_EXECUTABLE: u64 = 4;

const WIRE_VARINT: u64 = 0;
const WIRE_BYTES: u64 = 2;

pub(super) fn encode(directory: &Directory) -> Vec<u8> {
    let mut out = Vec::with_capacity(directory.len() * 64);
    let mut entry = Vec::with_capacity(320);
    for list in [FIELD_DIRECTORIES, FIELD_FILES, FIELD_SYMLINKS] {
        for (name, node) in directory.entries() {
            if list_of(node) == list {
                entry.clear();
                encode_entry(&mut entry, name, node);
                put_bytes(&mut out, list, &entry);
            }
        }
    }
    out
}

fn list_of(node: &Node) -> u64 {
    match node {
        Node::Directory { .. } => FIELD_DIRECTORIES,
        Node::File { .. } => FIELD_FILES,
        Node::Symlink { .. } => FIELD_SYMLINKS,
    }
}

fn encode_entry(out: &mut Vec<u8>, name: &NodeName, node: &Node) {
    put_bytes(out, FIELD_NAME, name.as_bytes());
    match node {
        Node::Directory { digest, size } => {
            put_bytes(out, FIELD_DIGEST, digest.as_bytes());
            put_nonzero(out, FIELD_SIZE, *size);
        }
        Node::File {
            digest,
            size,
            executable,
        } => {
            put_bytes(out, FIELD_DIGEST, digest.as_bytes());
            put_nonzero(out, FIELD_SIZE, *size);
            put_nonzero(out, FIELD_EXECUTABLE, u64::from(*executable));
        }
        Node::Symlink { target } => put_bytes(out, FIELD_TARGET, target.as_bytes()),
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | WIRE_BYTES);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_nonzero(out: &mut Vec<u8>, field: u64, value: u64) {
    if value != 0 {
        put_varint(out, field << 3 | WIRE_VARINT);
        put_varint(out, value);
    }
}

pub(super) fn decode(bytes: &Bytes) -> Result<Directory, DecodeDirectoryError> {
    let mut reader = Reader { bytes, offset: 0 };
    let mut entries = Vec::new();
    let mut last: Option<(u64, NodeName)> = None;
    while let Some((field, value)) = reader.next_field()? {
        let Value::Bytes(entry) = value else {
            return Err(DecodeDirectoryError::Field {
                offset: reader.offset,
                field,
            });
        };
        let (name, node) = decode_entry(field, &entry, reader.offset)?;
        if let Some((last_field, last_name)) = &last
            && (*last_field, last_name) >= (field, &name)
        {
            return Err(DecodeDirectoryError::Order { name });
        }
        last = Some((field, name.clone()));
        entries.push((name, node));
    }
    Ok(Directory::from_entries(entries)?)
}

fn decode_entry(field: u64, bytes: &Bytes, base: usize) -> Result<(NodeName, Node), DecodeDirectoryError> {
    let mut entry = EntryFields {
        reader: Reader { bytes, offset: 0 },
        base,
        peeked: None,
    };
    let name = NodeName::try_from(entry.bytes(FIELD_NAME)?)?;
    let node = match field {
        FIELD_DIRECTORIES => Node::Directory {
            digest: digest(&entry.bytes(FIELD_DIGEST)?)?,
            size: entry.varint(FIELD_SIZE)?,
        },
        FIELD_FILES => Node::File {
            digest: digest(&entry.bytes(FIELD_DIGEST)?)?,
            size: entry.varint(FIELD_SIZE)?,
            executable: match entry.varint(FIELD_EXECUTABLE)? {
                0 => false,
                1 => true,
                _ => {
                    return Err(DecodeDirectoryError::Field {
                        offset: base,
                        field: FIELD_EXECUTABLE,
                    });
                }
            },
        },
        FIELD_SYMLINKS => Node::Symlink {
            target: SymlinkTarget::try_from(entry.bytes(FIELD_TARGET)?)?,
        },
        _ => return Err(DecodeDirectoryError::Field { offset: base, field }),
    };
    entry.end()?;
    Ok((name, node))
}

fn digest<K>(bytes: &Bytes) -> Result<Digest<K>, ParseDigestError> {
    Digest::try_from(&bytes[..])
}

enum Value {
    Varint(u64),
    Bytes(Bytes),
}

/// Fields of one entry, each at most once and in ascending order.
struct EntryFields<'a> {
    reader: Reader<'a>,
    base: usize,
    peeked: Option<(u64, Value)>,
}

impl EntryFields<'_> {
    /// The next field if it has that number; a later number stays for the next call.
    fn take(&mut self, field: u64) -> Result<Option<Value>, DecodeDirectoryError> {
        if self.peeked.is_none() {
            self.peeked = self.reader.next_field()?;
        }
        match self.peeked.take() {
            Some((found, value)) if found == field => Ok(Some(value)),
            other => {
                self.peeked = other;
                Ok(None)
            }
        }
    }

    fn bytes(&mut self, field: u64) -> Result<Bytes, DecodeDirectoryError> {
        match self.take(field)? {
            // an empty value would be left out by `encode`, and no field here may be empty
            Some(Value::Bytes(bytes)) if !bytes.is_empty() => Ok(bytes),
            _ => Err(DecodeDirectoryError::Field {
                offset: self.base,
                field,
            }),
        }
    }

    fn varint(&mut self, field: u64) -> Result<u64, DecodeDirectoryError> {
        match self.take(field)? {
            None => Ok(0),
            Some(Value::Varint(value)) if value != 0 => Ok(value),
            Some(_) => Err(DecodeDirectoryError::Field {
                offset: self.base,
                field,
            }),
        }
    }

    fn end(mut self) -> Result<(), DecodeDirectoryError> {
        let rest = match self.peeked.take() {
            Some(peeked) => Some(peeked),
            None => self.reader.next_field()?,
        };
        match rest {
            None => Ok(()),
            Some((field, _)) => Err(DecodeDirectoryError::Field {
                offset: self.base,
                field,
            }),
        }
    }
}

struct Reader<'a> {
    bytes: &'a Bytes,
    offset: usize,
}

impl Reader<'_> {
    fn next_field(&mut self) -> Result<Option<(u64, Value)>, DecodeDirectoryError> {
        if self.offset == self.bytes.len() {
            return Ok(None);
        }
        let key = self.varint()?;
        let (field, wire) = (key >> 3, key & 7);
        let value = match wire {
            WIRE_VARINT => Value::Varint(self.varint()?),
            WIRE_BYTES => Value::Bytes(self.bytes()?),
            _ => {
                return Err(DecodeDirectoryError::Field {
                    offset: self.offset,
                    field,
                });
            }
        };
        Ok(Some((field, value)))
    }

    fn varint(&mut self) -> Result<u64, DecodeDirectoryError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self
                .bytes
                .get(self.offset)
                .ok_or(DecodeDirectoryError::Truncated { offset: self.offset })?;
            self.offset += 1;
            let overflows = shift == 63 && byte > 1;
            let padded = shift > 0 && byte == 0;
            if overflows || padded {
                return Err(DecodeDirectoryError::Varint { offset: self.offset });
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeDirectoryError::Varint { offset: self.offset })
    }

    fn bytes(&mut self) -> Result<Bytes, DecodeDirectoryError> {
        let truncated = DecodeDirectoryError::Truncated { offset: self.offset };
        let size = usize::try_from(self.varint()?).map_err(|_| truncated.clone())?;
        let end = self
            .offset
            .checked_add(size)
            .filter(|end| *end <= self.bytes.len())
            .ok_or(truncated)?;
        let value = self.bytes.slice(self.offset..end);
        self.offset = end;
        Ok(value)
    }
}

/// Why bytes are no canonical directory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeDirectoryError {
    /// The bytes end inside a field.
    #[error("the encoding ends inside the field at byte {offset}")]
    Truncated {
        /// Where the field starts.
        offset: usize,
    },
    /// A number is not written in its shortest form or needs more than 64 bits.
    #[error("the number that ends at byte {offset} is not in its shortest form")]
    Varint {
        /// Where the number ends.
        offset: usize,
    },
    /// A field that is unknown, missing, empty, of a wrong type, repeated or out of order.
    #[error("field {field} of the entry that ends at byte {offset} is missing, unknown, or not canonical")]
    Field {
        /// Where the entry ends.
        offset: usize,
        /// The field's number.
        field: u64,
    },
    /// Entries not ascending, or a list out of its place.
    #[error("the entry `{name}` is out of order")]
    Order {
        /// The entry that should have come earlier.
        name: NodeName,
    },
    /// A name no file system could hold.
    #[error("an entry has no usable name")]
    Name(#[from] ParseNameError),
    /// A target no symlink could hold.
    #[error("a symlink has no usable target")]
    Target(#[from] ParseTargetError),
    /// A digest of the wrong size.
    #[error("an entry has no usable digest")]
    Digest(#[from] ParseDigestError),
    /// The entries do not make a directory.
    #[error("the entries do not make a directory")]
    Make(#[from] MakeDirectoryError),
}

impl DecodeDirectoryError {
    /// Always the sender's fault.
    pub fn code(&self) -> Code {
        Code::InvalidArgument
    }
}
