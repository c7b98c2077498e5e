//! What the fuzz targets share: frames made from a few numbers, and a world that watches its own rules.

pub mod frames;
#[allow(dead_code, reason = "each user of the model needs another part of it")]
#[path = "../../tests/model/mod.rs"]
pub mod model;
pub mod watched;
