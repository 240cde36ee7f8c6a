//! Reading tar archives: old, ustar, pax and GNU headers, entry by entry, in one pass.
//!
//! Invariants
//! - memory: one header block and names of at most [`NAMES_BYTES_MAX`];
//! - an entry's data ends where its header says, or reading it is an error.
//!
//! Sparse files are refused by name. Source: POSIX.1-2017 `pax`, GNU tar manual "Basic Tar Format".

use std::io::{self, Read};

use super::fill;

const BLOCK_SIZE: usize = 512;
/// Bytes of one extended header: names are a few KiB at most.
const NAMES_BYTES_MAX: u64 = 1 << 20;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File {
        size: u64,
        executable: bool,
    },
    Directory,
    /// Target.
    Symlink(Vec<u8>),
    /// Path, in the archive, of the file this is another name of.
    HardLink(Vec<u8>),
    /// Something a store cannot hold.
    Other(&'static str),
}

/// An entry; a file's data is read from the archive before the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    /// Seconds since 1970.
    pub(super) mtime: u64,
}

/// An archive being read.
pub(super) struct Archive<R> {
    reader: R,
    /// Bytes of the current entry's data still to come, and of the padding after them.
    data: u64,
    padding: u64,
    any: bool,
}

/// What headers before an entry say about it.
#[derive(Default)]
struct Extra {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    mtime: Option<u64>,
    sparse: bool,
}

impl<R: Read> Archive<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            data: 0,
            padding: 0,
            any: false,
        }
    }

    /// The next entry; what is left of the last one's data is skipped. `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extra = Extra::default();
        loop {
            self.skip()?;
            let Some(block) = self.block()? else {
                return Ok(None);
            };
            let header = Header(&block);
            header.check(self.any)?;
            self.any = true;
            let size = header.size()?;
            match header.kind() {
                b'L' => extra.path = Some(until_nul(&self.names(size)?)),
                b'K' => extra.link = Some(until_nul(&self.names(size)?)),
                b'x' => {
                    let records = self.names(size)?;
                    extra.read(&records)?;
                }
                // defaults for all that follows; none of what they set matters to a tree
                b'g' => {
                    self.names(size)?;
                }
                kind => return self.entry(kind, header, size, extra).map(Some),
            }
        }
    }

    /// Bytes of the current entry's data, none after the last.
    pub(super) fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let wanted = usize::try_from(self.data).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = fill(&mut self.reader, &mut buffer[..wanted])?;
        if count < wanted {
            return Err(TarError::Truncated);
        }
        self.data -= count as u64;
        Ok(count)
    }

    fn entry(&mut self, kind: u8, header: Header<'_>, size: u64, extra: Extra) -> Result<Entry, TarError> {
        let path = extra.path.unwrap_or_else(|| header.path());
        let link = || {
            extra
                .link
                .clone()
                .unwrap_or_else(|| until_nul(header.field(157, 100)))
        };
        let size = extra.size.unwrap_or(size);
        if extra.sparse || kind == b'S' {
            return Err(TarError::Sparse {
                path: path.escape_ascii().to_string(),
            });
        }
        let is_file = matches!(kind, 0 | b'0' | b'7');
        // GNU tar gives links the size of what they link to, without the data
        let data = if matches!(kind, b'1'..=b'6') { 0 } else { size };
        self.expect(data)?;
        let kind = match kind {
            // before ustar, a slash at the end made a directory
            _ if is_file && path.ends_with(b"/") => Kind::Directory,
            _ if is_file => Kind::File {
                size,
                executable: header.number(100, 8)? & 0o100 != 0,
            },
            b'1' => Kind::HardLink(link()),
            b'2' => Kind::Symlink(link()),
            b'3' | b'4' => Kind::Other("a device"),
            b'5' | b'D' => Kind::Directory,
            b'6' => Kind::Other("a named pipe"),
            b'V' => Kind::Other("a volume label"),
            b'M' => Kind::Other("a part of a file from another volume"),
            _ => Kind::Other("of an unknown type"),
        };
        let mtime = extra.mtime.map_or_else(|| header.number(136, 12), Ok);
        Ok(Entry {
            path,
            kind,
            // a time before 1970, or none, is the oldest there is
            mtime: mtime.unwrap_or(0),
        })
    }

    fn expect(&mut self, data: u64) -> Result<(), TarError> {
        self.data = data;
        let rest = data % BLOCK_SIZE as u64;
        self.padding = if rest == 0 { 0 } else { BLOCK_SIZE as u64 - rest };
        data.checked_add(self.padding)
            .map(|_| ())
            .ok_or(TarError::Number { what: "size" })
    }

    fn skip(&mut self) -> Result<(), TarError> {
        let left = self.data + self.padding;
        let skipped = io::copy(&mut (&mut self.reader).take(left), &mut io::sink())?;
        if skipped < left {
            return Err(TarError::Truncated);
        }
        (self.data, self.padding) = (0, 0);
        Ok(())
    }

    /// The next header; `None` at the end: a block of zeros, or nothing more.
    fn block(&mut self) -> Result<Option<[u8; BLOCK_SIZE]>, TarError> {
        let mut block = [0; BLOCK_SIZE];
        match fill(&mut self.reader, &mut block)? {
            0 if self.any => Ok(None),
            BLOCK_SIZE if block.iter().all(|byte| *byte == 0) => Ok(None),
            BLOCK_SIZE => Ok(Some(block)),
            _ if self.any => Err(TarError::Truncated),
            _ => Err(TarError::NoArchive),
        }
    }

    /// The data of an extended header.
    fn names(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > NAMES_BYTES_MAX {
            return Err(TarError::Names { size });
        }
        self.expect(size)?;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        self.read_data(&mut bytes)?;
        Ok(bytes)
    }
}

