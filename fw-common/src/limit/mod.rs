//! Rate limits: the generic cell rate algorithm.
