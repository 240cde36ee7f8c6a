//! Names a process across time: its number is reused, its number with its start time is not.
//!
//! Source: proc(5), `/proc/<pid>/stat`, field 22 (`starttime`, clock ticks since boot).

use std::fmt;
use std::str::FromStr;

/// A process number with the time it was started, which together are unique until the machine reboots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessId {
    pid: u32,
    start_ticks: u64,
}

impl ProcessId {
    /// Who has this number now.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: u32) -> Result<Self, ReadIdentityError> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .map_err(|source| ReadIdentityError::Read { pid, source })?;
        let start_ticks = start_ticks(&stat).ok_or(ReadIdentityError::Parse { pid })?;
        Ok(Self { pid, start_ticks })
    }

    /// The number.
    pub fn pid(self) -> u32 {
        self.pid
    }

    /// Whether that process still exists (a zombie does).
    pub fn is_alive(self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == self)
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pid, self.start_ticks)
    }
}

impl FromStr for ProcessId {
    type Err = ReadIdentityError;

    fn from_str(text: &str) -> Result<Self, ReadIdentityError> {
        let parse = || {
            let (pid, start_ticks) = text.trim_end().split_once(' ')?;
            Some(Self {
                pid: pid.parse().ok().filter(|pid| *pid > 1)?,
                start_ticks: start_ticks.parse().ok()?,
            })
        };
        parse().ok_or_else(|| ReadIdentityError::Text {
            text: text.chars().take(64).collect(),
        })
    }
}

/// The name in the second field may hold spaces and brackets, so fields are counted from its last bracket.
fn start_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Why a process could not be named.
#[derive(Debug, thiserror::Error)]
pub enum ReadIdentityError {
    /// Most often: it is gone.
    #[error("process {pid} cannot be looked up in /proc")]
    Read {
        /// Its number.
        pid: u32,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The kernel's answer has another form than proc(5) says.
    #[error("/proc/{pid}/stat has an unknown form")]
    Parse {
        /// Its number.
        pid: u32,
    },
    /// A recorded identity is damaged.
    #[error("`{text}` is no recorded process")]
    Text {
        /// What was recorded, shortened.
        text: String,
    },
}

impl ReadIdentityError {
    /// The class of the failure.
    pub fn code(&self) -> igloo_status::Code {
        match self {
            Self::Read { source, .. } => igloo_status::Code::from_io(source),
            Self::Parse { .. } => igloo_status::Code::Internal,
            Self::Text { .. } => igloo_status::Code::DataLoss,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "42 (a) b) c) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 1 1";
        assert_eq!(start_ticks(stat), Some(777));
        assert_eq!(start_ticks("42 (a"), None);
    }

    #[test]
    fn a_recorded_process_is_read_back() {
        let me = ProcessId::of(std::process::id()).unwrap();
        assert_eq!(me.to_string().parse::<ProcessId>().unwrap(), me);
        assert!(me.is_alive());
        for text in ["", "1", "1 5", "0 5", "-3 5", "7 x", "7 8 9"] {
            assert!(text.parse::<ProcessId>().is_err(), "{text}");
        }
    }
}
