//! Substituters are asked.
//!
//! A path is only asked for when some job that wants it lets substituters be asked; what is not asked is answered as an
//! error, which the machine does not remember as "nobody has it".

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use igloo_binary_cache::{Candidate, Substituters};
use igloo_coordinator::{Event, Offer, OfferAnswer, SourceId};
use nix_compat::store_path::StorePath;

use crate::local::fault::chain;
use crate::local::shared::Shared;

/// Look-ups of one order at once; the substituters bound all together.
const WINDOW: usize = 256;
/// Answers told together.
const ANSWERS_MAX: usize = 64;
/// What a fetch takes besides its bytes.
const OVERHEAD: Duration = Duration::from_millis(200);
/// Bytes in a second that a fetch is taken to bring.
const BYTES_PER_SECOND: u64 = 10 << 20;

pub(super) fn begin(shared: &Arc<Shared>, paths: Vec<StorePath>) {
    let step = Arc::clone(shared);
    shared.spawn(async move {
        let shared = &step;
        let answers = stream::iter(paths).map(|path| async move {
            let answer = ask(shared, &path).await;
            (path, answer)
        });
        let mut portions = answers.buffer_unordered(WINDOW).ready_chunks(ANSWERS_MAX).boxed();
        while let Some(answers) = portions.next().await {
            shared.tell(Event::Offers(answers)).await;
        }
    });
}

async fn ask(shared: &Shared, path: &StorePath) -> OfferAnswer {
    let substituters = shared.substituters.as_ref();
    let asked = substituters.filter(|_| shared.watch.wants_substitutes(path));
    let answer = match asked {
        Some(substituters) => look_up(shared, substituters, path).await,
        None => OfferAnswer::Error {
            reason: "no substituter was to be asked".into(),
        },
    };
    if !matches!(answer, OfferAnswer::Offer(_)) {
        if answer == OfferAnswer::None {
            shared.note_absent(path);
        }
        shared.watch.must_make(path);
    }
    answer
}

async fn look_up(shared: &Shared, substituters: &Substituters, path: &StorePath) -> OfferAnswer {
    match substituters.look_up(path).await {
        Ok(Some(candidate)) => {
            let answer = OfferAnswer::Offer(describe(&candidate));
            shared.watch.offered(path, candidate);
            answer
        }
        Ok(None) => OfferAnswer::None,
        Err(error) => {
            shared.complaints.tell(path, &error);
            let reason = chain(&error).join(": ");
            OfferAnswer::Error { reason }
        }
    }
}

fn describe(candidate: &Candidate) -> Offer {
    let nar = &candidate.offer.nar;
    let bytes = candidate.offer.download_size.unwrap_or(nar.nar_size);
    Offer {
        source: SourceId(candidate.source as u64),
        nar_size: nar.nar_size,
        references: nar.references.iter().cloned().collect(),
        estimate: OVERHEAD.saturating_add(Duration::from_secs(bytes / BYTES_PER_SECOND)),
    }
}