impl Extra {
    /// Records `<length> <key>=<value>\n`, one after another.
    fn read(&mut self, mut records: &[u8]) -> Result<(), TarError> {
        while !records.is_empty() && records[0] != 0 {
            let space = records
                .iter()
                .position(|byte| *byte == b' ')
                .ok_or(TarError::Pax)?;
            let length = decimal(&records[..space]).and_then(|length| usize::try_from(length).ok());
            let (record, rest) = length
                .and_then(|length| records.split_at_checked(length))
                .ok_or(TarError::Pax)?;
            let pair = record.get(space + 1..).and_then(|pair| pair.strip_suffix(b"\n"));
            let pair = pair.ok_or(TarError::Pax)?;
            let equals = pair.iter().position(|byte| *byte == b'=').ok_or(TarError::Pax)?;
            self.set(&pair[..equals], &pair[equals + 1..])?;
            records = rest;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(decimal(value).ok_or(TarError::Number { what: "size" })?),
            // a fraction of a second, or a sign, follows or leads
            b"mtime" => self.mtime = value.split(|byte| *byte == b'.').next().and_then(decimal),
            key if key.starts_with(b"GNU.sparse.") => self.sparse = true,
            _ => {}
        }
        Ok(())
    }
}

/// A header block.
#[derive(Clone, Copy)]
struct Header<'a>(&'a [u8; BLOCK_SIZE]);

impl<'a> Header<'a> {
    fn field(self, at: usize, len: usize) -> &'a [u8] {
        self.0.get(at..at + len).unwrap_or_default()
    }

    fn kind(self) -> u8 {
        self.0[156]
    }

    /// The sum of all bytes, its own field counted as spaces; some tars add them up as signed.
    fn check(self, any: bool) -> Result<(), TarError> {
        let counted = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { b' ' } else { *byte };
        let bytes = || self.0.iter().enumerate().map(counted);
        let unsigned: i64 = bytes().map(i64::from).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        let stated = self.number(148, 8).ok().and_then(|sum| i64::try_from(sum).ok());
        match stated {
            Some(sum) if sum == unsigned || sum == signed => Ok(()),
            _ if any => Err(TarError::Checksum),
            _ => Err(TarError::NoArchive),
        }
    }

    fn size(self) -> Result<u64, TarError> {
        self.number(124, 12)
    }

    fn path(self) -> Vec<u8> {
        let name = until_nul(self.field(0, 100));
        let prefix = until_nul(self.field(345, 155));
        // GNU's old format has other things where ustar has the prefix
        if self.field(257, 6) != b"ustar\0" || prefix.is_empty() {
            return name;
        }
        [prefix.as_slice(), b"/", &name].concat()
    }

    /// Octal digits with spaces or NULs around, or GNU's base 256.
    fn number(self, at: usize, len: usize) -> Result<u64, TarError> {
        let field = self.field(at, len);
        let wrong = TarError::Number {
            what: match at {
                124 => "size",
                136 => "time",
                148 => "checksum",
                _ => "mode",
            },
        };
        let add = |base: u64, digit: u8| {
            move |sum: u64| {
                sum.checked_mul(base)
                    .and_then(|sum| sum.checked_add(u64::from(digit)))
            }
        };
        if let [0x80, digits @ ..] = field {
            let sum = digits.iter().try_fold(0, |sum, digit| add(256, *digit)(sum));
            return sum.ok_or(wrong);
        }
        let digits = field.trim_ascii();
        let end = digits.iter().position(|byte| matches!(byte, 0 | b' '));
        let digits = &digits[..end.unwrap_or(digits.len())];
        let sum = digits.iter().try_fold(0, |sum, digit| match digit {
            b'0'..=b'7' => add(8, digit - b'0')(sum),
            _ => None,
        });
        sum.ok_or(wrong)
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
    text.parse().ok()
}

fn until_nul(bytes: &[u8]) -> Vec<u8> {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The first block is no header.
    #[error("it is no tar archive, or compressed in an unknown way (gzip, bzip2, xz and zstd are known)")]
    NoArchive,
    /// It ends inside an entry.
    #[error("it ends in the middle of an entry")]
    Truncated,
    /// A later header's checksum is wrong.
    #[error("the checksum of a header is wrong")]
    Checksum,
    /// A field is no number.
    #[error("the {what} in a header is no number that fits")]
    Number {
        /// The field.
        what: &'static str,
    },
    /// A damaged extended header.
    #[error("an extended header is damaged")]
    Pax,
    /// An oversized extended header.
    #[error("an extended header has {size} bytes, more than {NAMES_BYTES_MAX}")]
    Names {
        /// Its size.
        size: u64,
    },
    /// A sparse file.
    #[error("'{path}' is stored as a sparse file, which is not supported")]
    Sparse {
        /// The file.
        path: String,
    },
    /// The bytes cannot be read: the transfer broke, or they cannot be decoded.
    #[error("its bytes cannot be decoded")]
    Read(#[from] io::Error),
}

#[cfg(test)]
mod tests;
