//! Training recipes: read, resolved, checked, printed; and what a run will cost.
#![deny(missing_docs)]
