//! How much something is wanted.
//!
//! A node of the graph is wanted by wants and by other nodes, each with an urgency; its own is the best of them, and it
//! wants what it needs with that. So an import from derivation pulls up all it stands on, and lets go of it again.
//!
//! Invariants
//! - [`Demand`] counts exactly the open edges into a node, by the urgency each of them passes on;
//! - no demand and demand of the least urgency are different things.

/// Why something is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// An evaluation cannot go on without it (import from derivation).
    ImportFromDerivation,
    /// Somebody asked for it.
    Goal,
    /// Somebody may ask for it.
    Prefetch,
}

/// Order among wants of one purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A person waits.
    High,
    /// The usual.
    #[default]
    Normal,
    /// A batch that can wait.
    Low,
}

/// Purpose and priority as one number; smaller is more urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Urgency(u8);

impl Urgency {
    pub(crate) const COUNT: usize = 9;

    pub(crate) fn new(purpose: Purpose, priority: Priority) -> Self {
        Self(purpose as u8 * 3 + priority as u8)
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Of an import from derivation.
    pub(crate) fn holds_evaluation(self) -> bool {
        self.0 < 3
    }

    /// Of a want, not a guess.
    pub(crate) fn is_asked_for(self) -> bool {
        self.0 < 6
    }

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..9).map(Self)
    }
}

/// How many want a node, by urgency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Demand([u32; Urgency::COUNT]);

impl Demand {
    pub(crate) fn add(&mut self, urgency: Urgency) {
        self.0[urgency.index()] += 1;
    }

    pub(crate) fn sub(&mut self, urgency: Urgency) {
        debug_assert!(self.0[urgency.index()] > 0, "demand was never added");
        let count = &mut self.0[urgency.index()];
        *count = count.saturating_sub(1);
    }

    /// The most urgent; `None` when nobody wants the node.
    pub(crate) fn top(&self) -> Option<Urgency> {
        Urgency::all().find(|urgency| self.0[urgency.index()] > 0)
    }
}
