//! Every bound on what a peer can make us hold, send, or wait for.

use std::time::Duration;

/// Largest message of blob bytes, either direction.
pub const BLOB_MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Largest message with directories, either direction: about 150,000 entries in one directory.
pub const DIRECTORY_MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Bytes of data in a message that we send, where the data is cut freely.
pub const SEND_BYTES: usize = 256 << 10;
/// Bytes of small blobs or directories put together in one message.
pub const BATCH_BYTES: usize = 1 << 20;
/// Largest blob that is fetched whole and kept whole, bytes.
pub const WHOLE_BYTES_MAX: u64 = 4 << 20;
/// Largest blob that is read although the peer can give it in one piece only: each read streams all of it.
pub const UNSPLIT_BYTES_MAX: u64 = 4 << 30;
/// Largest chunk a peer's list may name, bytes.
pub const CHUNK_BYTES_MAX: u64 = 4 << 20;
/// Requests that one read has under way.
pub const FETCH_WINDOW: usize = 8;
/// Small blobs under way at once to a peer without batches.
pub const PUT_WINDOW: usize = 16;
/// Most directories in one Put or one recursive Get.
pub const DIRECTORIES_MAX: usize = 4 << 20;
/// Most paths registered in one call.
pub const PATH_INFOS_MAX: usize = 1 << 20;
/// Most references of paths registered in one call.
pub const REFERENCES_MAX: usize = 4 << 20;
/// Most facts set in one call.
pub const FACTS_MAX: usize = 4096;
/// Longest key of a fact, bytes.
pub const FACT_KEY_BYTES_MAX: usize = 1 << 10;
/// Longest value of a fact, bytes.
pub const FACT_VALUE_BYTES_MAX: usize = 1 << 20;
/// Calls under way on one connection to our server.
pub const STREAMS_MAX: u32 = 256;
/// Flow control: bytes in flight in one call.
pub const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// Flow control: bytes in flight on one connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Longest wait for a connection.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Longest wait for an answer, or for the next message of one.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// How often a silent connection is asked whether it lives, and how long it may take to answer.
pub const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long calls under way may take to end after a shutdown was asked for.
pub const DRAIN_WITHIN: Duration = Duration::from_secs(10);
/// Waits before a call that got no answer is tried again; as many retries as entries.
pub const RETRY_AFTER: [Duration; 3] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(800),
];
