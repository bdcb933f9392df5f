//! Helpers shared by the parity and end-to-end tests.
