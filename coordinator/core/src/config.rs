//! Bounds and waits.

use std::time::Duration;

/// How the machine behaves. All counts are at least 1 in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Name of the store that inputs are in and outputs go to, as builders name it; a builder that knows it is preferred.
    pub store: String,
    /// Open wants of one client at most; those past it are refused.
    pub wants_max: usize,
    /// Nodes (paths and derivations) kept at most, unless wanted ones are more. About 300 bytes each, and 20 for each edge.
    pub nodes_max: usize,
    /// Derivations being read at once.
    pub reads_max: usize,
    /// Questions to the store at once.
    pub store_queries_max: usize,
    /// Questions to the substituters at once; 0 asks none.
    pub substituter_queries_max: usize,
    /// Keys in one question.
    pub query_batch_max: usize,
    /// Fetches at once.
    pub fetches_max: usize,
    /// Tries at one fetch, and at one question to the store.
    pub fetch_attempts_max: u32,
    /// Builds given to builders that failed as builders, before the derivation is given up.
    pub infrastructure_attempts_max: u32,
    /// Builds that failed for the moment, before the derivation is given up.
    pub transient_attempts_max: u32,
    /// Wait before the second try; it doubles each time.
    pub backoff: Duration,
    /// Longest wait before a try.
    pub backoff_max: Duration,
    /// A builder not heard of for so long is taken as gone.
    pub builder_silence_max: Duration,
    /// How long a build that nobody wants any more goes on.
    pub unwanted_grace: Duration,
    /// How long after a restart a builder may take to come back with what it ran.
    pub reattach_max: Duration,
    /// How long something waits for a builder that could run it, when none is there.
    pub no_builder_max: Duration,
    /// How long a path is taken as valid without asking again, while nothing holds it.
    pub valid_for: Duration,
    /// How long it is remembered that no substituter has a path.
    pub absent_for: Duration,
    /// How long a failure answers for new wants.
    pub failed_for: Duration,
    /// When a build may race a fetch.
    pub hedge: Hedge,
    /// How long a build may take that nobody knows of.
    pub estimate: Duration,
}

/// When a build may race a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hedge {
    /// Never.
    Off,
    /// When a fetch is expected to take longer than the build, and this much more; or takes that much more than expected.
    Slack(Duration),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            store: String::new(),
            wants_max: 1 << 20,
            nodes_max: 1 << 20,
            reads_max: 256,
            store_queries_max: 4096,
            substituter_queries_max: 1024,
            query_batch_max: 256,
            fetches_max: 32,
            fetch_attempts_max: 3,
            infrastructure_attempts_max: 3,
            transient_attempts_max: 2,
            backoff: Duration::from_secs(1),
            backoff_max: Duration::from_mins(2),
            builder_silence_max: Duration::from_mins(1),
            unwanted_grace: Duration::from_secs(5),
            reattach_max: Duration::from_mins(1),
            no_builder_max: Duration::from_secs(30),
            valid_for: Duration::from_mins(5),
            absent_for: Duration::from_mins(5),
            failed_for: Duration::from_mins(10),
            hedge: Hedge::Slack(Duration::from_secs(30)),
            estimate: Duration::from_secs(30),
        }
    }
}
