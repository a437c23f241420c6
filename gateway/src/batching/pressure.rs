//! What a device has to do, for whoever divides its time between callers.

use super::queue::{Queue, Shared};
use crate::limits::Pressure;

impl Queue {
    /// What the device of this version has to do now, and what one more item adds.
    #[must_use]
    pub fn pressure(&self) -> Pressure<'_> {
        let Shared { pool, load, .. } = &*self.shared;
        Pressure {
            device: &pool.device().0,
            threads: pool.size(),
            wait: pool.wait(),
            row_time: load.row_time(),
        }
    }
}
