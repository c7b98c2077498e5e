//! dpufw policy language.
