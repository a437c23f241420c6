//! What becomes of segments, step by step.
