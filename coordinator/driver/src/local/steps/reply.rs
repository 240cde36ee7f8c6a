//! Jobs get their answers.

use std::sync::Arc;

use igloo_coordinator::{Answer, ClientId, Event, WantId};

use crate::local::shared::Shared;

pub(super) fn begin(shared: &Arc<Shared>, client: ClientId, want: WantId, answer: Answer) {
    if shared.watch.answer(client, want, answer) {
        return;
    }
    // the client of a process that is gone: with its last answer it is, too
    let step = Arc::clone(shared);
    shared.spawn(async move {
        if step.orphan_answered(client) {
            step.tell(Event::ClientGone { client }).await;
        }
    });
}
