//! Pictures on disk: quantisation, grids, PNG with a recipe, npz.
