//! Answers against labels.
