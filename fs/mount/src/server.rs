//! FUSE requests in, answers out: the door through which every transport hands over what a kernel sent.
//!
//! A transport gives a request as bytes of its own and a place for the answer: a buffer (`/dev/fuse`, a stream) or a
//! virtqueue's descriptors. The request is copied before it is looked at, so a guest cannot change it under our eyes.
//!
//! Invariants
//! - an opcode outside the table below never reaches the FUSE library; it is answered `ENOSYS` here;
//! - a request is at most [`REQUEST_SIZE_MAX`] bytes and exactly as long as its header says;
//! - every request that wants an answer gets one, with the header's length true, whatever goes wrong on our side, a panic
//!   of a store included;
//! - the thread may block: it has marked itself with `igloo_castore::blocking::allow_on_this_thread`.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fuse_backend_rs::abi::fuse_abi::{InHeader, OutHeader};
use fuse_backend_rs::api::server::{MAX_BUFFER_SIZE, Server};
use fuse_backend_rs::transport::{FuseBuf, FuseDevWriter, Reader, VirtioFsWriter, Writer};
use vm_memory::ByteValued;

use crate::fs::CastoreFs;
use crate::sync::Arc;

/// Largest request taken, bytes. The kernel insists on room for a write of 1 MiB even if none will come.
pub const REQUEST_SIZE_MAX: usize = MAX_BUFFER_SIZE as usize + 4096;
/// Largest answer given, bytes: a read of 1 MiB and its header.
pub const REPLY_SIZE_MAX: usize = MAX_BUFFER_SIZE as usize + 4096;
/// Bytes of a request's header (struct fuse_in_header, linux/fuse.h).
pub const REQUEST_HEADER_SIZE: usize = size_of::<InHeader>();
const REPLY_HEADER_SIZE: usize = size_of::<OutHeader>();

/// Serves the requests of one kernel. Shared by the threads of a transport.
pub struct FsServer {
    fs: Arc<CastoreFs>,
    server: Server<Arc<CastoreFs>>,
    /// The library's buffered writer insists on a descriptor to flush to; answers go nowhere but into the buffer.
    null: File,
}

impl std::fmt::Debug for FsServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FsServer")
            .field("fs", &self.fs)
            .finish_non_exhaustive()
    }
}

impl FsServer {
    /// A server of that file system.
    ///
    /// # Errors
    /// When `/dev/null` cannot be opened: no file descriptors are left.
    pub fn new(fs: Arc<CastoreFs>) -> io::Result<Self> {
        let null = File::options().write(true).open("/dev/null")?;
        Ok(Self {
            server: Server::new(fs.clone()),
            fs,
            null,
        })
    }

    /// The file system served.
    pub fn fs(&self) -> &Arc<CastoreFs> {
        &self.fs
    }

    /// Serves one request and writes the answer to the start of `reply`; returns its size, 0 when none is due.
    ///
    /// `reply` needs [`REPLY_SIZE_MAX`] bytes to hold any answer; what does not fit is answered with an error. Any bytes
    /// may be given: those that are no request are answered with an error, or not at all when not even a header is there.
    /// This is also how a request that came over a stream is served.
    pub fn serve_buffer(&self, request: &mut [u8], reply: &mut [u8]) -> usize {
        if reply.len() < REPLY_HEADER_SIZE {
            return 0;
        }
        let header = match self.admit(request) {
            Admitted::Serve(header) => header,
            Admitted::Refuse(header, errno) => return write_error(reply, header.unique, errno),
            Admitted::Drop => return 0,
        };
        let served = catch_unwind(AssertUnwindSafe(|| {
            let reader: Reader<'_, ()> = Reader::from_fuse_buffer(FuseBuf::new(request)).ok()?;
            let mut writer = FuseDevWriter::new(self.null.as_raw_fd(), reply).ok()?;
            let writer = writer.split_at(0).ok()?; // a split writer keeps the answer in its buffer
            self.server
                .handle_message(reader, Writer::FuseDev(writer), None, None)
                .ok()
        }));
        match served {
            Ok(Some(size)) if size <= reply.len() && (size > 0 || !header.wants_answer()) => size,
            Ok(_) if !header.wants_answer() => 0,
            Ok(_) => write_error(reply, header.unique, libc::EINVAL),
            Err(_) => self.after_panic(header, reply),
        }
    }

