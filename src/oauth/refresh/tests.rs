//! Single stories, and the driver. `model` has the interleavings.

mod model;
mod world;
