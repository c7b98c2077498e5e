//! dpufw.
fn main() {}
