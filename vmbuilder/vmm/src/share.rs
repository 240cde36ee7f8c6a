//! What a build's machine sees of the store.

/// Most request queues of one machine: a guest uses one for each processor, more cost memory and give nothing.
pub const QUEUES_MAX: u32 = 4;
