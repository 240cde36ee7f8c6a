//! When a failed request is tried again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::Uri;
use tokio::time::Instant;

use super::breaker::Attempt;
use super::{HttpClient, HttpOptions, RequestError};
use crate::progress::{Progress, ProgressEvent};

/// Counts the tries of one request.
#[derive(Debug)]
pub(super) struct Retry {
    tried: u32,
}

impl Retry {
    pub(super) fn new() -> Self {
        Self { tried: 0 }
    }

    /// The request got somewhere: the next failure is the first again.
    pub(super) fn progressed(&mut self) {
        self.tried = 0;
    }

    /// Waits until it may be tried again.
    ///
    /// # Errors
    /// The failure itself, when trying again cannot help or was tried enough.
    pub(super) async fn after(
        &mut self,
        client: &HttpClient,
        attempt: Attempt<'_>,
        url: &Uri,
        error: RequestError,
        progress: &dyn Progress,
    ) -> Result<(), RequestError> {
        if error.is_answer() {
            attempt.succeeded();
        } else {
            attempt.failed(Instant::now());
        }
        self.tried += 1;
        if !error.is_transient() || self.tried >= client.options.attempts_max {
            return Err(error);
        }
        let delay = delay(&client.options, &client.jitter, self.tried, &error);
        progress.event(ProgressEvent::Retrying {
            url: &url.to_string(),
            tried: self.tried,
            delay,
            error: &error,
        });
        client.breaker.wait(delay).await;
        if let Err(dead) = client.enter(url) {
            tracing::debug!(error = &dead as &dyn std::error::Error, "not tried again");
            return Err(error); // says more than that the host is dead
        }
        Ok(())
    }
}

/// Half of the doubled delay for sure, the other half by chance: those who failed together do not come back together.
fn delay(options: &HttpOptions, jitter: &Jitter, tried: u32, error: &RequestError) -> Duration {
    let factor = 1u32 << (tried - 1).min(16);
    let delay = options
        .backoff_first
        .saturating_mul(factor)
        .min(options.backoff_max);
    let delay = delay / 2 + (delay / 2).mul_f64(jitter.next());
    match error {
        RequestError::Status {
            retry_after: Some(asked),
            ..
        } => delay.max(*asked).min(options.backoff_max),
        _ => delay,
    }
}

/// Numbers from a seed.
///
/// Source: SplitMix64, Steele, Lea, Flood, OOPSLA 2014.
#[derive(Debug)]
pub(super) struct Jitter(AtomicU64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// From 0 to below 1.
    pub(super) fn next(&self) -> f64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bits = u32::try_from((z ^ (z >> 31)) >> 32).unwrap_or_default();
        f64::from(bits) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_spread() {
        let options = HttpOptions::default();
        let error = RequestError::Range {
            url: String::new(),
            offset: 0,
        };
        let jitter = Jitter::new(7);
        for (tried, full) in [(1, 250), (2, 500), (3, 1000), (9, 10_000), (99, 10_000)] {
            let delays: Vec<_> = (0..100)
                .map(|_| delay(&options, &jitter, tried, &error).as_millis())
                .collect();
            assert!(delays.iter().all(|delay| (full / 2..=full).contains(delay)));
            assert!(delays.iter().max() > delays.iter().min(), "they spread");
        }
        let asked = |seconds| RequestError::Status {
            url: String::new(),
            status: 429,
            retry_after: Some(Duration::from_secs(seconds)),
        };
        assert_eq!(delay(&options, &jitter, 1, &asked(3)).as_secs(), 3);
        assert_eq!(delay(&options, &jitter, 1, &asked(u64::MAX)), options.backoff_max);
    }
}
