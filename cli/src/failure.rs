//! What a command ends with when it fails: a message, a hint, an exit code.
//!
//! Invariants
//! - every failure says which thing and, where we know it, what to do (`hint:`); the chain of causes is printed once;
//! - exit codes: 1 the request failed, 2 wrong usage, 3 the reader of stdout went away, 100 to 104 as in Nix, 255 a bug
//!   of ours (a panic).

use std::fmt::Write as _;

use igloo_status::Code;
use igloo_store::DumpError;

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    exit: u8,
    error: anyhow::Error,
    hint: Option<String>,
    /// Whether the error is a text for people already, all of it.
    is_rendered: bool,
}

/// The request failed.
pub const EXIT_FAILED: u8 = 1;
/// The command line is wrong.
pub const EXIT_USAGE: u8 = 2;
/// Whoever reads our output has gone.
pub const EXIT_BROKEN_PIPE: u8 = 3;

impl Failure {
    /// A request that failed.
    pub fn new(error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit: EXIT_FAILED,
            error: error.into(),
            hint: None,
            is_rendered: false,
        }
    }

    /// A command line that cannot be meant.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            exit: EXIT_USAGE,
            error: anyhow::anyhow!(message.into()),
            hint: None,
            is_rendered: false,
        }
    }

    /// A request that failed with a text that says all there is, as evaluations do.
    pub fn rendered(text: String) -> Self {
        Self {
            is_rendered: true,
            ..Self::new(anyhow::anyhow!(text))
        }
    }

    /// The user stopped it.
    pub fn interrupted(message: impl Into<String>) -> Self {
        Self::new(anyhow::anyhow!(message.into()))
    }

    /// A request that failed with an error of a known class; common classes bring their own hint.
    pub fn coded(error: impl Into<anyhow::Error>, code: Code) -> Self {
        Self {
            hint: hint_for(code).map(String::from),
            ..Self::new(error)
        }
    }

    /// The same with another exit code.
    #[must_use]
    pub fn with_exit(self, exit: u8) -> Self {
        Self { exit, ..self }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// A NAR that could not be written: a reader that has gone is no failure worth a message.
    pub fn from_dump(error: DumpError) -> Self {
        let broken =
            matches!(&error, DumpError::Output { source } if source.kind() == std::io::ErrorKind::BrokenPipe);
        let code = error.code();
        let failure = Self::coded(error, code);
        if broken {
            failure.with_exit(EXIT_BROKEN_PIPE)
        } else {
            failure
        }
    }

    /// What to print on stderr: the error and its causes on one line each, then the hint.
    pub fn message(&self) -> String {
        if self.is_rendered {
            return format!("{}\n", self.error);
        }
        let mut text = format!("error: {}\n", self.error);
        let mut above = self.error.to_string();
        for cause in self.error.chain().skip(1) {
            let cause = cause.to_string();
            // an error that prints its cause has said it already
            if !above.contains(&cause) {
                let _ = writeln!(text, "  because: {cause}"); // writing to a String cannot fail
                above = cause;
            }
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "hint: {hint}");
        }
        text
    }

    /// The process's exit code.
    pub fn exit(&self) -> u8 {
        self.exit
    }

    /// Whether the reader of our output has gone, which needs no message.
    pub fn is_broken_pipe(&self) -> bool {
        self.exit == EXIT_BROKEN_PIPE
    }
}

impl From<std::io::Error> for Failure {
    /// For writes to stdout.
    fn from(error: std::io::Error) -> Self {
        let broken = error.kind() == std::io::ErrorKind::BrokenPipe;
        let failure = Self::coded(
            anyhow::Error::new(error).context("cannot write the answer"),
            Code::Unknown,
        );
        if broken {
            failure.with_exit(EXIT_BROKEN_PIPE)
        } else {
            failure
        }
    }
}

fn hint_for(code: Code) -> Option<&'static str> {
    match code {
        Code::ResourceExhausted => {
            Some("free disk space or memory, then run the same command again; the store is whole")
        }
        Code::DataLoss => Some("`igloo store verify` finds what is damaged"),
        Code::Unavailable => Some("check that the other side runs, then try again"),
        Code::PermissionDenied => Some("run as the owner of the files named above"),
        Code::Internal => Some("this is a bug of igloo; please report it with the lines above"),
        _ => None,
    }
}

/// Turns a library error that knows its class into a failure.
macro_rules! coded {
    ($($error:ty),+ $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                let code = error.code();
                Self::coded(error, code)
            }
        })+
    };
}

coded!(
    igloo_build::BuildError,
    igloo_castore::error::ReadDirectoryError,
    igloo_driver::ReadDerivationError,
    igloo_mount::fuse::CleanupError,
    igloo_mount::fuse::MountError,
    igloo_mount::fuse::UnmountError,
    igloo_remote::address::ParseAddressError,
    igloo_remote::connect::ConnectError,
    igloo_remote::listen::ListenError,
    igloo_remote::serve::ServeError,
    igloo_store::AddError,
    igloo_store_io::FlushError,
    igloo_store::ClosureError,
    igloo_store::OpenStoreError,
    igloo_store::ParseStoreUrlError,
    igloo_store::path_info::ReadPathInfoError,
    igloo_vmm::image::OpenImageError,
    igloo_vmm::probe::ProbeError,
    nix_compat::store_path::ParseAbsolutePathError,
    nix_compat::store_path::ParseStorePathError,
    nix_compat::store_path::StorePathNameError,
);

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn causes_are_printed_once() {
        let cause = std::io::Error::from_raw_os_error(28);
        let error = anyhow::Error::new(cause)
            .context("cannot store it")
            .context("adding x failed");
        let text = Failure::coded(error, Code::ResourceExhausted).message();
        assert!(
            text.starts_with("error: adding x failed\n  because: cannot store it\n  because: No space left"),
            "{text}"
        );
        assert!(text.contains("hint: free disk space"), "{text}");
        let repeated: anyhow::Error = Err::<(), _>(anyhow::anyhow!("b")).context("a: b").unwrap_err();
        assert_eq!(Failure::new(repeated).message(), "error: a: b\n");
    }
}