    /// Serves one request of a guest and writes the answer into guest memory; returns the bytes written there.
    ///
    /// # Errors
    /// When the answer does not fit into what the guest gave for it: then nothing, or part of it, was written.
    pub(crate) fn serve_guest(
        &self,
        request: &mut [u8],
        mut reply: VirtioFsWriter<'_, ()>,
    ) -> io::Result<usize> {
        let mut spare = reply.clone();
        let header = match self.admit(request) {
            Admitted::Serve(header) => header,
            Admitted::Refuse(header, errno) => return send_error(&mut reply, header.unique, errno),
            Admitted::Drop => return Ok(0),
        };
        let served = catch_unwind(AssertUnwindSafe(|| {
            let reader: Reader<'_, ()> = Reader::from_fuse_buffer(FuseBuf::new(request)).ok()?;
            self.server
                .handle_message(reader, Writer::VirtioFs(reply), None, None)
                .ok()
        }));
        match served {
            Ok(Some(size)) if size > 0 || !header.wants_answer() => Ok(size),
            _ if !header.wants_answer() => Ok(0),
            Ok(_) => send_error(&mut spare, header.unique, libc::EINVAL),
            Err(_) => {
                log_panic(header);
                send_error(&mut spare, header.unique, libc::EIO)
            }
        }
    }

    /// Counts a request and decides whether the library may see it.
    fn admit(&self, request: &[u8]) -> Admitted {
        let Some(raw) = request.get(..REQUEST_HEADER_SIZE).and_then(InHeader::from_slice) else {
            return Admitted::Drop;
        };
        let header = Header {
            opcode: raw.opcode,
            unique: raw.unique,
        };
        self.fs.counters().request(header.opcode);
        if usize::try_from(raw.len).ok() != Some(request.len()) || request.len() > REQUEST_SIZE_MAX {
            return header.refuse(libc::EINVAL);
        }
        match header.opcode {
            opcode::INTERRUPT => header.refuse(libc::ENOSYS), // the kernel stops sending them
            _ if SERVED.contains(&header.opcode) => Admitted::Serve(header),
            _ if CHANGES.contains(&header.opcode) => header.refuse(libc::EROFS),
            _ => header.refuse(libc::ENOSYS),
        }
    }

    fn after_panic(&self, header: Header, reply: &mut [u8]) -> usize {
        log_panic(header);
        if !header.wants_answer() {
            return 0;
        }
        write_error(reply, header.unique, libc::EIO)
    }
}

/// What to do with a request.
enum Admitted {
    Serve(Header),
    Refuse(Header, i32),
    Drop,
}

#[derive(Clone, Copy)]
struct Header {
    opcode: u32,
    unique: u64,
}

impl Header {
    /// FORGET and BATCH_FORGET are never answered, not even with an error.
    fn wants_answer(self) -> bool {
        !matches!(self.opcode, opcode::FORGET | opcode::BATCH_FORGET)
    }

    fn refuse(self, errno: i32) -> Admitted {
        if self.wants_answer() {
            Admitted::Refuse(self, errno)
        } else {
            Admitted::Drop
        }
    }
}

fn log_panic(header: Header) {
    let opcode = header.opcode;
    tracing::error!(
        opcode,
        "a file system request panicked; it is answered with EIO. This is a bug"
    );
}

fn error_header(unique: u64, errno: i32) -> OutHeader {
    let len = u32::try_from(REPLY_HEADER_SIZE).unwrap_or_default();
    OutHeader {
        len,
        error: -errno,
        unique,
    }
}

fn write_error(reply: &mut [u8], unique: u64, errno: i32) -> usize {
    match reply.get_mut(..REPLY_HEADER_SIZE) {
        Some(room) => {
            room.copy_from_slice(error_header(unique, errno).as_slice());
            REPLY_HEADER_SIZE
        }
        None => 0,
    }
}

fn send_error(reply: &mut VirtioFsWriter<'_, ()>, unique: u64, errno: i32) -> io::Result<usize> {
    reply.write_all(error_header(unique, errno).as_slice())?;
    Ok(REPLY_HEADER_SIZE)
}

/// Numbers of requests (enum fuse_opcode, linux/fuse.h).
mod opcode {
    pub(super) const FORGET: u32 = 2;
    pub(super) const INTERRUPT: u32 = 36;
    pub(super) const BATCH_FORGET: u32 = 42;
}

/// lookup, forget, getattr, readlink, open, read, statfs, init, opendir, readdir, access, destroy, batch_forget,
/// readdirplus: what the file system answers itself.
const SERVED: [u32; 14] = [1, 2, 3, 5, 14, 15, 17, 26, 27, 28, 34, 38, 42, 44];

/// setattr, symlink, mknod, mkdir, unlink, rmdir, rename, link, write, setxattr, removexattr, create, fallocate, rename2,
/// copy_file_range, tmpfile: what would change something.
const CHANGES: [u32; 16] = [4, 6, 8, 9, 10, 11, 12, 13, 16, 21, 24, 35, 43, 45, 47, 51];

#[cfg(test)]
pub(crate) mod tests;
