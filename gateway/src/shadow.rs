//! Shadows: what they cost at most, and how their answers compare with the live ones.
