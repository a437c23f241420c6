//! The effective routes: the file, what was changed by hand, and the way back.
