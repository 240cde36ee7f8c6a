//! Hashing bytes as they come, with an algorithm chosen at run time.

use std::io;

use sha2::Digest as _;

use super::{HashAlgo, NixHash};

/// Hashes a stream: `update` as often as needed, then `finish`.
///
/// SHA-256 and SHA-1 use the CPU's own instructions where it has them.
#[derive(Clone, Debug)]
pub struct Hasher(State);

#[derive(Clone, Debug)]
enum State {
    Md5(md5::Md5),
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
    Sha512(Box<sha2::Sha512>),
}

impl Hasher {
    /// A hasher that has seen nothing yet.
    pub fn new(algo: HashAlgo) -> Self {
        Self(match algo {
            HashAlgo::Md5 => State::Md5(md5::Md5::new()),
            HashAlgo::Sha1 => State::Sha1(sha1::Sha1::new()),
            HashAlgo::Sha256 => State::Sha256(sha2::Sha256::new()),
            HashAlgo::Sha512 => State::Sha512(Box::default()),
        })
    }

    /// Adds bytes; how the stream is cut makes no difference.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Md5(state) => state.update(bytes),
            State::Sha1(state) => state.update(bytes),
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The hash of all bytes seen.
    pub fn finish(self) -> NixHash {
        match self.0 {
            State::Md5(state) => NixHash::Md5(state.finalize().into()),
            State::Sha1(state) => NixHash::Sha1(state.finalize().into()),
            State::Sha256(state) => NixHash::Sha256(state.finalize().into()),
            State::Sha512(state) => NixHash::Sha512(state.finalize().into()),
        }
    }
}

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
