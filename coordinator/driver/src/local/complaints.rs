//! Warnings about substituters, told once and not for every path.
//!
//! A substituter that cannot be asked fails for each of thousands of paths alike. What it did with one path alone (a record
//! that cannot be believed) is told for that path.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use igloo_binary_cache::{LookUpError, Refusal, SubstituteError};
use nix_compat::store_path::StorePath;
use tokio::time::Instant;

use super::fault::chain;
use super::shared::lock;

/// How long a substituter's failure is not told again.
const SILENCE: Duration = Duration::from_secs(60);

/// When each substituter was last complained of.
#[derive(Debug, Default)]
pub(crate) struct Complaints(Mutex<HashMap<String, Instant>>);

impl Complaints {
    /// Warns of what came instead of an offer of this path, as far as that is news.
    pub(crate) fn tell(&self, path: &StorePath, error: &SubstituteError) {
        let SubstituteError::LookUp { errors, .. } = error else {
            let reason = chain(error).join(": ");
            tracing::warn!("{path}: {reason}");
            return;
        };
        for (substituter, error) in errors.iter() {
            let reason = chain(error).join(": ");
            if is_of_the_path(error) {
                tracing::warn!("{path} is not taken from {substituter}: {reason}");
            } else if self.is_news(&substituter.to_string()) {
                tracing::warn!("substituter {substituter} is passed over: {reason}");
            }
        }
    }

    fn is_news(&self, substituter: &str) -> bool {
        let mut told = lock(&self.0);
        let now = Instant::now();
        let news = told
            .get(substituter)
            .is_none_or(|last| now.duration_since(*last) >= SILENCE);
        if news {
            told.insert(substituter.to_owned(), now);
        }
        news
    }
}

/// Whether the answer says nothing of other paths.
fn is_of_the_path(error: &LookUpError) -> bool {
    match error {
        LookUpError::Refused(refusal) => !matches!(
            **refusal,
            Refusal::NotACache { .. } | Refusal::CacheInfo { .. } | Refusal::StoreDir { .. }
        ),
        LookUpError::Request(_) | LookUpError::Read { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_substituter_is_complained_of_once_in_a_while() {
        let complaints = Complaints::default();
        assert!(complaints.is_news("a"));
        assert!(!complaints.is_news("a"));
        assert!(complaints.is_news("b"));
        tokio::time::advance(SILENCE).await;
        assert!(complaints.is_news("a"));
    }
}
