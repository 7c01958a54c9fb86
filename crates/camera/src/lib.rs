//! Camera sources.
