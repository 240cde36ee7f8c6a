//! The journal on disk: a text file of records, written in groups.
//!
//! On disk: `STATE/journal`, [`FORMAT`] and a record a line; `STATE/journal.new` while it is written anew; `STATE/lock`.
//!
//! Invariants
//! - one process at a time has it: `lock` is locked for as long as it is open;
//! - a new journal takes the old one's place in one step, synced before;
//! - what follows the last newline was torn off in a crash, and is never appended to.

use std::fs::{File, TryLockError};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};

use igloo_coordinator::Record;
use igloo_coordinator::journal::{FORMAT, ParseRecordError, RECORD_SIZE_MAX};
use igloo_status::Code;

use super::config::JournalSync;

/// An open journal.
#[derive(Debug)]
pub(crate) struct Journal {
    dir: PathBuf,
    file: File,
    size: u64,
    /// Its size when it was last written anew.
    base_size: u64,
    sync: JournalSync,
    is_new: bool,
    _lock: File,
}

impl Journal {
    /// Opens the journal in `dir`, which is made when it is not there, and reads what it holds. Blocks.
    pub(crate) fn open(dir: &Path, sync: JournalSync) -> Result<(Self, Vec<Record>), JournalError> {
        let failed = |source| JournalError::io(dir, source);
        std::fs::create_dir_all(dir).map_err(failed)?;
        let lock = File::create(dir.join("lock")).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => JournalError::Locked {
                dir: dir.to_path_buf(),
            },
            TryLockError::Error(source) => failed(source),
        })?;
        let records = read(dir)?;
        let is_new = !dir.join("journal").try_exists().map_err(failed)?;
        let file = File::options()
            .create(true)
            .append(true)
            .open(dir.join("journal"))
            .map_err(failed)?;
        let journal = Self {
            dir: dir.to_path_buf(),
            size: u64::MAX, // it may end in a torn line: it must be written anew first
            base_size: 0,
            file,
            sync,
            is_new,
            _lock: lock,
        };
        Ok((journal, records))
    }

    /// Whether there was none before.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Appends records; they are safe when this returns, as far as was asked for. Blocks.
    pub(crate) fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        self.write(records)?;
        match self.sync {
            JournalSync::Group => self.file.sync_data().map_err(|source| self.failed(source)),
            JournalSync::Written => Ok(()),
        }
    }

    /// Appends records that are safe when the next ones are.
    pub(crate) fn write(&mut self, records: &[Record]) -> Result<(), JournalError> {
        let text = text_of(records);
        self.file
            .write_all(text.as_bytes())
            .map_err(|source| self.failed(source))?;
        self.size = self.size.saturating_add(text.len() as u64);
        Ok(())
    }

    /// Whether it has grown so much that it should be written anew.
    pub(crate) fn is_long(&self, size_max: u64) -> bool {
        self.size > size_max.max(self.base_size.saturating_mul(2))
    }

    /// Puts these records in the place of all that was written. Blocks.
    pub(crate) fn replace(&mut self, records: &[Record]) -> Result<(), JournalError> {
        let failed = |source| JournalError::io(&self.dir, source);
        let text = format!("{FORMAT}\n{}", text_of(records));
        let new = self.dir.join("journal.new");
        let mut file = File::create(&new).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        std::fs::rename(&new, self.dir.join("journal")).map_err(failed)?;
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(failed)?;
        self.file = file;
        self.size = text.len() as u64;
        self.base_size = self.size;
        Ok(())
    }

    fn failed(&self, source: std::io::Error) -> JournalError {
        JournalError::io(&self.dir, source)
    }
}

fn text_of(records: &[Record]) -> String {
    records.iter().map(|record| format!("{record}\n")).collect()
}

/// The records of a journal, in order; none when there is no journal.
fn read(dir: &Path) -> Result<Vec<Record>, JournalError> {
    let path = dir.join("journal");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(JournalError::io(dir, source)),
    };
    let mut reader = BufReader::new(file);
    let mut records = Vec::new();
    let mut line = Vec::new();
    for number in 0u64.. {
        line.clear();
        let bound = RECORD_SIZE_MAX as u64 + 1;
        let taken = reader.by_ref().take(bound).read_until(b'\n', &mut line);
        taken.map_err(|source| JournalError::io(dir, source))?;
        let Some(text) = line.strip_suffix(b"\n") else {
            break; // the end, or torn off
        };
        let text = String::from_utf8_lossy(text);
        if number > 0 {
            let record = text.parse().map_err(|source| JournalError::Record {
                path: path.clone(),
                line: number + 1,
                source,
            })?;
            records.push(record);
        } else if text != FORMAT {
            return Err(JournalError::Format { path });
        }
    }
    Ok(records)
}

/// Why the journal cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process has it.
    #[error("another coordinator uses {}; stop it, or choose another state folder", dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// It is of another version, or no journal.
    #[error("{} is no journal of this version of igloo; move it away to begin a new one", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// A line that is no record.
    #[error("{}, line {line}: move the file away to begin a new journal", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        #[source]
        source: ParseRecordError,
    },
    /// The disk refuses.
    #[error("the journal in {} cannot be read or written", dir.display())]
    Io {
        /// The folder.
        dir: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl JournalError {
    fn io(dir: &Path, source: std::io::Error) -> Self {
        Self::Io {
            dir: dir.to_path_buf(),
            source,
        }
    }

    /// The class of the failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Locked { .. } | Self::Format { .. } => Code::FailedPrecondition,
            Self::Record { source, .. } => source.code(),
            Self::Io { source, .. } => Code::from_io(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use igloo_coordinator::{BuilderId, ClientId, LeaseId};

    use super::*;

    fn gone(client: u64) -> Record {
        Record::ClientGone {
            client: ClientId(client),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, records) = Journal::open(dir.path(), JournalSync::Group).unwrap();
        assert!(records.is_empty());
        journal.replace(&[gone(1)]).unwrap();
        let drv = "64gg0rb54s3zs6ikyqllwvhh05hnwz4q-x.drv".parse().unwrap();
        let leased = Record::Leased {
            lease: LeaseId(1),
            attempt: 1,
            builder: BuilderId(2),
            drv,
        };
        journal.append(std::slice::from_ref(&leased)).unwrap();
        journal.write(&[gone(2)]).unwrap();
        drop(journal);
        let (mut journal, records) = Journal::open(dir.path(), JournalSync::Group).unwrap();
        assert_eq!(records, [gone(1), leased, gone(2)]);
        journal.replace(&[gone(3)]).unwrap();
        assert!(!journal.is_long(1000));
        drop(journal);
        // torn off in a crash
        let path = dir.path().join("journal");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}gone 1")).unwrap();
        let (_journal, records) = Journal::open(dir.path(), JournalSync::Group).unwrap();
        assert_eq!(records, [gone(3)]);
    }

    #[test]
    fn what_is_no_journal_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        for (text, is_format) in [
            ("some other file\n", true),
            (&*format!("{FORMAT}\nnonsense\n"), false),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Journal::open(dir.path(), JournalSync::Group).unwrap_err();
            assert_eq!(matches!(error, JournalError::Format { .. }), is_format, "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn one_process_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = Journal::open(dir.path(), JournalSync::Written).unwrap();
        let second = Journal::open(dir.path(), JournalSync::Written);
        assert!(matches!(second, Err(JournalError::Locked { .. })));
        drop(first);
        Journal::open(dir.path(), JournalSync::Written).unwrap();
    }
}
