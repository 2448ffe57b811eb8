//! The kinds of destinations, one module each.
