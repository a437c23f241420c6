//! The two sides of a device: what waits, and the threads that take it.

/// Whose threads run a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Side {
    /// Live calls, and shadows too where those have no threads of their own.
    #[default]
    Live,
    Shadow,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Live => Self::Shadow,
            Self::Shadow => Self::Live,
        }
    }
}
