//! Line charts as SVG.
#![deny(missing_docs)]
