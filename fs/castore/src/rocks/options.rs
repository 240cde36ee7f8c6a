//! How the database is tuned, and what it may use.
//!
//! Memory, at most: block cache + twice the write buffers (one filling, one on its way to disk) + about 10 MiB of RocksDB's
//! own.

use rocksdb::{BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, LogLevel, Options};

use super::{BLOBS, CHUNKS, CONTENT_TABLES, DIRECTORIES, PACKS};

/// The log is emptied by a flush when it has grown to this, bytes; bounds the time to reopen.
const LOG_SIZE_MAX: u64 = 32 << 20;

/// What the caller decides.
#[derive(Clone, Debug)]
pub struct RocksOptions {
    /// Tables of the caller's, beside those for content.
    pub tables: &'static [&'static str],
    /// Memory budget.
    pub memory: RocksMemory,
    /// Most files open at once; a read-only store opens all it has.
    pub open_files_max: u32,
    /// Writes are refused while the disk has less than this left, bytes.
    pub free_space_min_bytes: u64,
    /// Who opens the store, for the message another process gets ("igloo mount").
    pub owner: String,
}

/// Memory the database may use, bytes.
#[derive(Clone, Copy, Debug)]
pub struct RocksMemory {
    /// For blocks read, indexes and filters.
    pub block_cache_bytes: usize,
    /// For what is written and not yet on disk, all tables together.
    pub write_buffer_bytes: usize,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self {
            tables: &[],
            memory: RocksMemory::default(),
            open_files_max: 512,
            free_space_min_bytes: 64 << 20,
            owner: "igloo".to_owned(),
        }
    }
}

impl Default for RocksMemory {
    fn default() -> Self {
        Self {
            block_cache_bytes: 32 << 20,
            write_buffer_bytes: 32 << 20,
        }
    }
}

pub(super) fn database(options: &RocksOptions) -> Options {
    let mut db = Options::default();
    db.create_if_missing(true);
    db.create_missing_column_families(true);
    db.set_db_write_buffer_size(options.memory.write_buffer_bytes);
    db.set_max_total_wal_size(LOG_SIZE_MAX);
    db.set_max_open_files(i32::try_from(options.open_files_max).unwrap_or(i32::MAX));
    db.set_max_background_jobs(2);
    db.set_bytes_per_sync(1 << 20);
    db.set_log_level(LogLevel::Warn);
    db.set_keep_log_file_num(2);
    db.set_max_log_file_size(1 << 20);
    db.set_stats_dump_period_sec(0);
    db
}

pub(super) fn tables<'a>(
    options: &RocksOptions,
    existing: impl IntoIterator<Item = &'a str>,
) -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(options.memory.block_cache_bytes);
    let mut names: Vec<&str> = CONTENT_TABLES.to_vec();
    names.extend(options.tables);
    names.extend(existing);
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .map(|name| ColumnFamilyDescriptor::new(name, table(name, options, &cache)))
        .collect()
}

fn table(name: &str, options: &RocksOptions, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_bloom_filter(10.0, false);
    // filters and indexes count against the cache's budget
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    blocks.set_format_version(5);
    let mut table = Options::default();
    table.set_block_based_table_factory(&blocks);
    table.set_write_buffer_size(options.memory.write_buffer_bytes / 4);
    table.set_compression_type(match name {
        // digests do not compress
        CHUNKS | BLOBS | PACKS => DBCompressionType::None,
        DIRECTORIES => DBCompressionType::Lz4,
        _ => DBCompressionType::Zstd,
    });
    table
}
