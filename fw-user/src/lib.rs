//! dpufw library.
