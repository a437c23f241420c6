//! Replays
